//! Subscribers: a connection of their own to each shard they need, confirmations that are true, messages that are
//! never cut, and nothing seen of a master that is replaced.

mod scene;

use std::io::Write;
use std::time::{Duration, Instant};

use dataplane::eject::EjectRule;
use dataplane::endpoint::Endpoint;
use dataplane::pool::Servers;
use dataplane::ring::Distribution;
use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};
use scene::{
    EXEC, MULTI, Master, SOON, Scene, Wire, get, huge, key_of, keys_apart, plane_over, pool, set,
};

const HELLO_3: &[u8] = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*2\r\n$4\r\nECHO\r\n$3\r\nend\r\n";

fn request(words: &[&str]) -> Vec<u8> {
    let mut frame = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        frame.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    frame
}

/// A push of these words, the last a number if it is one.
fn push(mark: char, words: &[&str]) -> String {
    let mut frame = format!("{mark}{}\r\n", words.len());
    for word in words {
        if !word.starts_with(':') {
            let head = format!("${}\r\n", word.len());
            frame += &head;
        }
        frame += word;
        frame += "\r\n";
    }
    frame
}

trait Subscribes {
    /// The very bytes of a push come next.
    fn hears(&mut self, mark: char, words: &[&str]);
    /// Is told to subscribe to this, and confirms it.
    fn confirms(&mut self, word: &str, name: &str);
    fn publishes(&mut self, mark: char, channel: &str, text: &str);
}

impl Subscribes for Wire {
    fn hears(&mut self, mark: char, words: &[&str]) {
        let expected = push(mark, words);
        let lines = expected.lines().count();
        let heard: Vec<String> = (0..lines).map(|_| self.line()).collect();
        assert_eq!(heard, expected.lines().collect::<Vec<_>>());
    }

    fn confirms(&mut self, word: &str, name: &str) {
        assert_eq!(self.request(), [word, name]);
        self.send(push('*', &[word, name, ":1"]).as_bytes());
    }

    fn publishes(&mut self, mark: char, channel: &str, text: &str) {
        self.send(push(mark, &["message", channel, text]).as_bytes());
    }
}

/// A RESP2 client subscribed to `c`, and its ear.
fn subscriber(scene: &Scene) -> (Wire, Wire) {
    let mut client = scene.client();
    client.send(&request(&["SUBSCRIBE", "c"]));
    let mut ear = scene.asked_master("master");
    ear.confirms("subscribe", "c");
    client.hears('*', &["subscribe", "c", ":1"]);
    (client, ear)
}

/// A RESP3 client subscribed to `c`, its ear, and the connection of its other requests.
fn resp3_subscriber(scene: &Scene) -> (Wire, Wire, Wire) {
    let mut client = scene.client();
    client.send(&[HELLO_3, &get("k")].concat());
    while client.line() != "end" {}
    let _resp2 = scene.master();
    let mut shared = scene.master();
    assert_eq!(shared.request(), ["HELLO", "3"]);
    shared.send(b"%0\r\n");
    assert_eq!(shared.request(), ["GET", "k"]);
    shared.send(b"_\r\n");
    assert_eq!(client.line(), "_");
    client.send(&request(&["SUBSCRIBE", "c"]));
    let mut ear = scene.master();
    assert_eq!(ear.request(), ["HELLO", "3"]);
    ear.send(b"%0\r\n");
    ear.answers_role("master");
    assert_eq!(ear.request(), ["subscribe", "c"]);
    ear.send(push('>', &["subscribe", "c", ":1"]).as_bytes());
    client.hears('>', &["subscribe", "c", ":1"]);
    (client, ear, shared)
}

fn moves_to(scene: &Scene, next: &Master, epoch: u64) {
    scene
        .plane
        .apply(epoch, &[next.route()])
        .expect("a newer snapshot");
}

