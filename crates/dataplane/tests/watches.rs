//! A client that watches keys: EXEC is executed on the connection that watches, or is answered null.

mod scene;

use std::time::Duration;

use dataplane::pool::Servers;
use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};
use scene::{A_WHILE, EXEC, Master, Scene, Wire, get, huge, pool, queue, queued, receive, set};

const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";
const DISCARD: &[u8] = b"*1\r\n$7\r\nDISCARD\r\n";

fn watch(key: &str) -> Vec<u8> {
    format!("*2\r\n$5\r\nWATCH\r\n${}\r\n{key}\r\n", key.len()).into_bytes()
}

/// A client that watches `k`, and the connection that does it.
fn watching(scene: &Scene) -> (Wire, Wire) {
    let mut client = scene.client();
    client.send(&watch("k"));
    let mut pinned = scene.asked_master("master");
    assert_eq!(pinned.request(), ["WATCH", "k"]);
    pinned.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
    (client, pinned)
}

#[test]
fn what_follows_a_watch_waits_for_it_and_then_goes_with_everyones() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let mut client = scene.client();
    client.send(&[watch("k"), get("k"), watch("j")].concat());
    let mut pinned = scene.asked_master("master");
    assert_eq!(pinned.request(), ["WATCH", "k"]);
    shared.says_nothing();
    pinned.send(b"+OK\r\n");
    assert_eq!(shared.request(), ["GET", "k"]);
    pinned.says_nothing();
    shared.send(b"$1\r\n1\r\n");
    assert_eq!(pinned.request(), ["WATCH", "j"]);
    pinned.send(b"+OK\r\n");
    assert_eq!([(); 4].map(|()| client.line()), ["+OK", "$1", "1", "+OK"]);
    queue(&mut client, &[set("k", "2")]);
    client.send(&[EXEC, &get("k")].concat());
    receive(&mut pinned, &[&["SET", "k", "2"]]);
    shared.says_nothing();
    pinned.send(&[&*queued(1), b"*1\r\n+OK\r\n"].concat());
    assert_eq!(shared.request(), ["GET", "k"]);
    assert_eq!([client.line(), client.line()], ["*1", "+OK"]);
}

#[test]
fn a_key_that_changed_is_the_servers_to_tell() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut pinned) = watching(&scene);
    queue(&mut client, &[]);
    client.send(EXEC);
    receive(&mut pinned, &[]);
    pinned.send(b"+OK\r\n*-1\r\n");
    assert_eq!(client.line(), "*-1", "also where nothing is queued");
}

#[test]
fn a_connection_lost_after_watch_makes_exec_null() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let (mut client, pinned) = watching(&scene);
    drop(pinned);
    client.send(&get("k"));
    assert_eq!(shared.request(), ["GET", "k"]);
    shared.send(b"$-1\r\n");
    assert_eq!(client.line(), "$-1");
    client.send(&watch("j"));
    assert_eq!(client.line(), "+OK", "it will be null all the same");
    queue(&mut client, &[set("k", "1")]);
    client.send(EXEC);
    assert_eq!(client.line(), "*-1");
    shared.says_nothing();
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn null_is_said_in_the_clients_protocol() {
    let scene = Scene::new(|_| {});
    let mut client = scene.client();
    client.send(b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*2\r\n$4\r\nECHO\r\n$3\r\nend\r\n");
    while client.line() != "end" {}
    client.send(&watch("k"));
    let _first = scene.master();
    let mut pinned = scene.master();
    assert_eq!(pinned.request(), ["HELLO", "3"]);
    pinned.send(b"%0\r\n");
    pinned.answers_role("master");
    assert_eq!(pinned.request(), ["WATCH", "k"]);
    pinned.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
    drop(pinned);
    queue(&mut client, &[set("k", "1")]);
    client.send(EXEC);
    assert_eq!(client.line(), "_");
}

#[test]
fn a_new_master_makes_exec_null() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut pinned) = watching(&scene);
    queue(&mut client, &[set("k", "1")]);
    let next = Master::new();
    let routes: [RouteSpec; 1] = [next.route()];
    scene.plane.apply(2, &routes).expect("a newer snapshot");
    assert!(pinned.request().is_empty(), "closed");
    let mut shared = next.connection();
    client.send(&[EXEC, &get("k")].concat());
    assert_eq!(client.line(), "*-1");
    assert_eq!(
        shared.request(),
        ["GET", "k"],
        "and nothing of the transaction"
    );
}

