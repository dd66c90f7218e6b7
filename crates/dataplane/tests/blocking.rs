//! A request that waits at the server: alone on its connection, and again where it was not executed.

mod scene;

use std::time::{Duration, Instant};

use dataplane::pool::PoolConfig;
use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};
use scene::{A_WHILE, Master, Scene, Wire, fixed, get, keys_apart, pool, queue, queued, receive};

const UNBLOCKED: &[u8] =
    b"-UNBLOCKED force unblock from blocking operation, instance state changed \
(master -> replica?)\r\n";
const ITEM: &[u8] = b"*2\r\n$1\r\nq\r\n$1\r\n1\r\n";

fn request(words: &[&str]) -> Vec<u8> {
    let arguments = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    let count = format!("*{}\r\n", words.len());
    (count + &arguments.collect::<String>()).into_bytes()
}

fn blpop(timeout: &str) -> Vec<u8> {
    request(&["BLPOP", "q", timeout])
}

/// A client that waits for an item of `q`, and the connection it does that on.
fn waiting(scene: &Scene, timeout: &str) -> (Wire, Wire) {
    let mut client = scene.client();
    client.send(&blpop(timeout));
    let mut own = scene.asked_master("master");
    let words = own.request();
    assert_eq!(words[..2], ["BLPOP", "q"]);
    // It has waited for the connection, and some of its time is over.
    let given: f64 = timeout.parse().expect("a number");
    assert!((given - 1.0..=given).contains(&left(&words)), "{words:?}");
    (client, own)
}

/// Gives the shard another master.
fn move_to(scene: &Scene, next: &Master) {
    let routes: [RouteSpec; 1] = [next.route()];
    scene.plane.apply(2, &routes).expect("a newer snapshot");
}

/// The seconds that a request still waits.
fn left(words: &[String]) -> f64 {
    let last = words.last().expect("words");
    last.parse().expect("a number")
}

#[test]
fn it_waits_alone_and_nothing_overtakes() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let mut client = scene.client();
    client.send(&[get("k"), blpop("0"), get("j")].concat());
    assert_eq!(shared.request(), ["GET", "k"]);
    assert!(scene.masters[0].is_left_alone(), "GET is not answered");
    shared.send(b"$-1\r\n");
    let mut own = scene.asked_master("master");
    assert_eq!(own.request(), ["BLPOP", "q", "0"]);
    let mut other = scene.client();
    other.send(&get("o"));
    assert_eq!(shared.request(), ["GET", "o"], "others do not wait");
    shared.send(b"$-1\r\n");
    shared.says_nothing();
    own.send(ITEM);
    assert_eq!(shared.request(), ["GET", "j"]);
    shared.send(b"$-1\r\n");
    assert_eq!(
        [(); 6].map(|()| client.line()),
        ["$-1", "*2", "$1", "q", "$1", "1"]
    );
    assert_eq!(client.line(), "$-1");
}

#[test]
fn its_connection_is_the_next_ones() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut own) = waiting(&scene, "1");
    own.send(b"*-1\r\n");
    assert_eq!(client.line(), "*-1");
    for timeout in ["2", "3"] {
        let mut next = scene.client();
        next.send(&blpop(timeout));
        assert_eq!(own.request(), ["BLPOP", "q", timeout]);
        own.send(b"*-1\r\n");
        assert_eq!(next.line(), "*-1");
    }
    client.send(&request(&["XREAD", "BLOCK", "9", "STREAMS", "s", "$"]));
    assert_eq!(own.request(), ["XREAD", "BLOCK", "9", "STREAMS", "s", "$"]);
}

#[test]
fn a_client_that_leaves_takes_its_connection_with_it() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (client, mut own) = waiting(&scene, "0");
    drop(client);
    assert!(own.request().is_empty(), "closed");
    let (mut client, mut own) = waiting(&scene, "0");
    client.send(&get("k"));
    drop(client);
    assert!(own.request().is_empty(), "closed, though more was sent");
}

#[test]
fn a_client_that_leaves_later_takes_nobodys_connection() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let (mut client, mut own) = waiting(&scene, "0");
    own.send(ITEM);
    assert_eq!([(); 5].map(|()| client.line())[0], "*2");
    client.send(&get("k"));
    assert_eq!(shared.request(), ["GET", "k"]);
    let mut next = scene.client();
    next.send(&blpop("0"));
    assert_eq!(own.request(), ["BLPOP", "q", "0"]);
    drop(client);
    own.says_nothing();
    own.send(ITEM);
    assert_eq!(next.line(), "*2");
}