#[test]
fn messages_are_passed_on_as_they_are_and_requests_are_refused_as_by_redis() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut ear) = subscriber(&scene);
    ear.publishes('*', "c", "hello");
    client.hears('*', &["message", "c", "hello"]);
    client.send(&[get("k"), request(&["PING"]), request(&["PING", "x"])].concat());
    assert_eq!(
        client.line(),
        "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
         context"
    );
    client.hears('*', &["pong", ""]);
    client.hears('*', &["pong", "x"]);
    client.send(MULTI);
    assert!(client.line().starts_with("-ERR Can't execute 'multi'"));
    client.send(&request(&["CONFIG", "GET", "x"]));
    assert!(client.line().starts_with("-ERR Can't execute 'config|get'"));
    client.send(&request(&["GET"]));
    assert_eq!(
        client.line(),
        "-ERR wrong number of arguments for 'get' command"
    );
}

#[test]
fn a_subscription_is_confirmed_once_all_its_shards_have() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let _shared = [scene.master(), scene.masters[1].connection()];
    let [on_a, on_b] = keys_apart();
    let mut client = scene.client();
    client.send(&request(&["SUBSCRIBE", &on_b, &on_a, &on_b]));
    let mut ears = [scene.asked_master("master"), scene.masters[1].connection()];
    ears[1].answers_role("master");
    ears[0].confirms("subscribe", &on_a);
    ears[0].publishes('*', &on_a, "early");
    client.says_nothing();
    ears[1].confirms("subscribe", &on_b);
    client.hears('*', &["subscribe", &on_b, ":1"]);
    client.hears('*', &["subscribe", &on_a, ":2"]);
    client.hears('*', &["subscribe", &on_b, ":2"]);
    client.hears('*', &["message", &on_a, "early"]);
}

#[test]
fn patterns_and_keyspace_notifications_are_subscribed_on_every_shard() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let _shared = [scene.master(), scene.masters[1].connection()];
    let mut client = scene.client();
    client.send(&request(&["PSUBSCRIBE", "*"]));
    let mut ears = [scene.master(), scene.masters[1].connection()];
    for ear in &mut ears {
        ear.answers_role("master");
        ear.confirms("psubscribe", "*");
    }
    client.hears('*', &["psubscribe", "*", ":1"]);
    client.send(&request(&["SUBSCRIBE", "__keyevent@0__:set"]));
    for ear in &mut ears {
        ear.confirms("subscribe", "__keyevent@0__:set");
    }
    client.hears('*', &["subscribe", "__keyevent@0__:set", ":2"]);
    for (ear, key) in ears.iter_mut().zip(["x", "y"]) {
        ear.publishes('*', "__keyevent@0__:set", key);
        client.hears('*', &["message", "__keyevent@0__:set", key]);
        ear.send(push('*', &["pmessage", "*", "__keyevent@0__:set", key]).as_bytes());
        client.hears('*', &["pmessage", "*", "__keyevent@0__:set", key]);
    }
    let on_b = key_of(&["a", "b"], 1);
    client.send(&request(&["SSUBSCRIBE", &on_b]));
    ears[1].confirms("ssubscribe", &on_b);
    client.hears('*', &["ssubscribe", &on_b, ":1"]);
    ears[1].send(push('*', &["smessage", &on_b, "z"]).as_bytes());
    client.hears('*', &["smessage", &on_b, "z"]);
}

