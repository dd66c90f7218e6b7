//! A transaction is sent whole or not at all, executed once or not at all, and its client knows which.

mod scene;

use std::time::Duration;

use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};
use scene::{
    A_WHILE, EXEC, MULTI, Master, Scene, get, huge, keys_apart, pool, queue, queued, receive, set,
};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PREVIOUS: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
const READONLY: &[u8] = b"-READONLY You can't write against a read only replica.\r\n";

#[test]
fn nothing_is_sent_before_exec_and_then_all_of_it_in_one_piece() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    let mut other = scene.client();
    queue(&mut client, &[set("k", "1"), get("k")]);
    other.send(&get("j"));
    assert_eq!(master.request(), ["GET", "j"], "and nothing before it");
    client.send(EXEC);
    receive(&mut master, &[&["SET", "k", "1"], &["GET", "k"]]);
    master.send(b"$-1\r\n");
    assert_eq!(other.line(), "$-1");
    master.send(&queued(2));
    client.says_nothing();
    master.send(b"*2\r\n+OK\r\n$1\r\n1\r\n");
    let lines = [(); 4].map(|()| client.line());
    assert_eq!(lines, ["*2", "+OK", "$1", "1"]);
    client.send(EXEC);
    assert_eq!(client.line(), "-ERR EXEC without MULTI");
}

#[test]
fn one_packet_may_hold_a_transaction_and_what_stands_around_it() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    let parts = [get("a"), MULTI.to_vec(), set("b", "1"), EXEC.to_vec()];
    client.send(&[parts.concat(), get("c"), PING.to_vec()].concat());
    assert_eq!(master.request(), ["GET", "a"]);
    receive(&mut master, &[&["SET", "b", "1"]]);
    assert_eq!(master.request(), ["GET", "c"]);
    let replies = [b"$1\r\na\r\n", &*queued(1), b"*1\r\n+OK\r\n$1\r\nc\r\n"].concat();
    for byte in replies {
        master.send(&[byte]);
    }
    let lines = [(); 9].map(|()| client.line());
    let expected = ["$1", "a", "+OK", "+QUEUED", "*1", "+OK", "$1", "c", "+PONG"];
    assert_eq!(lines, expected);
}

#[test]
fn a_transaction_that_writes_is_in_doubt_when_its_connection_is_lost() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    queue(&mut client, &[get("j"), set("k", "1")]);
    client.send(EXEC);
    receive(&mut master, &[&["GET", "j"], &["SET", "k", "1"]]);
    master.send(&queued(2));
    drop(master);
    let answer = client.line();
    assert!(
        answer.starts_with("-INDOUBT write to shard \"a\""),
        "{answer}"
    );
    scene.master().says_nothing();
}

#[test]
fn a_transaction_that_only_reads_is_sent_again() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    queue(&mut client, &[get("j"), get("k")]);
    client.send(EXEC);
    receive(&mut master, &[&["GET", "j"], &["GET", "k"]]);
    master.send(&queued(1));
    drop(master);
    let mut master = scene.master();
    receive(&mut master, &[&["GET", "j"], &["GET", "k"]]);
    master.send(&[&*queued(2), b"*2\r\n$-1\r\n$-1\r\n"].concat());
    let lines = [(); 3].map(|()| client.line());
    assert_eq!(lines, ["*2", "$-1", "$-1"]);
}

#[test]
fn a_transaction_that_is_refused_is_held_and_sent_to_the_next_master() {
    let at_exec =
        b"-EXECABORT Transaction discarded because of: READONLY You can't write against a \
                    read only replica.\r\n";
    for refusal in [
        [b"+OK\r\n+QUEUED\r\n", READONLY, PREVIOUS].concat(),
        [&*queued(2), at_exec].concat(),
        [b"+OK\r\n", READONLY, READONLY, PREVIOUS].concat(),
    ] {
        let scene = Scene::new(|_| {});
        let mut master = scene.master();
        let mut client = scene.client();
        queue(&mut client, &[get("j"), set("k", "1")]);
        client.send(&[EXEC, &get("k")].concat());
        receive(&mut master, &[&["GET", "j"], &["SET", "k", "1"]]);
        assert_eq!(master.request(), ["GET", "k"]);
        master.send(&[&*refusal, b"$3\r\nold\r\n"].concat());
        let mut master = scene.asked_master("master");
        receive(&mut master, &[&["GET", "j"], &["SET", "k", "1"]]);
        assert_eq!(master.request(), ["GET", "k"], "not an older value");
        master.send(&[&*queued(2), b"*2\r\n$-1\r\n+OK\r\n$1\r\n1\r\n"].concat());
        let lines = [(); 5].map(|()| client.line());
        assert_eq!(lines, ["*2", "$-1", "+OK", "$1", "1"]);
    }
}

