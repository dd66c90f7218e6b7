//! Commands that concern every shard: sent to all or to none, merged, and honest about a shard that fails; and SCAN,
//! whose cursor must not be continued on another run of a server. Masters are played by hand.

mod scene;

use dataplane::pool::Servers;
use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};
use scene::{A_WHILE, Master, Scene, Wire};

/// A request of these words.
fn words(request: &str) -> Vec<u8> {
    let words: Vec<&str> = request.split(' ').collect();
    let argument = |word: &&str| format!("${}\r\n{word}\r\n", word.len());
    let arguments: Vec<String> = words.iter().map(argument).collect();
    format!("*{}\r\n{}", words.len(), arguments.concat()).into_bytes()
}

/// The proxy's connection to each master, once it has asked something there.
fn masters(scene: &Scene) -> Vec<Wire> {
    scene.masters.iter().map(Master::connection).collect()
}

fn two_shards() -> (Scene, Wire, Vec<Wire>) {
    let scene = Scene::over(&["a", "b"], |_| {});
    let masters = masters(&scene);
    let client = scene.client();
    (scene, client, masters)
}

fn ask(client: &mut Wire, request: &str) {
    client.send(&words(request));
}

#[test]
fn a_request_reaches_every_shard_as_it_is_and_counts_are_added_up() {
    let (_scene, mut client, mut masters) = two_shards();
    ask(&mut client, "DBSIZE");
    for (master, reply) in masters.iter_mut().zip([":40\r\n", ":2\r\n"]) {
        assert_eq!(master.request(), ["DBSIZE"]);
        master.send(reply.as_bytes());
    }
    assert_eq!(client.line(), ":42");
    ask(&mut client, "slowlog LEN");
    for master in &mut masters {
        assert_eq!(master.request(), ["slowlog", "LEN"]);
        master.send(b":1\r\n");
    }
    assert_eq!(client.line(), ":2");
}

#[test]
fn an_answer_over_all_shards_keeps_its_place_among_the_clients_replies() {
    let (_scene, mut client, mut masters) = two_shards();
    let both = [words("DBSIZE"), words("PING")].concat();
    client.send(&both);
    masters[1].request();
    masters[1].send(b":1\r\n");
    client.says_nothing();
    masters[0].request();
    masters[0].send(b":1\r\n");
    assert_eq!(client.line(), ":2");
    assert_eq!(client.line(), "+PONG");
}

#[test]
fn the_error_of_one_shard_names_it_and_one_of_all_is_as_they_say_it() {
    let (_scene, mut client, mut masters) = two_shards();
    for (replies, expected) in [
        (
            ["+OK\r\n", "-OOM no\r\n"],
            "-OOM no (shard \"b\"; done on \"a\")",
        ),
        (["-ERR no\r\n", "-ERR no\r\n"], "-ERR no"),
    ] {
        ask(&mut client, "FLUSHALL ASYNC");
        for (master, reply) in masters.iter_mut().zip(replies) {
            assert_eq!(master.request(), ["FLUSHALL", "ASYNC"]);
            master.send(reply.as_bytes());
        }
        assert_eq!(client.line(), expected);
    }
}

#[test]
fn a_write_goes_to_no_shard_while_one_of_them_has_no_lease() {
    let (scene, mut client, mut masters) = two_shards();
    scene.plane.renew(1, 0).expect("shard b");
    ask(&mut client, "FLUSHDB");
    for master in &mut masters {
        master.says_nothing();
    }
    scene.plane.renew(1, NO_LEASE_NEEDED).expect("shard b");
    for master in &mut masters {
        assert_eq!(master.request(), ["FLUSHDB"]);
        master.send(b"+OK\r\n");
    }
    assert_eq!(client.line(), "+OK");
}

#[test]
fn a_read_needs_no_lease_but_a_shard_without_a_master_is_waited_for_and_named() {
    let scene = Scene::over(&["a", "b"], |config| config.hold_timeout = A_WHILE);
    let mut masters = masters(&scene);
    scene.plane.renew(1, 0).expect("shard b");
    let mut client = scene.client();
    ask(&mut client, "LASTSAVE");
    for (master, reply) in masters.iter_mut().zip([":9\r\n", ":7\r\n"]) {
        master.request();
        master.send(reply.as_bytes());
    }
    assert_eq!(client.line(), ":7");
    let nowhere = RouteSpec {
        endpoint: None,
        lease_until: 0,
    };
    scene
        .plane
        .apply(2, &[scene.masters[0].route(), nowhere])
        .expect("a snapshot");
    scene.acked(2);
    ask(&mut client, "KEYS *");
    let line = client.line();
    assert!(
        line.starts_with("-MASTERDOWN shard \"b\" has no master"),
        "{line}"
    );
    masters[0].says_nothing();
}

#[test]
fn a_write_whose_part_was_lost_is_in_doubt_with_the_fate_of_each_part() {
    let (_scene, mut client, mut masters) = two_shards();
    ask(&mut client, "FLUSHALL");
    masters[0].request();
    masters[0].send(b"+OK\r\n");
    masters[1].request();
    drop(masters.pop());
    let line = client.line();
    assert_eq!(
        line,
        "-INDOUBT write to shards \"a\" (done), \"b\" (unknown)"
    );
}

