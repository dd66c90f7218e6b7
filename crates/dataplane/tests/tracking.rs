//! Clients that track: no value that changed is left with them, whichever of the reply and the change comes first, and
//! whatever is lost.

mod scene;

use std::io::Read;
use std::time::Duration;

use scene::{EXEC, MULTI, Master, Scene, Wire, get, key_of};

fn request(words: &[&str]) -> Vec<u8> {
    let mut frame = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        frame.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    frame
}

trait Tracks {
    /// Is told that these keys have changed.
    fn invalidated(&mut self, keys: &[&str]);
    /// Is told that everything has.
    fn flushed(&mut self);
    /// Tells that these keys have changed.
    fn tells(&mut self, keys: &[&str]);
    /// Is asked to tell of every change, and will.
    fn arms(&mut self);
    /// Is asked for a key, and answers.
    fn gives(&mut self, key: &str, value: &str);
    fn lines(&mut self, count: usize) -> Vec<String>;
}

impl Tracks for Wire {
    fn invalidated(&mut self, keys: &[&str]) {
        let mut expected = vec![">2".to_owned(), "$10".to_owned(), "invalidate".to_owned()];
        expected.push(format!("*{}", keys.len()));
        for key in keys {
            expected.extend([format!("${}", key.len()), (*key).to_owned()]);
        }
        assert_eq!(self.lines(expected.len()), expected);
    }

    fn flushed(&mut self) {
        assert_eq!(self.lines(4), [">2", "$10", "invalidate", "_"]);
    }

    fn tells(&mut self, keys: &[&str]) {
        let mut push = b">2\r\n$10\r\ninvalidate\r\n".to_vec();
        push.extend_from_slice(&request(keys));
        self.send(&push);
    }

    fn arms(&mut self) {
        assert_eq!(self.request(), ["HELLO", "3"]);
        self.send(b"%0\r\n");
        self.answers_role("master");
        assert_eq!(self.request(), ["CLIENT", "TRACKING", "ON", "BCAST"]);
        self.send(b"+OK\r\n");
    }

    fn gives(&mut self, key: &str, value: &str) {
        assert_eq!(self.request(), ["GET", key]);
        self.send(format!("+{value}\r\n").as_bytes());
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }
}

/// Speaks RESP3; nothing of it is unanswered.
fn resp3(scene: &Scene) -> Wire {
    let mut client = scene.client();
    client.send(&[request(&["HELLO", "3"]), request(&["ECHO", "end"])].concat());
    while client.line() != "end" {}
    client
}

/// A client that tracks as these options say, the shared connection of its protocol, the witness, and the connection
/// of the other protocol.
fn tracking(scene: &Scene, options: &[&str]) -> (Wire, Wire, Wire, Wire) {
    let resp2 = scene.master();
    let mut client = resp3(scene);
    client.send(&get("first"));
    let mut shared = scene.master();
    assert_eq!(shared.request(), ["HELLO", "3"]);
    shared.send(b"%0\r\n");
    shared.gives("first", "x");
    assert_eq!(client.line(), "+x");
    client.send(&request(&[&["CLIENT", "TRACKING", "ON"], options].concat()));
    let mut witness = scene.master();
    witness.arms();
    assert_eq!(client.line(), "+OK");
    (client, shared, witness, resp2)
}

fn moves_to(scene: &Scene, next: &Master, epoch: u64) {
    let applied = scene.plane.apply(epoch, &[next.route()]);
    applied.expect("a newer snapshot");
}

#[test]
fn what_was_read_and_changes_is_told_once() {
    let scene = Scene::new(|_| {});
    let (mut client, mut shared, mut witness, _resp2) = tracking(&scene, &[]);
    client.send(&get("k"));
    shared.gives("k", "v");
    assert_eq!(client.line(), "+v");
    witness.tells(&["other", "k"]);
    client.invalidated(&["k"]);
    witness.tells(&["k"]);
    client.says_nothing();
}

#[test]
fn a_change_that_overtakes_the_reply_is_told_again_behind_it() {
    let scene = Scene::new(|_| {});
    let (mut client, mut shared, mut witness, _resp2) = tracking(&scene, &[]);
    client.send(&[get("a"), get("k"), get("b")].concat());
    for key in ["a", "k", "b"] {
        assert_eq!(shared.request(), ["GET", key]);
    }
    witness.tells(&["k"]);
    client.invalidated(&["k"]);
    shared.send(b"+a\r\n+old\r\n");
    assert_eq!(client.lines(2), ["+a", "+old"]);
    client.says_nothing();
    shared.send(b"+b\r\n");
    assert_eq!(client.line(), "+b");
    client.invalidated(&["k"]);
    client.says_nothing();
}

#[test]
fn a_flush_that_overtakes_the_reply_is_told_again_behind_it() {
    let scene = Scene::new(|_| {});
    let (mut client, mut shared, mut witness, _resp2) = tracking(&scene, &["BCAST", "PREFIX", "k"]);
    client.send(&get("k"));
    assert_eq!(shared.request(), ["GET", "k"]);
    witness.send(b">2\r\n$10\r\ninvalidate\r\n_\r\n");
    client.flushed();
    shared.send(b"+old\r\n");
    assert_eq!(client.line(), "+old");
    client.flushed();
    witness.tells(&["other", "k1", "k2"]);
    client.invalidated(&["k1", "k2"]);
    client.says_nothing();
}