#[test]
fn an_error_that_only_the_server_sees_is_told_at_exec() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    queue(&mut client, &[set("k", "1")]);
    client.send(EXEC);
    receive(&mut master, &[&["SET", "k", "1"]]);
    master.send(&[b"+OK\r\n-OOM command not allowed\r\n", PREVIOUS].concat());
    let told = "-EXECABORT Transaction discarded because of: OOM command not allowed";
    assert_eq!(client.line(), told);
    client.send(&get("k"));
    assert_eq!(master.request(), ["GET", "k"]);
}

#[test]
fn a_transaction_cut_off_by_the_end_of_its_lease_is_held_and_sent_whole() {
    let scene = Scene::new(|_| {});
    let mut first = scene.master();
    let mut client = scene.client();
    let value = huge();
    queue(&mut client, &[set("j", "1"), set("k", &value)]);
    client.send(EXEC);
    first.begins();
    scene.lease(0);
    let (_, ended) = first.drain();
    assert!(ended, "half a transaction is never executed");
    let mut second = scene.master();
    second.says_nothing();
    scene.lease(NO_LEASE_NEEDED);
    receive(&mut second, &[&["SET", "j", "1"], &["SET", "k", &value]]);
    second.send(&[&*queued(2), b"*2\r\n+OK\r\n+OK\r\n"].concat());
    assert_eq!(client.line(), "*2");
}

#[test]
fn exec_waits_for_the_lease_if_something_is_written() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    scene.lease(0);
    let mut reader = scene.client();
    let mut writer = scene.client();
    queue(&mut writer, &[set("k", "1")]);
    writer.send(EXEC);
    scene.wait("EXEC is held", |shard| shard.totals.held_requests == 1);
    queue(&mut reader, &[get("k")]);
    reader.send(EXEC);
    receive(&mut master, &[&["GET", "k"]]);
    master.send(&[&*queued(1), b"*1\r\n$-1\r\n"].concat());
    assert_eq!(reader.line(), "*1");
    scene.lease(NO_LEASE_NEEDED);
    receive(&mut master, &[&["SET", "k", "1"]]);
    master.send(&[&*queued(1), b"*1\r\n+OK\r\n"].concat());
    assert_eq!(writer.line(), "*1");
}

#[test]
fn a_transaction_is_held_no_longer_than_the_bound_and_then_forgotten() {
    let scene = Scene::new(|config| config.hold_timeout = Duration::from_millis(200));
    let mut master = scene.master();
    scene.lease(0);
    let mut client = scene.client();
    queue(&mut client, &[set("k", "1")]);
    client.send(&[EXEC, EXEC].concat());
    let answer = client.line();
    assert!(answer.starts_with("-MASTERDOWN shard \"a\""), "{answer}");
    assert_eq!(client.line(), "-ERR EXEC without MULTI");
    scene.lease(NO_LEASE_NEEDED);
    master.says_nothing();
}

#[test]
fn what_a_held_transaction_takes_counts_as_held() {
    let scene = Scene::new(|config| config.hold_bytes = 1 << 20);
    let mut master = scene.master();
    scene.lease(0);
    let mut client = scene.client();
    queue(&mut client, &[set("k", &"x".repeat(2 << 20))]);
    client.send(EXEC);
    let answer = client.line();
    assert!(answer.starts_with("-MASTERDOWN shard \"a\""), "{answer}");
    scene.lease(NO_LEASE_NEEDED);
    master.says_nothing();
}

#[test]
fn a_client_that_leaves_has_nothing_of_its_transaction_sent() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut queues = scene.client();
    queue(&mut queues, &[set("k", "1")]);
    drop(queues);
    scene.lease(0);
    let mut waits = scene.client();
    queue(&mut waits, &[set("k", "2")]);
    waits.send(EXEC);
    scene.wait("EXEC is held", |shard| shard.totals.held_requests == 1);
    drop(waits);
    scene.wait("nothing is held", |shard| shard.totals.held_requests == 0);
    scene.lease(NO_LEASE_NEEDED);
    master.says_nothing();
}

#[test]
fn a_key_of_another_shard_is_refused_and_the_transaction_with_it() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let keys = keys_apart();
    let mut client = scene.client();
    queue(&mut client, &[set(&keys[0], "1")]);
    client.send(&set(&keys[1], "1"));
    let answer = client.line();
    assert!(
        answer.starts_with("-CROSSSLOT keys of a transaction"),
        "{answer}"
    );
    client.send(&set(&keys[0], "2"));
    assert_eq!(client.line(), "+QUEUED");
    client.send(EXEC);
    assert_eq!((client.line() + "\r\n").as_bytes(), PREVIOUS);
    queue(&mut client, &[set(&keys[1], "1")]);
    let both = format!(
        "*3\r\n$3\r\nDEL\r\n$8\r\n{}\r\n$8\r\n{}\r\n",
        keys[0], keys[1]
    );
    client.send(&[both.as_bytes(), EXEC].concat());
    let answer = client.line();
    assert!(answer.starts_with("-CROSSSLOT keys of 'del'"), "{answer}");
    assert_eq!((client.line() + "\r\n").as_bytes(), PREVIOUS);
    assert!(scene.masters.iter().all(|master| {
        let wire = master.connection_within(A_WHILE);
        wire.is_none_or(|mut wire| wire.drain().0 == 0)
    }));
}