#[test]
fn a_pool_with_one_shard_passes_everything_on_as_its_server_says_it() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    for request in ["CONFIG GET port", "MEMORY STATS", "ROLE", "RANDOMKEY"] {
        ask(&mut client, request);
        assert_eq!(master.request().join(" "), request);
        master.send(b"-ERR as it is\r\n");
        assert_eq!(client.line(), "-ERR as it is");
    }
}

#[test]
fn what_makes_no_whole_is_refused_over_several_shards_with_the_reason() {
    let (_scene, mut client, mut masters) = two_shards();
    for request in ["MEMORY STATS", "FUNCTION DUMP", "ROLE"] {
        ask(&mut client, request);
        let line = client.line();
        assert!(
            line.contains("is not supported by Shoal for a pool of several shards: "),
            "{line}"
        );
    }
    ask(&mut client, "CONFIG NOTHING");
    assert_eq!(
        client.line(),
        "-ERR unknown subcommand 'NOTHING'. Try CONFIG HELP."
    );
    ask(&mut client, "CONFIG GET");
    let line = client.line();
    assert_eq!(
        line,
        "-ERR wrong number of arguments for 'config|get' command"
    );
    for master in &mut masters {
        master.says_nothing();
    }
}

#[test]
fn what_every_server_says_alike_is_asked_of_one() {
    let (_scene, mut client, mut masters) = two_shards();
    for request in [
        "COMMAND",
        "COMMAND COUNT",
        "CONFIG HELP",
        "OBJECT HELP",
        "ACL WHOAMI",
    ] {
        ask(&mut client, request);
        assert_eq!(masters[0].request().join(" "), request);
        masters[0].send(b":1\r\n");
        assert_eq!(client.line(), ":1");
    }
    masters[1].says_nothing();
}

#[test]
fn a_pool_refuses_what_is_denied_and_what_is_dangerous_and_not_allowed() {
    let scene = Scene::new(|config| {
        config.deny = vec![
            "flushall".into(),
            "script".into(),
            "get".into(),
            "config|get".into(),
        ];
    });
    let mut client = scene.client();
    for request in ["FLUSHALL", "SCRIPT EXISTS x", "GET k", "CONFIG GET *"] {
        ask(&mut client, request);
        let line = client.line();
        assert!(
            line.ends_with("is denied by this pool's settings"),
            "{line}"
        );
    }
    ask(&mut client, "CONFIG SET maxmemory 1");
    let line = client.line();
    assert!(
        line.starts_with("-ERR 'config|set' is refused unless the pool allows it"),
        "{line}"
    );
    let mut master = scene.master();
    master.says_nothing();
}

#[test]
fn what_a_pool_allows_goes_to_its_shards() {
    let scene = Scene::new(|config| config.allow = vec!["config|set".into(), "debug".into()]);
    let (mut master, mut client) = (scene.master(), scene.client());
    for request in ["CONFIG SET maxmemory 1", "DEBUG SLEEP 0"] {
        ask(&mut client, request);
        assert_eq!(master.request().join(" "), request);
        master.send(b"+OK\r\n");
        assert_eq!(client.line(), "+OK");
    }
}

#[test]
fn a_list_with_a_command_that_is_unknown_or_never_served_is_refused() {
    for (allowed, words) in [
        ("flushal", "there is no command \"flushal\""),
        ("shutdown", "\"shutdown\" cannot be allowed: "),
    ] {
        let mut config = scene::pool("p", scene::free_port(), &["a"]);
        config.allow = vec![allowed.into()];
        let error = dataplane::plane::Plane::new(vec![config], 1)
            .err()
            .expect("an error");
        assert!(error.to_string().contains(words), "{error}");
    }
}

// ------------------------------------------------------------------------------------------------ SCAN

/// Answers the question of a connection that scans for the first time.
fn tells_run(master: &mut Wire, run: &str) {
    assert_eq!(master.request(), ["INFO", "server"]);
    let text = format!("# Server\r\nrun_id:{run}\r\n");
    master.send(format!("${}\r\n{text}\r\n", text.len()).as_bytes());
}

/// A step's answer: this cursor of the server, and one key.
fn step(master: &mut Wire, cursor: u64, key: &str) {
    let (cursor, length) = (cursor.to_string(), key.len());
    let head = format!("*2\r\n${}\r\n{cursor}\r\n", cursor.len());
    master.send(format!("{head}*1\r\n${length}\r\n{key}\r\n").as_bytes());
}

/// The client's reply: the cursor, and the keys.
fn scanned(client: &mut Wire) -> (String, Vec<String>) {
    assert_eq!(client.line(), "*2");
    client.line();
    let cursor = client.line();
    (cursor, client.request())
}

