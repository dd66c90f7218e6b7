//! What a client is told, and what a master is sent, when either of them fails at a chosen moment.

mod scene;

use std::io::Read;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::snapshot::NO_LEASE_NEEDED;
use scene::{A_WHILE, SOON, Scene, Wire, get, huge, set};

#[test]
fn a_route_opens_one_connection() {
    let scene = Scene::new(|_| {});
    let _first = scene.master();
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn a_write_cut_off_by_the_end_of_its_lease_is_held_and_sent_whole() {
    let scene = Scene::new(|_| {});
    let mut first = scene.master();
    let mut writer = scene.client();
    let mut reader = scene.client();
    writer.send(&set("k", &huge()));
    first.begins();
    scene.lease(0);
    let (_, ended) = first.drain();
    assert!(ended, "a connection with half a write is of no use");
    let mut second = scene.master();
    reader.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    assert_eq!(second.request(), ["GET", "k"], "reads go on");
    second.send(b"$-1\r\n");
    assert_eq!(reader.line(), "$-1");
    scene.lease(NO_LEASE_NEEDED);
    assert_eq!(second.request(), ["SET", "k", &huge()]);
    second.send(b"+OK\r\n");
    assert_eq!(writer.line(), "+OK");
}

#[test]
fn a_write_cut_off_behind_unanswered_requests_goes_on_with_the_lease() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut writer = scene.client();
    writer.send(&set("j", "1"));
    assert_eq!(master.request(), ["SET", "j", "1"]);
    writer.send(&set("k", &huge()));
    master.begins();
    scene.lease(0);
    let (read, ended) = master.drain();
    assert!(read < 24 << 20 && !ended, "no lease, no more bytes");
    scene.lease(NO_LEASE_NEEDED);
    let (rest, ended) = master.drain();
    assert!(!ended);
    assert_eq!(read + rest, set("k", &huge()).len());
    master.send(b"+OK\r\n+OK\r\n");
    assert_eq!((writer.line(), writer.line()), ("+OK".into(), "+OK".into()));
}

#[test]
fn a_write_that_is_refused_again_and_again_is_held_no_longer_than_the_bound() {
    let bound = Duration::from_millis(400);
    let scene = Scene::new(|config| config.hold_timeout = bound);
    let mut master = scene.master();
    let mut writer = scene.client();
    let Scene { plane, masters, .. } = scene;
    let started = Instant::now();
    writer.send(&set("k", "1"));
    let refusing = thread::spawn(move || {
        while started.elapsed() < SOON {
            while let [name, ..] = master.request().as_slice() {
                master.send(match name.as_str() {
                    "PING" => b"+PONG\r\n",
                    "ROLE" => b"*1\r\n$6\r\nmaster\r\n",
                    _ => b"-NOREPLICAS Not enough good replicas to write.\r\n",
                });
            }
            let Some(next) = masters[0].connection_within(A_WHILE * 4) else {
                break;
            };
            master = next;
        }
    });
    let answer = writer.line();
    assert!(answer.starts_with("-MASTERDOWN shard \"a\""), "{answer}");
    assert!(started.elapsed() < bound * 3, "{:?}", started.elapsed());
    drop(writer);
    assert!(plane.stop(SOON), "the workers end");
    refusing.join().expect("a master that refuses");
}

#[test]
fn a_client_that_leaves_while_its_requests_are_held_has_none_of_them_sent() {
    let scene = Scene::new(|config| config.max_inflight = 2);
    let mut master = scene.master();
    let mut other = scene.client();
    let mut leaver = scene.client();
    other.send(b"*1\r\n$4\r\nPING\r\n");
    assert_eq!(other.line(), "+PONG");
    leaver.send(&[set("k", "1"), set("k", "2"), set("k", "3")].concat());
    assert_eq!(master.request(), ["SET", "k", "1"]);
    assert_eq!(master.request(), ["SET", "k", "2"]);
    master.send(b"-READONLY not a master\r\n-READONLY not a master\r\n");
    drop(scene.asked_master("slave"));
    drop(leaver);
    let two_clients_less_one = || scene.plane.stats()[0].totals.clients == 1;
    let started = Instant::now();
    while !two_clients_less_one() && started.elapsed() < A_WHILE {
        drop(scene.asked_master("slave"));
    }
    let mut master = scene.asked_master("master");
    other.send(&set("marker", "1"));
    assert_eq!(master.request(), ["SET", "marker", "1"]);
}