#[test]
fn too_many_changes_behind_one_reply_become_a_flush() {
    let scene = Scene::new(|_| {});
    let (mut client, mut shared, mut witness, _resp2) = tracking(&scene, &["BCAST"]);
    client.send(&get("k"));
    assert_eq!(shared.request(), ["GET", "k"]);
    let long = "x".repeat(40_000);
    for _ in 0..2 {
        witness.tells(&[&long]);
        client.invalidated(&[&long]);
    }
    shared.send(b"+v\r\n");
    assert_eq!(client.line(), "+v");
    client.flushed();
    client.says_nothing();
}

#[test]
fn what_a_transaction_reads_is_noted_when_it_is_sent() {
    let scene = Scene::new(|_| {});
    let (mut client, mut shared, mut witness, _resp2) = tracking(&scene, &[]);
    client.send(&[MULTI, &get("k")].concat());
    assert_eq!(client.lines(2), ["+OK", "+QUEUED"]);
    witness.tells(&["k"]);
    client.says_nothing();
    client.send(EXEC);
    scene::receive(&mut shared, &[&["GET", "k"]]);
    witness.tells(&["k"]);
    client.invalidated(&["k"]);
    shared.send(&[&scene::queued(1)[..], b"*1\r\n+old\r\n"].concat());
    assert_eq!(client.lines(2), ["*1", "+old"]);
    client.invalidated(&["k"]);
}

#[test]
fn a_lost_witness_flushes_and_so_does_its_return_and_nothing_read_between_is_kept() {
    let scene = Scene::new(|_| {});
    let (mut client, mut shared, witness, _resp2) = tracking(&scene, &[]);
    client.send(&get("k"));
    shared.gives("k", "old");
    assert_eq!(client.line(), "+old");
    drop(witness);
    client.flushed();
    let mut next = scene.master();
    client.send(&[get("k"), get("l")].concat());
    shared.gives("k", "k1");
    shared.gives("l", "l1");
    assert_eq!(client.line(), "+k1");
    client.invalidated(&["k"]);
    assert_eq!(client.line(), "+l1");
    client.invalidated(&["l"]);
    next.arms();
    client.flushed();
    client.send(&get("k"));
    shared.gives("k", "k2");
    assert_eq!(client.line(), "+k2");
    next.tells(&["k"]);
    client.invalidated(&["k"]);
}

#[test]
fn another_master_flushes_at_once_and_when_it_tells() {
    let scene = Scene::new(|_| {});
    let (mut client, _shared, mut witness, _resp2) = tracking(&scene, &[]);
    let next = Master::new();
    moves_to(&scene, &next, 2);
    client.flushed();
    assert!(witness.request().is_empty(), "closed");
    let lanes = [next.connection(), next.connection(), next.connection()];
    for mut lane in lanes {
        let asked = lane.connects_as();
        if asked == Lane::Witness {
            lane.answers_role("master");
            assert_eq!(lane.request(), ["CLIENT", "TRACKING", "ON", "BCAST"]);
            client.says_nothing();
            lane.send(b"+OK\r\n");
            client.flushed();
            return;
        }
    }
    panic!("no witness");
}

#[derive(PartialEq, Eq)]
enum Lane {
    Shared,
    Witness,
}

trait Greets {
    fn connects_as(&mut self) -> Lane;
}

impl Greets for Wire {
    /// What a new connection is for: who shares one asks nothing, or its protocol only.
    fn connects_as(&mut self) -> Lane {
        self.to
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("a timeout");
        let asks = std::io::BufRead::fill_buf(&mut self.from).is_ok_and(|it| !it.is_empty());
        self.to
            .set_read_timeout(Some(scene::SOON))
            .expect("a timeout");
        if !asks {
            return Lane::Shared;
        }
        assert_eq!(self.request(), ["HELLO", "3"]);
        self.send(b"%0\r\n");
        let more = !self.from.buffer().is_empty();
        if more { Lane::Witness } else { Lane::Shared }
    }
}

#[test]
fn tracking_begins_once_every_shard_tells() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let mut client = resp3(&scene);
    let _shared = [scene.master(), scene.masters[1].connection()];
    client.send(&request(&["CLIENT", "TRACKING", "ON", "BCAST"]));
    let mut witnesses = [scene.master(), scene.masters[1].connection()];
    witnesses[0].arms();
    client.says_nothing();
    witnesses[1].arms();
    assert_eq!(client.line(), "+OK");
    let on_b = key_of(&["a", "b"], 1);
    witnesses[1].tells(&[&on_b]);
    client.invalidated(&[&on_b]);
}

