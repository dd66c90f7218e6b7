//! Servers that send what no server should: what their clients get, and that all others are served.

mod scene;

use std::io::{Read, Write};

use scene::{Scene, Wire, get, receive};

/// How deep the replies here are nested: a parser that recurses ends its process at a hundredth of it.
const DEPTH: usize = 1_000_000;

fn deep() -> Vec<u8> {
    [b"*1\r\n".repeat(DEPTH).as_slice(), b":1\r\n"].concat()
}

fn read(wire: &mut Wire, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    wire.from.read_exact(&mut bytes).expect("so many bytes");
    bytes
}

/// A client that comes later is answered by a connection that is whole.
fn is_served(scene: &Scene, master: &mut Wire) {
    let mut other = scene.client();
    other.send(&get("other"));
    assert_eq!(master.request(), ["GET", "other"]);
    master.send(b"$2\r\nok\r\n");
    assert_eq!((other.line(), other.line()), ("$2".into(), "ok".into()));
}

#[test]
fn a_reply_may_be_nested_as_deep_as_it_likes() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    client.send(&get("k"));
    assert_eq!(master.request(), ["GET", "k"]);
    master.send(&deep());
    assert!(read(&mut client, deep().len()) == deep());
    is_served(&scene, &mut master);
}

#[test]
fn replies_nested_as_deep_are_merged() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let mut masters: Vec<Wire> = scene
        .masters
        .iter()
        .map(scene::Master::connection)
        .collect();
    let mut client = scene.client();
    client.send(b"*2\r\n$4\r\nKEYS\r\n$1\r\n*\r\n");
    for master in &mut masters {
        assert_eq!(master.request(), ["KEYS", "*"]);
        master.send(&deep());
    }
    let element = &deep()[4..];
    let merged = [b"*2\r\n", element, element].concat();
    assert!(read(&mut client, merged.len()) == merged);
}

#[test]
fn the_answers_to_a_transaction_may_be_nested_as_deep() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    scene::queue(&mut client, &[get("k")]);
    client.send(scene::EXEC);
    receive(&mut master, &[&["GET", "k"]]);
    master.send(&scene::queued(1));
    master.send(&deep());
    assert!(read(&mut client, deep().len()) == deep());
    is_served(&scene, &mut master);
}

/// Nothing is taken for what is announced; the client, who still waits, is answered by the next connection.
#[test]
fn a_reply_that_announces_more_than_it_brings_costs_nothing() {
    for announced in [
        "*4294967295\r\n",
        "%4294967295\r\n",
        "$4294967295\r\n",
        "|4294967295\r\n",
    ] {
        let scene = Scene::new(|_| {});
        let mut master = scene.master();
        let mut client = scene.client();
        client.send(&get("k"));
        assert_eq!(master.request(), ["GET", "k"]);
        master.send(
            announced
                .repeat(1 + usize::from(!announced.starts_with('$')))
                .as_bytes(),
        );
        drop(master);
        if announced.starts_with('$') {
            // Its beginning was passed on already: nothing could make it whole.
            assert_eq!(client.line(), announced.trim_end());
            assert_eq!(client.drain(), (0, true));
        }
        let mut next = scene.master();
        if !announced.starts_with('$') {
            assert_eq!(next.request(), ["GET", "k"], "{announced}");
            next.send(b"$-1\r\n");
            assert_eq!(client.line(), "$-1");
        }
        is_served(&scene, &mut next);
    }
}

#[test]
fn what_is_no_reply_ends_the_connection_and_reaches_no_client() {
    let wrong = [
        "x\r\n",
        "$5\r\nhelloxx",
        "+OK\rx",
        "*-2\r\n",
        "$4294967296\r\n",
        "*?\r\n",
        "HTTP/1.1 400 Bad Request\r\n",
    ];
    for wrong in wrong {
        let scene = Scene::new(|_| {});
        let mut master = scene.master();
        let mut client = scene.client();
        client.send(&get("k"));
        assert_eq!(master.request(), ["GET", "k"]);
        master.send(wrong.as_bytes());
        assert!(master.drain().1, "{wrong:?} is believed");
        let mut next = scene.master();
        assert_eq!(next.request(), ["GET", "k"]);
        next.send(b"$-1\r\n");
        assert_eq!(client.line(), "$-1", "{wrong:?}");
    }
}

/// A long string is passed on while it arrives, so its client has the beginning of it; but not the wrong end.
#[test]
fn a_long_string_that_does_not_end_as_one_ends_its_clients_connection() {
    for (end, behind) in [("xx", ""), ("\rx", ""), ("x", "\n"), ("\r", "x")] {
        let scene = Scene::new(|_| {});
        let mut master = scene.master();
        let mut client = scene.client();
        client.send(&get("k"));
        assert_eq!(master.request(), ["GET", "k"]);
        let body = "v".repeat(100_000);
        master.send(b"$100000\r\n");
        assert_eq!(client.line(), "$100000");
        master.send(body.as_bytes());
        assert!(read(&mut client, body.len()) == body.as_bytes());
        master.send(end.as_bytes());
        let _ = master.to.write_all(behind.as_bytes()); // it may be too late for that
        let (more, ended) = client.drain();
        assert!(ended && more <= 1, "{end:?}: {more} bytes more");
        is_served(&scene, &mut scene.master());
    }
}

#[test]
fn a_transaction_that_begins_with_a_long_string_is_answered_once() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    scene::queue(&mut client, &[get("k")]);
    client.send(&[scene::EXEC, &get("j")].concat());
    receive(&mut master, &[&["GET", "k"]]);
    assert_eq!(master.request(), ["GET", "j"]);
    master.send(b"$100000\r\n");
    master.send(
        &[
            b"v".repeat(100_000).as_slice(),
            b"\r\n+QUEUED\r\n*1\r\n$-1\r\n",
        ]
        .concat(),
    );
    master.send(b"$1\r\nj\r\n");
    let answer = client.line();
    assert!(answer.starts_with("$100000"), "{answer:.60}");
    assert!(read(&mut client, 100_002).ends_with(b"v\r\n"));
    assert_eq!((client.line(), client.line()), ("$1".into(), "j".into()));
}