#[test]
fn each_hold_of_a_busy_client_has_its_full_time() {
    let bound = Duration::from_millis(400);
    let scene = Scene::new(|config| config.hold_timeout = bound);
    let mut master = scene.master();
    scene.lease(0);
    let mut writer = scene.client();
    let (whole, half) = (set("k", "1"), set("k", "2"));
    writer.send(&[&whole, &half[..10]].concat());
    scene.wait("one is held", |shard| shard.totals.held_requests == 1);
    scene.lease(NO_LEASE_NEEDED);
    assert_eq!(master.request(), ["SET", "k", "1"]);
    master.send(b"+OK\r\n");
    assert_eq!(writer.line(), "+OK");
    while bound > scene_quiet(&mut writer) {}
    scene.lease(0);
    writer.send(&half[10..]);
    writer.says_nothing();
    scene.lease(NO_LEASE_NEEDED);
    assert_eq!(master.request(), ["SET", "k", "2"]);
}

/// Lets more than a hold's time pass, in which nothing is said.
fn scene_quiet(wire: &mut Wire) -> Duration {
    let started = Instant::now();
    for _ in 0..4 {
        wire.says_nothing();
    }
    started.elapsed()
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_replies() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    client.send(&[&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..], &set("k", "1")].concat());
    client.to.shutdown(Shutdown::Write).expect("half a close");
    assert_eq!(master.request(), ["GET", "k"]);
    assert_eq!(master.request(), ["SET", "k", "1"]);
    client.says_nothing();
    master.send(b"$1\r\nx\r\n+OK\r\n");
    let mut all = String::new();
    client.from.read_to_string(&mut all).expect("the end");
    assert_eq!(all, "$1\r\nx\r\n+OK\r\n");
}

#[test]
fn what_nobody_waits_for_takes_no_space_from_what_is_held() {
    let scene = Scene::new(|config| {
        config.timeout = Duration::from_millis(100);
        config.hold_bytes = 40 << 20;
    });
    let mut master = scene.master();
    let mut writer = scene.client();
    writer.send(&[set("k", "1"), set("k", &huge()), set("k", &huge())].concat());
    assert_eq!(master.request(), ["SET", "k", "1"]);
    for _ in 0..2 {
        assert!(writer.line().starts_with("-INDOUBT"));
    }
    let unsent = "-ERR shard \"a\" did not take the request within 100 ms";
    assert_eq!(writer.line(), unsent);
    master.send(b"-READONLY not a master\r\n");
    scene.wait("refused", |shard| shard.totals.connection_errors == 1);
    let _master = scene.asked_master("master");
    scene.wait("serving again", |shard| shard.totals.serving == 1);
    scene.lease(0);
    writer.send(&set("k", &huge()));
    writer.says_nothing();
}

#[test]
fn all_that_a_held_client_has_sent_counts_as_held() {
    let scene = Scene::new(|_| {});
    scene.lease(0);
    let mut writer = scene.client();
    let pipeline = set("k", "1").repeat(1000);
    writer.send(&pipeline);
    scene.wait("all is counted", |shard| {
        shard.totals.held_bytes == pipeline.len() as u64
    });
    scene.lease(NO_LEASE_NEEDED);
    scene.wait("none is", |shard| shard.totals.held_bytes == 0);
}

#[test]
fn a_cluster_behind_it_is_told_and_not_followed() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    client.send(&get("k"));
    assert_eq!(master.request(), ["GET", "k"]);
    master.send(b"-MOVED 7629 10.0.0.1:6379\r\n");
    assert_eq!(
        client.line(),
        "-ERR shard \"a\" is a node of a Redis Cluster, which Shoal does not serve; it said: MOVED 7629 10.0.0.1:6379"
    );
}