#[test]
fn a_scan_goes_from_shard_to_shard_by_name_and_asks_each_connection_once() {
    let scene = Scene::over(&["b", "a"], |_| {});
    let mut masters = masters(&scene);
    let mut client = scene.client();
    ask(&mut client, "SCAN 0 MATCH x* COUNT 5 TYPE string");
    tells_run(&mut masters[1], "first");
    let request = masters[1].request().join(" ");
    assert_eq!(request, "SCAN 0 MATCH x* COUNT 5 TYPE string");
    step(&mut masters[1], 17, "one");
    let (cursor, keys) = scanned(&mut client);
    assert_eq!(keys, ["one"]);
    ask(&mut client, &format!("SCAN {cursor}"));
    assert_eq!(masters[1].request(), ["SCAN", "17"]);
    step(&mut masters[1], 0, "two");
    let (cursor, _) = scanned(&mut client);
    assert_ne!(cursor, "0");
    ask(&mut client, &format!("SCAN {cursor}"));
    tells_run(&mut masters[0], "second");
    assert_eq!(masters[0].request(), ["SCAN", "0"]);
    step(&mut masters[0], 0, "three");
    assert_eq!(scanned(&mut client), ("0".into(), vec!["three".into()]));
}

#[test]
fn a_cursor_of_another_run_starts_its_shard_again() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    ask(&mut client, "SCAN 0");
    tells_run(&mut master, "first");
    master.request();
    step(&mut master, 17, "one");
    let (cursor, _) = scanned(&mut client);
    drop(master);
    let mut master = scene.master();
    ask(&mut client, &format!("SCAN {cursor}"));
    tells_run(&mut master, "other");
    assert_eq!(master.request(), ["SCAN", "17"]);
    step(&mut master, 3, "of no meaning");
    let (cursor, keys) = scanned(&mut client);
    assert!(keys.is_empty());
    ask(&mut client, &format!("SCAN {cursor}"));
    assert_eq!(master.request(), ["SCAN", "0"]);
    step(&mut master, 0, "one");
    assert_eq!(scanned(&mut client), ("0".into(), vec!["one".into()]));
}

#[test]
fn a_step_that_was_lost_is_asked_for_by_the_client_again_and_never_sent_twice() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    ask(&mut client, "SCAN 0");
    tells_run(&mut master, "first");
    master.request();
    step(&mut master, 17, "one");
    let (cursor, _) = scanned(&mut client);
    ask(&mut client, &format!("SCAN {cursor}"));
    master.request();
    drop(master);
    assert_eq!(scanned(&mut client), (cursor.clone(), Vec::new()));
    let mut master = scene.master();
    master.says_nothing();
    ask(&mut client, &format!("SCAN {cursor}"));
    tells_run(&mut master, "first");
    assert_eq!(master.request(), ["SCAN", "17"]);
    step(&mut master, 0, "two");
    assert_eq!(scanned(&mut client), ("0".into(), vec!["two".into()]));
}

#[test]
fn a_cursor_that_is_none_is_refused_and_the_servers_own_errors_are_passed_on() {
    let scene = Scene::new(|_| {});
    let (mut master, mut client) = (scene.master(), scene.client());
    ask(&mut client, "SCAN x");
    assert_eq!(client.line(), "-ERR invalid cursor");
    ask(&mut client, "SCAN 18446744073709551615");
    assert!(client.line().starts_with("-ERR invalid cursor"));
    ask(&mut client, "SCAN 0 COUNT x");
    tells_run(&mut master, "first");
    master.request();
    master.send(b"-ERR value is not an integer or out of range\r\n");
    assert_eq!(
        client.line(),
        "-ERR value is not an integer or out of range"
    );
}

#[test]
fn a_step_that_a_server_refuses_while_it_loads_is_not_shown_and_goes_on_at_the_next() {
    let scene = Scene::new(|_| {});
    let (mut master, mut client) = (scene.master(), scene.client());
    ask(&mut client, "SCAN 0");
    tells_run(&mut master, "first");
    master.request();
    master.send(b"-LOADING Redis is loading the dataset in memory\r\n");
    let (cursor, keys) = scanned(&mut client);
    assert!(keys.is_empty() && cursor != "0");
    let mut master = scene.asked_master("master");
    ask(&mut client, &format!("SCAN {cursor}"));
    tells_run(&mut master, "first");
    assert_eq!(master.request(), ["SCAN", "0"]);
    step(&mut master, 0, "one");
    assert_eq!(scanned(&mut client), ("0".into(), vec!["one".into()]));
}

#[test]
fn a_fixed_server_that_cannot_be_reached_fails_the_whole_with_its_name() {
    let scene = Scene::over(&["a", "b"], |config| {
        config.servers = Servers::Fixed {
            preconnect: false,
            eject: None,
        };
    });
    let nobody = RouteSpec {
        endpoint: Some(scene::free_port().into()),
        lease_until: NO_LEASE_NEEDED,
    };
    scene
        .plane
        .apply(2, &[scene.masters[0].route(), nobody])
        .expect("a snapshot");
    scene.acked(2);
    let mut client = scene.client();
    for request in ["DBSIZE", "FLUSHALL"] {
        ask(&mut client, request);
        assert_eq!(client.line(), "-ERR shard \"b\": Connection refused");
    }
}