#[test]
fn what_is_not_subscribed_to_any_more_is_not_heard_and_its_connection_closes() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let (mut client, mut ear) = subscriber(&scene);
    client.send(&request(&["SUBSCRIBE", "d"]));
    ear.confirms("subscribe", "d");
    client.hears('*', &["subscribe", "d", ":2"]);
    client.send(&request(&["UNSUBSCRIBE", "c", "nothing"]));
    client.hears('*', &["unsubscribe", "c", ":1"]);
    client.hears('*', &["unsubscribe", "nothing", ":1"]);
    ear.publishes('*', "c", "late");
    assert_eq!(ear.request(), ["unsubscribe", "c"]);
    ear.send(push('*', &["unsubscribe", "c", ":1"]).as_bytes());
    ear.publishes('*', "d", "x");
    client.hears('*', &["message", "d", "x"]);
    client.send(&request(&["PUNSUBSCRIBE"]));
    assert_eq!(
        [(); 4].map(|()| client.line()),
        ["*3", "$12", "punsubscribe", "$-1"]
    );
    assert_eq!(client.line(), ":1");
    client.send(&request(&["UNSUBSCRIBE"]));
    client.hears('*', &["unsubscribe", "d", ":0"]);
    assert!(ear.request().is_empty(), "closed");
    client.send(&get("k"));
    assert_eq!(shared.request(), ["GET", "k"]);
    shared.send(b"$-1\r\n");
    assert_eq!(client.line(), "$-1");
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn who_was_never_subscribed_is_answered_and_needs_no_connection() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let mut client = scene.client();
    client.send(&[request(&["UNSUBSCRIBE", "a"]), request(&["SUNSUBSCRIBE"])].concat());
    client.hears('*', &["unsubscribe", "a", ":0"]);
    assert_eq!(
        [(); 5].map(|()| client.line()),
        ["*3", "$12", "sunsubscribe", "$-1", ":0"]
    );
    client.send(&request(&["PING"]));
    assert_eq!(client.line(), "+PONG");
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn pushes_come_between_replies_and_never_into_one() {
    let scene = Scene::new(|_| {});
    let (mut client, mut ear, mut shared) = resp3_subscriber(&scene);
    client.send(&get("big"));
    assert_eq!(shared.request(), ["GET", "big"]);
    let value = "v".repeat(200_000);
    shared.send(format!("${}\r\n{}", value.len(), &value[..100_000]).as_bytes());
    // A whole message is through before the rest of the reply.
    ear.publishes('>', "c", "between");
    client.hears('>', &["message", "c", "between"]);
    shared.send(format!("{}\r\n", &value[100_000..]).as_bytes());
    assert_eq!(client.line(), "$200000");
    assert_eq!(client.line(), value);
    ear.publishes('>', "c", "after");
    client.hears('>', &["message", "c", "after"]);
}

#[test]
fn a_long_reply_that_has_begun_is_over_before_the_client_subscribes() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let mut client = scene.client();
    client.send(&[get("big"), request(&["SUBSCRIBE", "c"])].concat());
    assert_eq!(shared.request(), ["GET", "big"]);
    let value = "v".repeat(200_000);
    shared.send(format!("${}\r\n{}", value.len(), &value[..100_000]).as_bytes());
    assert_eq!(client.line(), "$200000");
    assert!(scene.masters[0].is_left_alone());
    shared.send(format!("{}\r\n", &value[100_000..]).as_bytes());
    assert_eq!(client.line(), value);
    let mut ear = scene.asked_master("master");
    ear.confirms("subscribe", "c");
    client.hears('*', &["subscribe", "c", ":1"]);
}

#[test]
fn another_protocol_changes_how_messages_begin() {
    let scene = Scene::new(|_| {});
    let (mut client, mut ear, _shared) = resp3_subscriber(&scene);
    client.send(&request(&["HELLO", "2"]));
    while client.line() != "*0" {}
    ear.publishes('>', "c", "x");
    client.hears('*', &["message", "c", "x"]);
    client.send(&request(&["HELLO", "3"]));
    assert!(client.line().starts_with("-ERR Can't execute 'hello'"));
}

#[test]
fn reset_quit_and_leaving_close_the_ear() {
    let scene = Scene::new(|_| {});
    let mut shared = scene.master();
    let ends: [&[u8]; 3] = [b"*1\r\n$5\r\nRESET\r\n", b"*1\r\n$4\r\nQUIT\r\n", b""];
    for end in ends {
        let (mut client, mut ear) = subscriber(&scene);
        client.send(end);
        if end.is_empty() {
            drop(client);
        } else {
            assert!(["+RESET", "+OK"].contains(&&*client.line()));
        }
        assert!(ear.request().is_empty(), "closed");
    }
    scene.wait("only the shared connection is left", |shard| {
        shard.totals.unanswered == 0
    });
    shared.says_nothing();
}