#[test]
fn a_ring_that_changes_makes_exec_null() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let (mut client, mut pinned) = watching(&scene);
    let other = Master::new();
    let routes: [RouteSpec; 2] = [scene.masters[0].route(), other.route()];
    let config = pool("p", scene.listen, &["a", "b"]);
    scene
        .plane
        .reload(vec![config], 2, &routes)
        .expect("a reload");
    scene.acked(2);
    queue(&mut client, &[]);
    client.send(EXEC);
    assert_eq!(client.line(), "*-1");
    assert_eq!(pinned.request(), ["UNWATCH"]);
    shared.says_nothing();
}

#[test]
fn an_exec_that_was_sent_and_lost_is_in_doubt_if_it_writes() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut pinned) = watching(&scene);
    queue(&mut client, &[set("k", "1")]);
    client.send(EXEC);
    receive(&mut pinned, &[&["SET", "k", "1"]]);
    drop(pinned);
    let answer = client.line();
    assert!(
        answer.starts_with("-INDOUBT write to shard \"a\""),
        "{answer}"
    );
    let (mut client, mut pinned) = watching(&scene);
    queue(&mut client, &[get("k")]);
    client.send(EXEC);
    receive(&mut pinned, &[&["GET", "k"]]);
    drop(pinned);
    assert_eq!(client.line(), "*-1");
}

#[test]
fn an_exec_that_is_refused_is_null() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let (mut client, mut pinned) = watching(&scene);
    queue(&mut client, &[set("k", "1")]);
    client.send(EXEC);
    receive(&mut pinned, &[&["SET", "k", "1"]]);
    pinned.send(
        b"+OK\r\n-READONLY You can't write against a read only replica.\r\n\
          -EXECABORT Transaction discarded because of previous errors.\r\n",
    );
    assert_eq!(client.line(), "*-1");
    assert!(pinned.request().is_empty(), "closed");
    shared.says_nothing();
}

#[test]
fn exec_waits_for_the_lease_and_goes_where_it_was_watched() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut pinned) = watching(&scene);
    queue(&mut client, &[set("k", "1")]);
    scene.lease(0);
    client.send(EXEC);
    scene.wait("EXEC is held", |shard| shard.totals.held_requests == 1);
    pinned.says_nothing();
    scene.lease(NO_LEASE_NEEDED);
    receive(&mut pinned, &[&["SET", "k", "1"]]);
    pinned.send(&[&*queued(1), b"*1\r\n+OK\r\n"].concat());
    assert_eq!(client.line(), "*1");
}

#[test]
fn an_exec_cut_off_by_the_end_of_its_lease_is_null() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let (mut client, mut pinned) = watching(&scene);
    queue(&mut client, &[set("j", "1"), set("k", &huge())]);
    client.send(EXEC);
    pinned.begins();
    scene.lease(0);
    let (_, ended) = pinned.drain();
    assert!(ended, "half a transaction is never executed");
    assert_eq!(client.line(), "*-1");
    scene.lease(NO_LEASE_NEEDED);
    shared.says_nothing();
}