#[test]
fn what_has_no_key_goes_with_the_transaction_or_to_the_first_shard() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let mut client = scene.client();
    queue(&mut client, &[PING.to_vec()]);
    client.send(EXEC);
    let mut master = scene.masters[0].connection();
    receive(&mut master, &[&["PING"]]);
    master.send(&[&*queued(1), b"*1\r\n+PONG\r\n"].concat());
    assert_eq!([client.line(), client.line()], ["*1", "+PONG"]);
    client.send(&[MULTI, EXEC].concat());
    assert_eq!([client.line(), client.line()], ["+OK", "*0"]);
}

#[test]
fn the_database_and_protocol_are_those_of_the_client() {
    let scene = Scene::new(|_| {});
    let _first = scene.master();
    let mut client = scene.client();
    client.send(b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
    assert_eq!(client.line(), "+OK");
    queue(&mut client, &[set("k", "1")]);
    client.send(EXEC);
    let mut master = scene.master();
    assert_eq!(master.request(), ["SELECT", "3"]);
    master.send(b"+OK\r\n");
    receive(&mut master, &[&["SET", "k", "1"]]);
    master.send(&[&*queued(1), b"*1\r\n+OK\r\n"].concat());
    assert_eq!([client.line(), client.line()], ["*1", "+OK"]);
    queue(&mut client, &[]);
    client.send(b"*2\r\n$6\r\nSELECT\r\n$1\r\n4\r\n");
    let answer = client.line();
    assert!(
        answer.starts_with("-ERR 'select' is not supported"),
        "{answer}"
    );
    client.send(EXEC);
    assert_eq!((client.line() + "\r\n").as_bytes(), PREVIOUS);
}

#[test]
fn a_ring_that_changes_before_exec_is_asked_again() {
    let scene = Scene::new(|_| {});
    let mut old = scene.master();
    let keys = keys_apart();
    let [mut whole, mut cut] = [scene.client(), scene.client()];
    queue(&mut whole, &[set(&keys[1], "1")]);
    queue(&mut cut, &[set(&keys[0], "1"), set(&keys[1], "1")]);
    let other = Master::new();
    let routes: [RouteSpec; 2] = [scene.masters[0].route(), other.route()];
    let config = pool("p", scene.listen, &["a", "b"]);
    scene
        .plane
        .reload(vec![config], 2, &routes)
        .expect("a reload");
    scene.acked(2);
    whole.send(EXEC);
    cut.send(EXEC);
    let mut new = other.connection();
    receive(&mut new, &[&["SET", &keys[1], "1"]]);
    new.send(&[&*queued(1), b"*1\r\n+OK\r\n"].concat());
    assert_eq!([whole.line(), whole.line()], ["*1", "+OK"]);
    let answer = cut.line();
    assert!(
        answer.starts_with("-EXECABORT Transaction discarded because of: the ring"),
        "{answer}"
    );
    old.says_nothing();
}

#[test]
fn keys_of_two_shards_cannot_be_watched_together() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let _shared = scene
        .masters
        .iter()
        .map(Master::connection)
        .collect::<Vec<_>>();
    let [here, there] = keys_apart();
    let mut client = scene.client();
    let watch = |key: &str| format!("*2\r\n$5\r\nWATCH\r\n$8\r\n{key}\r\n").into_bytes();
    client.send(&watch(&here));
    let mut pinned = scene.asked_master("master");
    assert_eq!(pinned.request(), ["WATCH", &here]);
    pinned.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
    client.send(&watch(&there));
    let answer = client.line();
    assert!(
        answer.starts_with("-CROSSSLOT a client can watch"),
        "{answer}"
    );
    queue(&mut client, &[]);
    client.send(&set(&there, "1"));
    let answer = client.line();
    assert!(
        answer.starts_with("-CROSSSLOT keys of a transaction"),
        "{answer}"
    );
    client.send(EXEC);
    assert!(client.line().starts_with("-EXECABORT"));
    assert_eq!(pinned.request(), ["UNWATCH"]);
    let both = format!("*3\r\n$5\r\nWATCH\r\n$8\r\n{here}\r\n$8\r\n{there}\r\n");
    client.send(both.as_bytes());
    let answer = client.line();
    assert!(answer.starts_with("-CROSSSLOT keys of 'watch'"), "{answer}");
}