#[test]
fn a_lost_ear_is_opened_again_and_the_client_sees_nothing() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, ear) = subscriber(&scene);
    drop(ear);
    let mut ear = scene.asked_master("master");
    ear.confirms("subscribe", "c");
    ear.publishes('*', "c", "again");
    client.hears('*', &["message", "c", "again"]);
}

#[test]
fn a_new_master_is_subscribed_to_and_the_old_one_left() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut ear) = subscriber(&scene);
    let next = Master::new();
    moves_to(&scene, &next, 2);
    assert!(ear.request().is_empty(), "closed");
    let _shared = next.connection();
    let mut replica = next.connection();
    replica.answers_role("slave");
    assert!(
        replica.request().is_empty(),
        "a replica's messages may be others'"
    );
    let mut ear = next.connection();
    ear.answers_role("master");
    ear.confirms("subscribe", "c");
    ear.publishes('*', "c", "after the failover");
    client.hears('*', &["message", "c", "after the failover"]);
}

#[test]
fn an_ear_lost_before_it_confirmed_is_asked_again_and_then_the_client_is_told() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let mut client = scene.client();
    client.send(&request(&["SUBSCRIBE", "c", "d"]));
    let mut ear = scene.asked_master("master");
    ear.confirms("subscribe", "c");
    assert_eq!(ear.request(), ["subscribe", "d"]);
    drop(ear);
    let mut ear = scene.asked_master("master");
    ear.confirms("subscribe", "c");
    client.says_nothing();
    ear.confirms("subscribe", "d");
    client.hears('*', &["subscribe", "c", ":1"]);
    client.hears('*', &["subscribe", "d", ":2"]);
}

#[test]
fn a_subscription_waits_no_longer_than_the_bound_and_leaves_nothing() {
    let scene = Scene::new(|config| config.hold_timeout = Duration::from_millis(200));
    let mut shared = scene.master();
    let mut client = scene.client();
    client.send(&[request(&["SUBSCRIBE", "c"]), get("k")].concat());
    let mut silent = scene.master();
    assert_eq!(silent.request(), ["PING"]);
    let answer = client.line();
    assert!(
        answer.starts_with("-MASTERDOWN shard \"a\" has no master: held 0.2 s"),
        "{answer}"
    );
    assert_eq!(shared.request(), ["GET", "k"], "it is no subscriber");
    shared.send(b"$-1\r\n");
    assert_eq!(client.line(), "$-1");
    assert_eq!(silent.request(), ["ROLE"]);
    assert!(silent.request().is_empty(), "closed");
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn a_server_that_refuses_one_name_refuses_all_and_the_client_stays() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut ear) = subscriber(&scene);
    client.send(&request(&["SUBSCRIBE", "x", "y", "z"]));
    let no =
        "-NOPERM this user has no permissions to access one of the channels used as arguments\r\n";
    assert_eq!(ear.request(), ["subscribe", "x"]);
    ear.send(push('*', &["subscribe", "x", ":2"]).as_bytes());
    assert_eq!(ear.request(), ["subscribe", "y"]);
    assert_eq!(ear.request(), ["subscribe", "z"]);
    ear.send([no, no].concat().as_bytes());
    assert_eq!(client.line(), no.trim_end());
    for name in ["x", "y", "z"] {
        assert_eq!(ear.request(), ["unsubscribe", name]);
        ear.send(push('*', &["unsubscribe", name, ":1"]).as_bytes());
    }
    ear.publishes('*', "c", "still");
    client.hears('*', &["message", "c", "still"]);
    drop(ear);
    let mut ear = scene.asked_master("master");
    assert_eq!(ear.request(), ["subscribe", "c"]);
    ear.send(no.as_bytes());
    assert!(client.request().is_empty(), "closed: it would wait in vain");
}

