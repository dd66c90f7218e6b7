//! EVALSHA reaches a server together with the script that the server does not have, once and in its client's order.

mod scene;

use std::fmt::Write as _;

use dataplane::snapshot::NO_LEASE_NEEDED;
use scene::{
    EXEC, MULTI, Master, Scene, Wire, fixed, get, keys_apart, queue, queued, receive, set,
};

const TEXT: &str = "return 1";
const SHA: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
const NOSCRIPT: &[u8] = b"-NOSCRIPT No matching script. Please use EVAL.\r\n";
const READONLY: &[u8] = b"-READONLY You can't write against a read only replica.\r\n";
const EVAL: [&str; 4] = ["EVAL", TEXT, "1", "k"];
const EVALSHA: [&str; 4] = ["EVALSHA", SHA, "1", "k"];

fn frame(words: &[&str]) -> Vec<u8> {
    let mut frame = format!("*{}\r\n", words.len());
    for word in words {
        let _ = write!(frame, "${}\r\n{word}\r\n", word.len());
    }
    frame.into_bytes()
}

/// Has the script run once as a whole text.
fn teach(client: &mut Wire, master: &mut Wire) {
    client.send(&frame(&EVAL));
    assert_eq!(master.request(), EVAL);
    master.send(b":1\r\n");
    assert_eq!(client.line(), ":1");
}

/// The shard's next master is asked what it is.
fn next_master(scene: &Scene) -> Wire {
    scene.asked_master("master")
}

#[test]
fn a_script_that_was_evaluated_is_named_to_that_server_and_spelled_out_to_the_next() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    teach(&mut client, &mut master);
    client.send(&frame(&EVALSHA));
    assert_eq!(master.request(), EVALSHA);
    master.send(b":1\r\n");
    assert_eq!(client.line(), ":1");
    drop(master);
    let mut master = scene.master();
    let shouted = SHA.to_uppercase();
    client.send(&frame(&["evalsha", &shouted, "1", "k", "", "x"]));
    client.send(&frame(&EVALSHA));
    client.send(&get("k"));
    assert_eq!(master.request(), ["EVAL", TEXT, "1", "k", "", "x"]);
    assert_eq!(master.request(), EVALSHA, "the server has it by then");
    assert_eq!(master.request(), ["GET", "k"]);
    master.send(b":1\r\n:2\r\n$1\r\nv\r\n");
    assert_eq!([(); 4].map(|()| client.line()), [":1", ":2", "$1", "v"]);
}

#[test]
fn a_script_that_was_loaded_is_spelled_out_to_each_connection_once() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let mut masters: Vec<Wire> = scene.masters.iter().map(Master::connection).collect();
    let mut client = scene.client();
    client.send(&frame(&["SCRIPT", "LOAD", TEXT]));
    for master in &mut masters {
        assert_eq!(master.request(), ["SCRIPT", "LOAD", TEXT]);
        master.send(format!("$40\r\n{SHA}\r\n").as_bytes());
    }
    assert_eq!([client.line(), client.line()], ["$40", SHA]);
    for (master, key) in masters.iter_mut().zip(&keys_apart()) {
        for expected in [["EVAL_RO", TEXT], ["EVALSHA_RO", SHA]] {
            client.send(&frame(&["EVALSHA_RO", SHA, "1", key]));
            assert_eq!(master.request()[..2], expected);
            master.send(b":1\r\n");
            assert_eq!(client.line(), ":1");
        }
    }
}

#[test]
fn a_script_that_the_proxy_never_saw_is_named() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    for name in [SHA, "nonsense"] {
        client.send(&frame(&["EVALSHA", name, "1", "k"]));
        assert_eq!(master.request(), ["EVALSHA", name, "1", "k"]);
        master.send(NOSCRIPT);
        assert_eq!(client.line().as_bytes(), &NOSCRIPT[..NOSCRIPT.len() - 2]);
    }
}

#[test]
fn a_script_that_the_server_dropped_is_sent_again_in_place() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    teach(&mut client, &mut master);
    for said in [NOSCRIPT, b"-NOSCRIPT No matching script.\r\n"] {
        client.send(&frame(&EVALSHA));
        assert_eq!(master.request(), EVALSHA);
        master.send(said);
        assert_eq!(master.request(), EVAL);
        client.send(&get("k"));
        assert_eq!(master.request(), ["GET", "k"]);
        master.send(b":1\r\n$1\r\nv\r\n");
        assert_eq!([(); 3].map(|()| client.line()), [":1", "$1", "v"]);
    }
}

#[test]
fn a_script_is_not_sent_again_behind_what_its_client_sent_later() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    teach(&mut client, &mut master);
    client.send(&[frame(&EVALSHA), get("k")].concat());
    assert_eq!(master.request(), EVALSHA);
    assert_eq!(master.request(), ["GET", "k"]);
    master.send(&[NOSCRIPT, b"$1\r\nv\r\n"].concat());
    assert!(client.line().starts_with("-NOSCRIPT"));
    assert_eq!([client.line(), client.line()], ["$1", "v"]);
    client.send(&frame(&EVALSHA));
    assert_eq!(master.request(), EVAL, "it is known to be away now");
}

#[test]
fn an_error_that_a_script_makes_up_is_no_reason_to_run_it_twice() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    teach(&mut client, &mut master);
    client.send(&frame(&EVALSHA));
    assert_eq!(master.request(), EVALSHA);
    master.send(b"-NOSCRIPT the wizard is out\r\n");
    assert_eq!(client.line(), "-NOSCRIPT the wizard is out");
    master.says_nothing();
}

