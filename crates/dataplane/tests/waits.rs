//! WAIT: how many replicas have what this client wrote, on every shard that it wrote to.

mod scene;

use scene::{Master, Scene, Wire, get, keys_apart, set};

const WAIT: &[u8] = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$3\r\n500\r\n";
const MARKED: &[u8] = b":0\r\n";

/// Two shards, a key of each, and the connections that everyone shares.
fn two() -> (Scene, [String; 2], [Wire; 2]) {
    let scene = Scene::over(&["a", "b"], |_| {});
    let shared = [0, 1].map(|shard: usize| scene.masters[shard].connection());
    (scene, keys_apart(), shared)
}

fn write(client: &mut Wire, shared: &mut Wire, key: &str) {
    client.send(&set(key, "1"));
    assert_eq!(shared.request(), ["SET", key, "1"]);
    shared.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
}

/// The connection on which this master is asked.
fn asked(master: &Master) -> Wire {
    let mut own = master.connection();
    own.answers_role("master");
    is_asked(&mut own);
    own
}

fn is_asked(own: &mut Wire) {
    assert_eq!(own.request(), ["SPUBLISH", "__shoal:wait", ""]);
    assert_eq!(own.request(), ["WAIT", "1", "500"]);
}

#[test]
fn only_the_shards_that_were_written_to_are_asked() {
    let (scene, [key, _], mut shared) = two();
    let mut client = scene.client();
    write(&mut client, &mut shared[0], &key);
    client.send(&[WAIT, &get(&key)].concat());
    let mut own = asked(&scene.masters[0]);
    shared[0].says_nothing();
    own.send(&[MARKED, b":1\r\n"].concat());
    assert_eq!(client.line(), ":1");
    assert_eq!(shared[0].request(), ["GET", key.as_str()]);
    shared[0].send(b"$1\r\n1\r\n");
    assert_eq!([client.line(), client.line()], ["$1", "1"]);
    client.send(WAIT);
    is_asked(&mut own);
    own.send(&[MARKED, b":1\r\n"].concat());
    assert_eq!(client.line(), ":1", "nothing was written since");
    assert!(scene.masters[1].is_left_alone());
}

#[test]
fn of_several_the_least_counts() {
    let (scene, keys, mut shared) = two();
    let mut client = scene.client();
    for (key, shared) in keys.iter().zip(&mut shared) {
        write(&mut client, shared, key);
    }
    client.send(WAIT);
    let [mut one, mut other] = [0, 1].map(|shard: usize| scene.masters[shard].connection());
    for own in [&mut one, &mut other] {
        own.answers_role("master");
    }
    is_asked(&mut one);
    is_asked(&mut other);
    one.send(&[MARKED, b":2\r\n"].concat());
    other.send(&[MARKED, b":0\r\n"].concat());
    assert_eq!(client.line(), ":0");
}

#[test]
fn who_wrote_nothing_is_told_of_all() {
    let (scene, _, _shared) = two();
    let mut client = scene.client();
    client.send(WAIT);
    for master in &scene.masters {
        let mut own = master.connection();
        own.answers_role("master");
        std::thread::spawn(move || {
            is_asked(&mut own);
            own.send(&[MARKED, b":1\r\n"].concat());
            own
        });
    }
    assert_eq!(client.line(), ":1");
}

#[test]
fn a_new_master_is_not_asked_about_what_the_old_one_was_told() {
    let (scene, [key, _], mut shared) = two();
    let mut client = scene.client();
    write(&mut client, &mut shared[0], &key);
    let next = Master::new();
    let routes = [next.route(), scene.masters[1].route()];
    scene.plane.apply(2, &routes).expect("a newer snapshot");
    scene.acked(2);
    client.send(WAIT);
    let answer = client.line();
    assert!(
        answer.starts_with("-ERR shard \"a\" has had another master"),
        "{answer}"
    );
    let mut shared = next.connection();
    write(&mut client, &mut shared, &key);
    client.send(WAIT);
    let mut own = asked(&next);
    own.send(&[MARKED, b":1\r\n"].concat());
    assert_eq!(client.line(), ":1", "of what it wrote since");
}

#[test]
fn a_server_that_takes_no_mark_vouches_for_nothing() {
    let (scene, [key, _], mut shared) = two();
    let mut client = scene.client();
    write(&mut client, &mut shared[0], &key);
    client.send(WAIT);
    let mut own = asked(&scene.masters[0]);
    own.send(b"-ERR unknown command 'SPUBLISH'\r\n:1\r\n");
    let answer = client.line();
    assert!(answer.starts_with("-ERR WAIT needs SPUBLISH"), "{answer}");
}

#[test]
fn a_connection_that_is_lost_is_an_error_and_one_that_is_left_is_closed() {
    let (scene, [key, _], mut shared) = two();
    let mut client = scene.client();
    write(&mut client, &mut shared[0], &key);
    client.send(WAIT);
    drop(asked(&scene.masters[0]));
    assert_eq!(
        client.line(),
        "-ERR shard \"a\" was lost before it answered"
    );
    client.send(WAIT);
    let mut own = asked(&scene.masters[0]);
    drop(client);
    assert!(own.request().is_empty(), "closed");
}

#[test]
fn one_that_is_sent_away_is_an_error() {
    let (scene, [key, _], mut shared) = two();
    let mut client = scene.client();
    write(&mut client, &mut shared[0], &key);
    client.send(WAIT);
    let mut own = asked(&scene.masters[0]);
    own.send(
        &[
            MARKED,
            b"-UNBLOCKED force unblock from blocking operation\r\n",
        ]
        .concat(),
    );
    assert_eq!(
        client.line(),
        "-ERR shard \"a\" was lost before it answered"
    );
}

#[test]
fn what_was_not_confirmed_is_asked_for_again() {
    let (scene, keys, mut shared) = two();
    let mut client = scene.client();
    write(&mut client, &mut shared[0], &keys[0]);
    client.send(WAIT);
    let mut one = asked(&scene.masters[0]);
    one.send(&[MARKED, b":0\r\n"].concat());
    assert_eq!(client.line(), ":0");
    write(&mut client, &mut shared[1], &keys[1]);
    client.send(WAIT);
    let mut other = asked(&scene.masters[1]);
    is_asked(&mut one);
    one.send(&[MARKED, b":0\r\n"].concat());
    other.send(&[MARKED, b":1\r\n"].concat());
    assert_eq!(client.line(), ":0");
}

#[test]
fn a_master_that_was_lost_for_a_moment_may_lack_what_it_was_told() {
    let (scene, [key, _], [mut first, _second]) = two();
    let mut client = scene.client();
    write(&mut client, &mut first, &key);
    drop(first);
    let mut again = scene.masters[0].connection();
    client.send(&get(&key));
    assert_eq!(again.request(), ["GET", key.as_str()]);
    again.send(b"$-1\r\n");
    assert_eq!(client.line(), "$-1");
    client.send(WAIT);
    let answer = client.line();
    assert!(
        answer.starts_with("-ERR shard \"a\" has had another master"),
        "{answer}"
    );
}