#[test]
fn a_ring_that_changes_moves_subscriptions() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let [on_a, on_b] = keys_apart();
    let mut client = scene.client();
    client.send(&request(&["SUBSCRIBE", &on_a, &on_b]));
    let mut ear = scene.asked_master("master");
    ear.confirms("subscribe", &on_a);
    ear.confirms("subscribe", &on_b);
    client.hears('*', &["subscribe", &on_a, ":1"]);
    client.hears('*', &["subscribe", &on_b, ":2"]);
    client.send(&request(&["PSUBSCRIBE", "p*"]));
    ear.confirms("psubscribe", "p*");
    client.hears('*', &["psubscribe", "p*", ":3"]);
    let other = Master::new();
    let routes = [scene.masters[0].route(), other.route()];
    let two = pool("p", scene.listen, &["a", "b"]);
    scene.plane.reload(vec![two], 2, &routes).expect("a reload");
    assert_eq!(ear.request(), ["unsubscribe", &*on_b]);
    ear.send(push('*', &["unsubscribe", &on_b, ":2"]).as_bytes());
    let _shared_too = other.connection();
    let mut opened = other.connection();
    opened.answers_role("master");
    opened.confirms("subscribe", &on_b);
    opened.confirms("psubscribe", "p*");
    opened.publishes('*', &on_b, "from its new shard");
    client.hears('*', &["message", &on_b, "from its new shard"]);
    ear.publishes('*', &on_a, "from its old one");
    client.hears('*', &["message", &on_a, "from its old one"]);
    let one = pool("p", scene.listen, &["b"]);
    let route: [RouteSpec; 1] = [other.route()];
    scene.plane.reload(vec![one], 3, &route).expect("a reload");
    opened.confirms("subscribe", &on_a);
    assert!(ear.request().is_empty(), "closed");
    opened.publishes('*', &on_a, "moved as well");
    client.hears('*', &["message", &on_a, "moved as well"]);
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_nobody_else() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (slow, mut flood) = subscriber(&scene);
    let (mut other, mut its) = subscriber(&scene);
    let text = "x".repeat(1 << 20);
    let started = Instant::now();
    let message = push('*', &["message", "c", &text]);
    let mut sent = 0;
    while flood.to.write_all(message.as_bytes()).is_ok() {
        sent += 1;
        assert!(started.elapsed() < SOON * 4 && sent < 200, "never closed");
    }
    assert!(sent >= 32, "{sent} MiB are not too many");
    its.publishes('*', "c", "well");
    other.hears('*', &["message", "c", "well"]);
    drop(slow);
}

#[test]
fn a_publication_is_a_write_to_the_shard_of_its_channel() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let mut shared = [scene.master(), scene.masters[1].connection()];
    let [on_a, on_b] = keys_apart();
    let mut client = scene.client();
    client.send(
        &[
            request(&["PUBLISH", &on_b, "x"]),
            request(&["SPUBLISH", &on_a, "y"]),
        ]
        .concat(),
    );
    assert_eq!(shared[1].request(), ["PUBLISH", &*on_b, "x"]);
    assert_eq!(shared[0].request(), ["SPUBLISH", &*on_a, "y"]);
    shared[1].send(b":3\r\n");
    shared[0].send(b":0\r\n");
    assert_eq!([client.line(), client.line()], [":3", ":0"]);
    client.send(&[MULTI, &set(&on_a, "1"), &request(&["PUBLISH", &on_a, "x"])].concat());
    assert_eq!(
        [(); 3].map(|()| client.line()),
        ["+OK", "+QUEUED", "+QUEUED"]
    );
    client.send(&request(&["PUBLISH", &on_b, "x"]));
    assert!(
        client
            .line()
            .starts_with("-CROSSSLOT keys of a transaction")
    );
    client.send(EXEC);
    assert!(client.line().starts_with("-EXECABORT"));
    scene.lease(0);
    client.send(&request(&["PUBLISH", &on_a, "held"]));
    scene.wait("it is held", |shard| shard.totals.held_requests == 1);
    shared[0].says_nothing();
    scene.lease(NO_LEASE_NEEDED);
    assert_eq!(shared[0].request(), ["PUBLISH", &*on_a, "held"]);
    let [one, _two] = shared;
    drop(one);
    let answer = client.line();
    assert!(
        answer.starts_with("-INDOUBT write to shard \"a\""),
        "{answer}"
    );
}