#[test]
fn a_server_that_cannot_tell_is_an_error_and_its_connection_closes() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let mut client = resp3(&scene);
    client.send(&request(&["CLIENT", "TRACKING", "ON"]));
    let mut witness = scene.master();
    assert_eq!(witness.request(), ["HELLO", "3"]);
    witness.send(b"%0\r\n");
    witness.answers_role("master");
    assert_eq!(witness.request(), ["CLIENT", "TRACKING", "ON", "BCAST"]);
    witness.send(b"-NOPERM no\r\n");
    assert_eq!(client.line(), "-NOPERM no");
    assert!(witness.request().is_empty(), "closed");
    client.send(&request(&["CLIENT", "GETREDIR"]));
    assert_eq!(client.line(), ":-1");
}

#[test]
fn a_shard_that_does_not_tell_in_time_is_an_error() {
    let scene = Scene::new(|config| config.hold_timeout = Duration::from_millis(200));
    let _shared = scene.master();
    let mut client = resp3(&scene);
    client.send(&request(&["CLIENT", "TRACKING", "ON"]));
    let _witness = scene.master();
    let line = client.line();
    assert!(line.starts_with("-MASTERDOWN shard \"a\""), "{line}");
}

#[test]
fn the_last_client_that_tracks_takes_the_witness_with_it() {
    let scene = Scene::new(|_| {});
    let (mut client, _shared, mut witness, _resp2) = tracking(&scene, &[]);
    client.send(&request(&["CLIENT", "TRACKING", "OFF"]));
    assert_eq!(client.line(), "+OK");
    assert!(witness.request().is_empty(), "closed");
}

#[test]
fn a_witness_that_says_nothing_is_asked_and_given_up() {
    let scene = Scene::new(|_| {});
    let (mut client, _shared, mut witness, _resp2) = tracking(&scene, &[]);
    assert_eq!(witness.request(), ["PING"]);
    witness.send(b"+PONG\r\n");
    assert_eq!(witness.request(), ["PING"]);
    client.flushed();
    assert!(witness.request().is_empty(), "closed");
}

#[test]
fn a_long_reply_is_whole_before_a_change_is_told() {
    let scene = Scene::new(|_| {});
    let (mut client, mut shared, mut witness, _resp2) = tracking(&scene, &["BCAST"]);
    client.send(&get("big"));
    assert_eq!(shared.request(), ["GET", "big"]);
    let value = "v".repeat(200_000);
    shared.send(format!("${}\r\n{}", value.len(), &value[..100_000]).as_bytes());
    witness.tells(&["k"]);
    client.invalidated(&["k"]);
    shared.send(format!("{}\r\n", &value[100_000..]).as_bytes());
    assert_eq!(client.lines(2), ["$200000", &value]);
    client.invalidated(&["k"]);
}

/// The other client's long reply has begun before anybody wanted it told.
#[test]
fn who_is_in_the_midst_of_a_reply_is_told_behind_it() {
    let scene = Scene::new(|_| {});
    let (mut client, mut shared, mut witness, _resp2) = tracking(&scene, &[]);
    let mut other = resp3(&scene);
    other.send(&request(&["CLIENT", "ID"]));
    let id = other.line()[1..].to_owned();
    other.send(&get("big"));
    assert_eq!(shared.request(), ["GET", "big"]);
    let value = "v".repeat(200_000);
    shared.send(format!("${}\r\n{}", value.len(), &value[..100_000]).as_bytes());
    assert_eq!(other.line(), "$200000");
    let mut half = vec![0; 100_000];
    other.from.read_exact(&mut half).expect("half of it");
    client.send(&request(&[
        "CLIENT", "TRACKING", "ON", "BCAST", "REDIRECT", &id,
    ]));
    assert!(client.line().starts_with("-ERR You can't switch BCAST"));
    client.send(&request(&["CLIENT", "TRACKING", "ON", "REDIRECT", &id]));
    assert_eq!(client.line(), "+OK");
    client.send(&get("k"));
    assert_eq!(shared.request(), ["GET", "k"]);
    witness.tells(&["k"]);
    other.says_nothing();
    shared.send(format!("{}\r\n+v\r\n", &value[100_000..]).as_bytes());
    assert_eq!(other.line(), value[100_000..]);
    assert_eq!(client.line(), "+v");
    other.flushed();
    other.invalidated(&["k"]);
}

/// What it is not sent becomes one flush, once it has read what there is.
#[test]
fn a_client_that_does_not_read_costs_no_memory_and_is_flushed() {
    let scene = Scene::new(|_| {});
    let (mut client, _shared, mut witness, _resp2) = tracking(&scene, &["BCAST"]);
    let key = "k".repeat(1 << 20);
    for _ in 0..64 {
        witness.tells(&[&key]);
    }
    // All of them have been heard, and none was read.
    assert_eq!(witness.request(), ["PING"]);
    witness.send(b"+PONG\r\n");
    let mut told = 0;
    while client.lines(4)[3] != "_" {
        assert_eq!(client.lines(2)[1], key);
        told += 1;
    }
    assert!(told < 64);
    witness.tells(&["k"]);
    client.invalidated(&["k"]);
}