#[test]
fn it_waits_for_a_lease_but_not_if_it_only_reads() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    scene.lease(0);
    let mut client = scene.client();
    client.send(&request(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]));
    let mut own = scene.asked_master("master");
    assert_eq!(own.request()[0], "XREAD");
    own.send(b"*-1\r\n");
    assert_eq!(client.line(), "*-1");
    client.send(&blpop("9"));
    scene.wait("it is held", |shard| shard.totals.held_requests == 1);
    own.says_nothing();
    scene.lease(NO_LEASE_NEEDED);
    let words = own.request();
    assert_eq!(words[..2], ["BLPOP", "q"]);
    assert!((8.0..9.0).contains(&left(&words)), "{words:?}");
}

#[test]
fn one_that_the_server_sends_away_waits_again_with_the_rest_of_its_time() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut own) = waiting(&scene, "30");
    std::thread::park_timeout(A_WHILE);
    own.send(UNBLOCKED);
    let mut own = scene.asked_master("slave");
    assert!(own.request().is_empty(), "closed");
    let next = Master::new();
    move_to(&scene, &next);
    let _shared = next.connection();
    let mut own = next.connection();
    own.answers_role("master");
    let words = own.request();
    assert_eq!(words[..2], ["BLPOP", "q"]);
    assert!((20.0..29.9).contains(&left(&words)), "{words:?}");
    own.send(ITEM);
    assert_eq!(client.line(), "*2");
}

#[test]
fn what_was_sent_behind_it_still_comes_behind_it() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let mut client = scene.client();
    client.send(&[blpop("0"), get("k")].concat());
    let mut own = scene.asked_master("master");
    assert_eq!(own.request(), ["BLPOP", "q", "0"]);
    own.send(b"-LOADING Redis is loading the dataset in memory\r\n");
    let mut own = scene.asked_master("master");
    assert_eq!(own.request()[..2], ["BLPOP", "q"]);
    shared.says_nothing();
    own.send(b"*-1\r\n");
    assert_eq!(shared.request(), ["GET", "k"]);
    shared.send(b"$-1\r\n");
    assert_eq!([client.line(), client.line()], ["*-1", "$-1"]);
}

#[test]
fn one_that_pops_is_in_doubt_when_its_connection_is_lost_and_one_that_reads_is_sent_again() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, own) = waiting(&scene, "0");
    drop(own);
    let answer = client.line();
    assert!(
        answer.starts_with("-INDOUBT write to shard \"a\""),
        "{answer}"
    );
    client.send(&request(&["XREAD", "BLOCK", "0", "STREAMS", "s", "5-1"]));
    let mut own = scene.asked_master("master");
    assert_eq!(own.request()[0], "XREAD");
    drop(own);
    let mut own = scene.asked_master("master");
    assert_eq!(own.request()[0], "XREAD");
    let next = Master::new();
    move_to(&scene, &next);
    assert!(own.request().is_empty(), "closed");
    let _shared = next.connection();
    let mut own = next.connection();
    own.answers_role("master");
    assert_eq!(
        own.request(),
        ["XREAD", "BLOCK", "0", "STREAMS", "s", "5-1"]
    );
    own.send(b"*-1\r\n");
    assert_eq!(client.line(), "*-1");
}

#[test]
fn its_time_passes_also_while_it_is_held() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    scene.lease(0);
    let started = Instant::now();
    let mut client = scene.client();
    client.send(&blpop("0.2"));
    assert_eq!(client.line(), "*-1");
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert!(scene.masters[0].is_left_alone());
    client.send(b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*2\r\n$4\r\nECHO\r\n$3\r\nend\r\n");
    while client.line() != "end" {}
    client.send(&request(&["BLMPOP", "0.1", "1", "q", "LEFT"]));
    assert_eq!(client.line(), "_");
    let _shared = scene.masters[0].connection_within(A_WHILE);
    scene.lease(NO_LEASE_NEEDED);
}

#[test]
fn one_without_end_is_held_as_long_as_any() {
    let scene = Scene::new(|config| config.hold_timeout = Duration::from_millis(200));
    let _shared = scene.master();
    scene.lease(0);
    let mut client = scene.client();
    client.send(&blpop("0"));
    let answer = client.line();
    assert!(answer.starts_with("-MASTERDOWN shard \"a\""), "{answer}");
    scene.lease(NO_LEASE_NEEDED);
    client.send(&blpop("0"));
    let mut own = scene.asked_master("master");
    assert_eq!(
        own.request(),
        ["BLPOP", "q", "0"],
        "a request like the first"
    );
}