#[test]
fn who_is_subscribed_to_what_is_asked_of_every_shard() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let mut shared = [scene.master(), scene.masters[1].connection()];
    let mut client = scene.client();
    client.send(
        &[
            request(&["PUBSUB", "CHANNELS"]),
            request(&["PUBSUB", "NUMSUB", "x", "y"]),
            request(&["PUBSUB", "NUMPAT"]),
        ]
        .concat(),
    );
    for (master, replies) in shared.iter_mut().zip([
        "*2\r\n$1\r\nx\r\n$1\r\ne\r\n*4\r\n$1\r\nx\r\n:2\r\n$1\r\ny\r\n:0\r\n:4\r\n",
        "*2\r\n$1\r\ny\r\n$1\r\ne\r\n*4\r\n$1\r\nx\r\n:0\r\n$1\r\ny\r\n:1\r\n:4\r\n",
    ]) {
        assert_eq!(master.request(), ["PUBSUB", "CHANNELS"]);
        assert_eq!(master.request(), ["PUBSUB", "NUMSUB", "x", "y"]);
        assert_eq!(master.request(), ["PUBSUB", "NUMPAT"]);
        master.send(replies.as_bytes());
    }
    let lines = [
        "*3", "$1", "x", "$1", "e", "$1", "y", "*4", "$1", "x", ":2", "$1", "y", ":1", ":4",
    ];
    assert_eq!([(); 15].map(|()| client.line()), lines);
}

#[test]
fn a_server_that_is_fixed_and_away_refuses_what_is_asked_and_is_tried_again_for_the_rest() {
    let scene = Scene::new(|config| {
        config.servers = Servers::Fixed {
            preconnect: false,
            eject: None,
        };
        config.timeout = Duration::from_millis(100);
    });
    let mut client = scene.client();
    client.send(&request(&["SUBSCRIBE", "c"]));
    let mut ear = scene.master();
    ear.confirms("subscribe", "c");
    client.hears('*', &["subscribe", "c", ":1"]);
    let gone = RouteSpec {
        endpoint: Some(scene::free_port().into()),
        lease_until: NO_LEASE_NEEDED,
    };
    scene.plane.apply(2, &[gone]).expect("a newer snapshot");
    assert!(ear.request().is_empty(), "closed");
    client.send(&request(&["SUBSCRIBE", "d"]));
    assert_eq!(client.line(), "-ERR Connection refused");
    let back = Master::new();
    moves_to(&scene, &back, 3);
    let mut ear = back.connection();
    ear.confirms("subscribe", "c");
    client.says_nothing(); // for longer than the pool's timeout
    ear.publishes('*', "c", "silence is no timeout");
    client.hears('*', &["message", "c", "silence is no timeout"]);
}

#[test]
fn inside_a_transaction_nothing_is_subscribed_to() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let mut client = scene.client();
    client.send(&[MULTI, &request(&["SUBSCRIBE", "c"]), EXEC].concat());
    assert_eq!(client.line(), "+OK");
    assert!(
        client
            .line()
            .starts_with("-ERR 'subscribe' is not supported by Shoal: inside MULTI")
    );
    assert!(client.line().starts_with("-EXECABORT"));
}