#[test]
fn a_connection_that_is_done_with_is_the_next_clients() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut first, mut pinned) = watching(&scene);
    queue(&mut first, &[get("k")]);
    first.send(EXEC);
    receive(&mut pinned, &[&["GET", "k"]]);
    pinned.send(&[&*queued(1), b"*1\r\n$-1\r\n"].concat());
    assert_eq!([first.line(), first.line()], ["*1", "$-1"]);
    let ends: [&[u8]; 3] = [UNWATCH, &[scene::MULTI, DISCARD].concat(), b""];
    for end in ends {
        let mut next = scene.client();
        next.send(&watch("k"));
        assert_eq!(pinned.request(), ["WATCH", "k"]);
        pinned.send(b"+OK\r\n");
        assert_eq!(next.line(), "+OK");
        next.send(end);
        if end.is_empty() {
            drop(next);
        } else {
            assert_eq!(next.line(), "+OK");
        }
        assert_eq!(pinned.request(), ["UNWATCH"]);
        pinned.send(b"+OK\r\n");
        scene.wait("it is answered", |shard| shard.totals.unanswered == 0);
    }
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn a_client_that_watches_twice_needs_a_connection_of_its_own() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (_one, _pinned) = watching(&scene);
    let (_other, _its) = watching(&scene);
}

#[test]
fn a_replica_is_not_watched() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let mut client = scene.client();
    client.send(&watch("k"));
    let mut replica = scene.asked_master("slave");
    assert!(replica.request().is_empty(), "closed");
    let mut pinned = scene.asked_master("master");
    assert_eq!(pinned.request(), ["WATCH", "k"]);
    pinned.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
}

#[test]
fn a_watch_waits_no_longer_than_the_bound() {
    let scene = Scene::new(|config| config.hold_timeout = Duration::from_millis(200));
    let _shared = scene.master();
    let mut client = scene.client();
    client.send(&watch("k"));
    let mut silent = scene.master();
    assert_eq!(silent.request(), ["PING"]);
    let answer = client.line();
    assert!(answer.starts_with("-MASTERDOWN shard \"a\""), "{answer}");
    assert_eq!(silent.request(), ["ROLE"]);
    assert!(silent.request().is_empty(), "closed");
}

#[test]
fn a_server_that_is_fixed_and_away_is_told_at_once() {
    let scene = Scene::new(|config| {
        config.servers = Servers::Fixed {
            preconnect: false,
            eject: None,
        };
    });
    let mut client = scene.client();
    client.send(&watch("k"));
    let mut pinned = scene.master();
    assert_eq!(pinned.request(), ["WATCH", "k"], "it is asked nothing");
    pinned.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
    let gone = RouteSpec {
        endpoint: Some(scene::free_port().into()),
        lease_until: NO_LEASE_NEEDED,
    };
    scene.plane.apply(2, &[gone]).expect("a newer snapshot");
    scene.acked(2);
    client.send(&[UNWATCH, &watch("k")].concat());
    assert_eq!(client.line(), "+OK");
    assert_eq!(client.line(), "-ERR Connection refused");
}

#[test]
fn the_database_stays_between_watch_and_exec() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut pinned) = watching(&scene);
    client.send(b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n");
    assert!(client.line().starts_with("-ERR SELECT and HELLO between"));
    client.send(b"*1\r\n$5\r\nRESET\r\n");
    assert_eq!(client.line(), "+RESET");
    assert_eq!(pinned.request(), ["UNWATCH"]);
    assert!(scene.masters[0].connection_within(A_WHILE).is_none());
}

#[test]
fn a_watch_that_is_not_answered_in_time_makes_exec_null() {
    let scene = Scene::new(|config| config.timeout = Duration::from_millis(150));
    let (_shared, mut client) = (scene.master(), scene.client());
    client.send(&watch("k"));
    let mut pinned = scene.asked_master("master");
    assert_eq!(pinned.request(), ["WATCH", "k"]);
    let answer = client.line();
    assert!(answer.contains("did not answer within 150 ms"), "{answer}");
    queue(&mut client, &[set("k", "1")]);
    client.send(EXEC);
    assert_eq!(client.line(), "*-1");
    assert!(pinned.request().is_empty(), "the connection is given up");
}