#[test]
fn the_pools_timeout_is_not_its_own() {
    let timeout = |config: &mut PoolConfig| config.timeout = Duration::from_millis(100);
    let scene = Scene::new(timeout);
    let mut shared = scene.master();
    let (mut client, mut own) = waiting(&scene, "0");
    let mut other = scene.client();
    other.send(&get("k"));
    assert_eq!(shared.request(), ["GET", "k"]);
    assert!(other.line().contains("did not answer within 100 ms"));
    own.send(ITEM);
    assert_eq!(client.line(), "*2");
}

#[test]
fn keys_of_two_shards_are_refused() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let [one, other] = keys_apart();
    let mut client = scene.client();
    client.send(&request(&["BRPOP", &one, &other, "1"]));
    let answer = client.line();
    assert!(answer.starts_with("-CROSSSLOT keys of 'brpop'"), "{answer}");
    client.send(&request(&[
        "XREAD", "BLOCK", "1", "STREAMS", &one, &other, "$", "$",
    ]));
    let answer = client.line();
    assert!(answer.starts_with("-CROSSSLOT keys of 'xread'"), "{answer}");
}

#[test]
fn in_a_transaction_it_waits_for_nothing() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let mut client = scene.client();
    queue(&mut client, &[blpop("0")]);
    client.send(scene::EXEC);
    receive(&mut shared, &[&["BLPOP", "q", "0"]]);
    shared.send(&[&*queued(1), b"*1\r\n*-1\r\n"].concat());
    assert_eq!([client.line(), client.line()], ["*1", "*-1"]);
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn a_ring_that_changes_while_it_is_held_takes_it_along() {
    let [_, key] = keys_apart();
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    scene.lease(0);
    let mut client = scene.client();
    client.send(&request(&["BLPOP", &key, "0"]));
    scene.wait("it is held", |shard| shard.totals.held_requests == 1);
    let other = Master::new();
    let routes: [RouteSpec; 2] = [scene.masters[0].route(), other.route()];
    let config = pool("p", scene.listen, &["a", "b"]);
    let reloaded = scene.plane.reload(vec![config], 2, &routes);
    reloaded.expect("a reload");
    let _shared = other.connection();
    let mut own = other.connection();
    own.answers_role("master");
    assert_eq!(own.request(), ["BLPOP", key.as_str(), "0"]);
}

#[test]
fn a_fixed_server_that_is_lost_is_told_as_it_is() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&request(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]));
    let mut own = scene.master();
    assert_eq!(own.request()[0], "XREAD", "it is asked nothing");
    drop(own);
    assert_eq!(client.line(), "-ERR Connection reset by peer");
    client.send(&blpop("0"));
    let mut own = scene.master();
    assert_eq!(own.request(), ["BLPOP", "q", "0"]);
    own.send(UNBLOCKED);
    assert!(
        client.line().starts_with("-UNBLOCKED"),
        "its errors are passed on"
    );
}

#[test]
fn one_that_reads_from_now_on_is_not_sent_again_for_another_now() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let mut client = scene.client();
    for end in [Some(UNBLOCKED), None] {
        client.send(&request(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]));
        let mut own = scene.asked_master("master");
        assert_eq!(own.request()[0], "XREAD");
        if let Some(end) = end {
            own.send(end);
        }
        drop(own);
        let answer = client.line();
        assert!(
            answer.starts_with("-ERR shard \"a\" was lost while the request waited"),
            "{answer}"
        );
    }
}

#[test]
fn one_that_is_sent_away_again_and_again_is_held_as_long_as_any() {
    let scene = Scene::new(|config| config.hold_timeout = Duration::from_millis(300));
    let _shared = scene.master();
    let (mut client, mut own) = waiting(&scene, "0");
    client
        .to
        .set_read_timeout(Some(Duration::from_millis(1)))
        .expect("a timeout");
    let started = Instant::now();
    loop {
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "it is tried for ever"
        );
        own.send(b"-NOREPLICAS Not enough good replicas to write.\r\n");
        match scene.masters[0].connection_within(Duration::from_millis(500)) {
            Some(next) => own = next,
            None => break,
        }
        own.answers_role("master");
        if own.request().is_empty() {
            break;
        }
    }
    client
        .to
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    let answer = client.line();
    assert!(answer.starts_with("-MASTERDOWN shard \"a\""), "{answer}");
}

#[test]
fn a_fixed_server_pops_nothing_for_a_client_that_left_meanwhile() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&[get("k"), blpop("0")].concat());
    let mut shared = scene.master();
    assert_eq!(shared.request(), ["GET", "k"]);
    drop(client);
    shared.send(b"$-1\r\n");
    if let Some(mut own) = scene.masters[0].connection_within(A_WHILE) {
        assert!(own.request().is_empty(), "closed, and nothing was sent");
    }
}