#[test]
fn a_message_longer_than_buffers_comes_whole() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut ear) = subscriber(&scene);
    let text = huge();
    let sender = std::thread::spawn(move || {
        ear.publishes('*', "c", &text);
        ear
    });
    client.hears('*', &["message", "c", &huge()]);
    drop(sender.join().expect("sent"));
}

#[test]
fn a_server_that_is_ejected_gives_its_channels_to_the_others() {
    let masters = [Master::new(), Master::new()];
    let endpoints = masters
        .each_ref()
        .map(|master| Some(master.endpoint.into()));
    let (plane, mut client) = plane_over(&endpoints, |config| {
        config.servers = Servers::Fixed {
            preconnect: false,
            eject: Some(EjectRule {
                failures: 1,
                retry: SOON * 10,
            }),
        };
    });
    let of_second = key_of(&["s0", "s1"], 1);
    client.send(&request(&["SUBSCRIBE", &of_second]));
    let mut ear = masters[1].connection();
    ear.confirms("subscribe", &of_second);
    client.hears('*', &["subscribe", &of_second, ":1"]);
    client.send(&request(&["PSUBSCRIBE", "*"]));
    let mut ears = [masters[0].connection(), ear];
    for ear in &mut ears {
        ear.confirms("psubscribe", "*");
    }
    client.hears('*', &["psubscribe", "*", ":2"]);
    let gone = [endpoints[0].clone(), Some(scene::free_port().into())];
    plane
        .apply(2, &scene::routes(&gone))
        .expect("a newer snapshot");
    let [mut left, mut lost] = ears;
    assert!(lost.request().is_empty(), "closed");
    left.confirms("subscribe", &of_second);
    left.publishes('*', &of_second, "from where it is now");
    client.hears('*', &["message", &of_second, "from where it is now"]);
}

#[test]
fn where_keys_have_no_owner_channels_are_subscribed_to_everywhere() {
    let masters = [Master::new(), Master::new()];
    let endpoints = masters
        .each_ref()
        .map(|master| Some(master.endpoint.into()));
    let (_plane, mut client) = plane_over(&endpoints, |config| {
        config.distribution = Distribution::Random;
    });
    client.send(&request(&["SSUBSCRIBE", "s"]));
    let mut ears = masters.each_ref().map(Master::connection);
    for ear in &mut ears {
        ear.confirms("ssubscribe", "s");
    }
    client.hears('*', &["ssubscribe", "s", ":1"]);
}

#[test]
fn what_is_ended_while_its_ear_is_away_is_not_subscribed_to_again() {
    let scene = Scene::new(|_| {});
    let _shared = scene.master();
    let (mut client, mut ear) = subscriber(&scene);
    client.send(&request(&["SUBSCRIBE", "d"]));
    ear.confirms("subscribe", "d");
    client.hears('*', &["subscribe", "d", ":2"]);
    drop(ear);
    let mut ear = scene.master();
    assert_eq!(ear.request(), ["PING"]);
    client.send(&request(&["UNSUBSCRIBE", "c"]));
    client.hears('*', &["unsubscribe", "c", ":1"]);
    assert_eq!(ear.request(), ["ROLE"]);
    ear.send(b"+PONG\r\n*1\r\n$6\r\nmaster\r\n");
    ear.confirms("subscribe", "d");
    ear.says_nothing();
}

#[test]
fn what_one_server_refuses_opens_no_connection_to_another() {
    let other = Master::new();
    let missing = "/nonexistent/socket".parse::<Endpoint>().expect("a path");
    let endpoints = [Some(missing), Some(other.endpoint.into())];
    let (_plane, mut client) = plane_over(&endpoints, |_| {});
    client.send(&request(&["PSUBSCRIBE", "*"]));
    assert_eq!(client.line(), "-ERR No such file or directory");
    assert!(other.is_left_alone());
    client.send(&request(&["PING"]));
    assert_eq!(client.line(), "+PONG");
}