#[test]
fn a_flush_is_a_flush() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    teach(&mut client, &mut master);
    client.send(&frame(&["SCRIPT", "FLUSH"]));
    assert_eq!(master.request(), ["SCRIPT", "FLUSH"]);
    master.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
    client.send(&frame(&EVALSHA));
    assert_eq!(master.request(), EVALSHA);
    master.send(NOSCRIPT);
    assert!(client.line().starts_with("-NOSCRIPT"));
}

#[test]
fn a_script_that_was_held_over_a_failover_is_spelled_out() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    teach(&mut client, &mut master);
    client.send(&frame(&EVALSHA));
    assert_eq!(master.request(), EVALSHA);
    master.send(READONLY);
    let mut master = next_master(&scene);
    assert_eq!(master.request(), EVAL);
    master.send(b":1\r\n");
    assert_eq!(client.line(), ":1");
    client.send(&frame(&EVALSHA));
    assert_eq!(master.request(), EVALSHA);
}

#[test]
fn a_mended_write_waits_for_the_lease() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    teach(&mut client, &mut master);
    client.send(&frame(&EVALSHA));
    assert_eq!(master.request(), EVALSHA);
    scene.lease(0);
    master.send(NOSCRIPT);
    master.says_nothing();
    scene.lease(NO_LEASE_NEEDED);
    assert_eq!(master.request(), EVAL);
    master.send(b":1\r\n");
    assert_eq!(client.line(), ":1");
}

#[test]
fn a_script_without_keys_goes_to_one_shard_for_good() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let mut masters: Vec<Wire> = scene.masters.iter().map(Master::connection).collect();
    for _ in 0..3 {
        let mut client = scene.client();
        for name in ["EVAL", "EVAL_RO", "FCALL", "FCALL_RO"] {
            client.send(&frame(&[name, TEXT, "0", "x"]));
            assert_eq!(masters[0].request(), [name, TEXT, "0", "x"]);
            masters[0].send(b":1\r\n");
            assert_eq!(client.line(), ":1");
        }
    }
    masters[1].says_nothing();
}

#[test]
fn a_script_without_keys_goes_with_its_transaction() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let mut masters: Vec<Wire> = scene.masters.iter().map(Master::connection).collect();
    let mut client = scene.client();
    let [_, key] = keys_apart();
    queue(
        &mut client,
        &[
            frame(&["EVAL", TEXT, "0"]),
            set(&key, "1"),
            frame(&["FCALL", "f", "0"]),
        ],
    );
    client.send(EXEC);
    let sent: [&[&str]; 3] = [
        &["EVAL", TEXT, "0"],
        &["SET", &key, "1"],
        &["FCALL", "f", "0"],
    ];
    receive(&mut masters[1], &sent);
    masters[1].send(&[&*queued(3), b"*3\r\n:1\r\n+OK\r\n:1\r\n"].concat());
    assert_eq!([(); 4].map(|()| client.line()), ["*3", ":1", "+OK", ":1"]);
}

#[test]
fn a_transaction_spells_a_script_out_where_its_server_has_not_got_it() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    teach(&mut client, &mut master);
    let transaction = |client: &mut Wire, master: &mut Wire, first: &[&str]| {
        queue(client, &[frame(&EVALSHA), frame(&EVALSHA)]);
        client.send(EXEC);
        receive(master, &[first, &EVALSHA]);
    };
    let done = [&*queued(2), b"*2\r\n:1\r\n:1\r\n"].concat();
    transaction(&mut client, &mut master, &EVALSHA);
    master.send(
        &[
            b"+OK\r\n",
            READONLY,
            READONLY,
            b"-EXECABORT Transaction discarded\r\n",
        ]
        .concat(),
    );
    let mut master = next_master(&scene);
    receive(&mut master, &[&EVAL, &EVALSHA]);
    master.send(&done);
    assert_eq!([(); 3].map(|()| client.line()), ["*2", ":1", ":1"]);
    transaction(&mut client, &mut master, &EVALSHA);
    master.send(&[&*queued(2), b"*2\r\n", NOSCRIPT, NOSCRIPT].concat());
    assert_eq!(client.line(), "*2");
    assert!(client.line().starts_with("-NOSCRIPT") && client.line().starts_with("-NOSCRIPT"));
    transaction(&mut client, &mut master, &EVAL);
    master.send(&done);
    assert_eq!(client.line(), "*2");
}

#[test]
fn a_client_that_watches_brings_the_script_along() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    teach(&mut client, &mut master);
    for _ in 0..2 {
        client.send(&frame(&["WATCH", "k"]));
        let mut watching = scene.masters[0].connection();
        watching.answers_role("master");
        assert_eq!(watching.request(), ["WATCH", "k"]);
        watching.send(b"+OK\r\n");
        assert_eq!(client.line(), "+OK");
        client.send(
            &[
                MULTI.to_vec(),
                frame(&EVALSHA),
                frame(&EVALSHA),
                EXEC.to_vec(),
            ]
            .concat(),
        );
        receive(&mut watching, &[&EVAL, &EVALSHA]);
        watching.send(&[&*queued(2), b"*-1\r\n"].concat());
        assert_eq!(
            [(); 4].map(|()| client.line()),
            ["+OK", "+QUEUED", "+QUEUED", "*-1"]
        );
    }
}

#[test]
fn servers_of_a_fixed_place_get_their_scripts_too() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&frame(&EVAL));
    let mut master = scene.master();
    assert_eq!(master.request(), EVAL);
    master.send(b":1\r\n");
    assert_eq!(client.line(), ":1");
    drop(master);
    client.send(&frame(&EVALSHA));
    let mut master = scene.master();
    assert_eq!(master.request(), EVAL);
    master.send(b":1\r\n");
    assert_eq!(client.line(), ":1");
}
