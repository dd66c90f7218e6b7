//! CLIENT: a client sees and ends the clients of its pool, on whichever worker they are, and hears what Redis would say.

mod scene;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use dataplane::plane::Plane;
use scene::{A_WHILE, Master, SOON, Scene, Wire, client_at, free_port, get, pool, set};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const WORKERS: usize = 3;
/// So many that every worker has some.
const CLIENTS: usize = 24;

/// Words of a request, without quotes.
fn ask(client: &mut Wire, request: &str) -> String {
    client.send(format!("{request}\r\n").as_bytes());
    client.line()
}

/// A reply that is a text.
fn text(client: &mut Wire, request: &str) -> String {
    let head = ask(client, request);
    let len: usize = head[1..].parse().expect("a length");
    let mut bytes = vec![0; len + 2];
    client.from.read_exact(&mut bytes).expect("a text");
    bytes.truncate(len);
    String::from_utf8(bytes).expect("text")
}

/// The fields of each line.
fn lines(client: &mut Wire, request: &str) -> Vec<HashMap<String, String>> {
    let fields = |line: &str| {
        let pairs = line
            .split(' ')
            .map(|pair| pair.split_once('=').expect(line));
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    text(client, request).lines().map(fields).collect()
}

fn id(client: &mut Wire) -> u64 {
    ask(client, "CLIENT ID")[1..].parse().expect("a number")
}

/// A plane of several workers with two pools, which need no servers here.
struct Crowd {
    plane: Plane,
    _masters: Vec<Master>,
    listens: [SocketAddr; 2],
}

impl Crowd {
    fn new() -> Self {
        let listens = [free_port(), free_port()];
        let masters = vec![Master::new(), Master::new()];
        let configs = vec![pool("p", listens[0], &["a"]), pool("q", listens[1], &["a"])];
        let plane = Plane::new(configs, WORKERS).expect("a valid configuration");
        plane.start().expect("free ports");
        let routes: Vec<_> = masters.iter().map(Master::route).collect();
        plane.apply(1, &routes).expect("a first snapshot");
        Self {
            plane,
            _masters: masters,
            listens,
        }
    }

    /// All of them known to their workers.
    fn clients(&self) -> Vec<Wire> {
        let mut clients: Vec<Wire> = (0..CLIENTS).map(|_| client_at(self.listens[0])).collect();
        for client in &mut clients {
            assert_eq!(ask(client, "PING"), "+PONG");
        }
        clients
    }
}

fn is_closed(client: &mut Wire) -> bool {
    client.drain() == (0, true)
}

#[test]
fn the_list_has_the_clients_of_all_workers_and_of_no_other_pool() {
    let crowd = Crowd::new();
    let mut clients = crowd.clients();
    let mut stranger = client_at(crowd.listens[1]);
    let strange = id(&mut stranger);
    let mut ids: Vec<u64> = clients.iter_mut().map(id).collect();
    ids.sort_unstable();
    for client in clients.iter_mut().take(5) {
        let listed = lines(client, "CLIENT LIST");
        let numbers: Vec<u64> = listed
            .iter()
            .map(|it| it["id"].parse().expect("a number"))
            .collect();
        assert_eq!(numbers, ids, "in order, without {strange}");
    }
    assert_eq!(lines(&mut stranger, "CLIENT LIST").len(), 1);
    let chosen = format!("CLIENT LIST ID {} {} {strange}", ids[3], ids[1]);
    let listed = lines(&mut clients[0], &chosen);
    assert_eq!(
        [&listed[0]["id"], &listed[1]["id"]],
        [&ids[1].to_string(), &ids[3].to_string()]
    );
    assert_eq!(listed.len(), 2);
}

#[test]
fn a_line_says_what_redis_would() {
    let scene = Scene::new(|_| {});
    let mut client = scene.client();
    let number = id(&mut client);
    assert_eq!(ask(&mut client, "CLIENT SETNAME web-1"), "+OK");
    assert_eq!(ask(&mut client, "CLIENT SETINFO lib-name redis-py"), "+OK");
    assert_eq!(ask(&mut client, "CLIENT SETINFO LIB-VER 8.0"), "+OK");
    assert_eq!(ask(&mut client, "SELECT 3"), "+OK");
    let [line] = &lines(&mut client, "CLIENT INFO")[..] else {
        panic!("one line");
    };
    let address = client.to.local_addr().expect("an address").to_string();
    let listen = scene.listen.to_string();
    let number = number.to_string();
    for (name, value) in [
        ("id", &*number),
        ("addr", &address),
        ("laddr", &listen),
        ("name", "web-1"),
        ("db", "3"),
        ("flags", "N"),
        ("multi", "-1"),
        ("cmd", "client|info"),
        ("user", "default"),
        ("resp", "2"),
        ("age", "0"),
        ("idle", "0"),
        ("redir", "-1"),
        ("lib-name", "redis-py"),
        ("lib-ver", "8.0"),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    assert_eq!(ask(&mut client, "MULTI"), "+OK");
    client.send(&set("k", "1"));
    assert_eq!(client.line(), "+QUEUED");
    let mut other = scene.client();
    let all = lines(&mut other, "CLIENT LIST");
    assert_eq!([&all[0]["flags"], &all[0]["multi"]], ["x", "1"]);
    assert_eq!(all[1]["cmd"], "client|list");
}

#[test]
fn a_client_that_is_held_is_seen_to_wait() {
    let scene = Scene::new(|_| {});
    let mut client = scene.client();
    scene.lease(0);
    client.send(&set("k", "1"));
    scene.wait("held", |shard| shard.totals.held_requests == 1);
    let mut other = scene.client();
    let all = lines(&mut other, "CLIENT LIST");
    assert_eq!([&all[0]["flags"], &all[0]["cmd"]], ["b", "set"]);
}

#[test]
fn a_text_for_people_is_of_its_own_type_with_resp3() {
    let scene = Scene::new(|_| {});
    let mut client = scene.client();
    client.send(b"HELLO 3\r\nCLIENT INFO\r\n");
    let head = loop {
        let line = client.line();
        if line.starts_with('=') {
            break line;
        }
    };
    let line = client.line();
    assert!(
        line.starts_with("txt:id=1 ") && line.contains(" resp=3 "),
        "{line}"
    );
    assert_eq!(head, format!("={}", line.len() + 1), "with its line feed");
}

#[test]
fn clients_of_all_workers_are_killed() {
    let crowd = Crowd::new();
    let mut clients = crowd.clients();
    let mut stranger = client_at(crowd.listens[1]);
    assert_eq!(ask(&mut stranger, "PING"), "+PONG");
    let ids: Vec<u64> = clients.iter_mut().map(id).collect();
    let mut killer = client_at(crowd.listens[0]);
    let mut kill = |request: String| ask(&mut killer, &format!("CLIENT KILL {request}"));
    assert_eq!(kill(format!("ID {}", ids[0])), ":1");
    assert_eq!(kill(format!("ID {}", ids[0])), ":0");
    let address = clients[1].to.local_addr().expect("an address");
    assert_eq!(kill(address.to_string()), "+OK");
    assert_eq!(kill(address.to_string()), "-ERR No such client");
    let address = clients[2].to.local_addr().expect("an address");
    assert_eq!(
        kill(format!("ADDR {address} LADDR {}", crowd.listens[1])),
        ":0"
    );
    assert_eq!(
        kill(format!("ADDR {address} LADDR {}", crowd.listens[0])),
        ":1"
    );
    assert!(clients.iter_mut().take(3).all(is_closed));
    assert_eq!(ask(&mut clients[3], "PING"), "+PONG");
    assert_eq!(kill("TYPE pubsub".to_owned()), ":0");
    assert_eq!(kill("MAXAGE 1000".to_owned()), ":0");
    assert_eq!(kill("TYPE normal".to_owned()), format!(":{}", CLIENTS - 3));
    assert!(clients.iter_mut().skip(3).all(is_closed));
    assert_eq!(ask(&mut stranger, "PING"), "+PONG");
    assert_eq!(ask(&mut killer, "PING"), "+PONG");
}

#[test]
fn who_kills_itself_is_told_so_first() {
    let crowd = Crowd::new();
    let mut clients = crowd.clients();
    clients[0].send(b"CLIENT KILL SKIPME no\r\nPING\r\n");
    assert_eq!(clients[0].line(), format!(":{CLIENTS}"));
    assert!(clients.iter_mut().all(is_closed));
}

#[test]
fn what_is_sent_behind_a_kill_finds_the_others_gone() {
    let crowd = Crowd::new();
    let mut clients = crowd.clients();
    clients[0].send(b"CLIENT KILL TYPE normal\r\nCLIENT LIST\r\n");
    assert_eq!(clients[0].line(), format!(":{}", CLIENTS - 1));
    assert!(clients[0].line().starts_with('$'));
    assert!(clients[0].line().starts_with("id="));
    assert_eq!(clients[0].line(), "");
}

#[test]
fn a_killed_client_is_not_sent_for_any_more() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let [mut client, mut other] = [scene.client(), scene.client()];
    let number = id(&mut client);
    client.send(&get("k"));
    assert_eq!(master.request(), ["GET", "k"]);
    scene.lease(0);
    client.send(&set("k", "1"));
    scene.wait("held", |shard| shard.totals.held_requests == 1);
    assert_eq!(ask(&mut other, &format!("CLIENT KILL ID {number}")), ":1");
    assert!(is_closed(&mut client));
    scene.lease(dataplane::snapshot::NO_LEASE_NEEDED);
    master.send(b"$1\r\nv\r\n");
    master.says_nothing();
    other.send(&get("k"));
    assert_eq!(master.request(), ["GET", "k"]);
    master.send(b"$1\r\nw\r\n");
    assert_eq!([other.line(), other.line()], ["$1", "w"]);
}

#[test]
fn a_client_may_do_without_replies() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    client.send(
        &[
            &get("a"),
            &b"CLIENT REPLY OFF\r\n"[..],
            PING,
            &set("k", "1"),
            b"NOSUCH\r\n",
        ]
        .concat(),
    );
    assert_eq!(master.request(), ["GET", "a"]);
    master.says_nothing();
    master.send(b"$1\r\na\r\n");
    assert_eq!(master.request(), ["SET", "k", "1"]);
    client.send(b"CLIENT REPLY ON\r\nPING\r\n");
    master.send(b"+OK\r\n");
    assert_eq!([(); 4].map(|()| client.line()), ["$1", "a", "+OK", "+PONG"]);
    client.says_nothing();
    assert_eq!(ask(&mut client, "CLIENT REPLY ON"), "+OK");
}

#[test]
fn one_reply_may_be_left_out_however_long_its_request_waits() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    scene.lease(0);
    client.send(b"CLIENT REPLY SKIP\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n");
    client.says_nothing();
    client.send(&[&b"$1\r\n1\r\n"[..], PING, &get("k"), PING].concat());
    scene.wait("held", |shard| shard.totals.held_requests == 1);
    client.says_nothing();
    scene.lease(dataplane::snapshot::NO_LEASE_NEEDED);
    assert_eq!(master.request(), ["SET", "k", "1"]);
    master.says_nothing();
    master.send(b"+OK\r\n");
    assert_eq!(master.request(), ["GET", "k"]);
    master.send(b"$1\r\n1\r\n");
    assert_eq!(
        [(); 4].map(|()| client.line()),
        ["+PONG", "$1", "1", "+PONG"]
    );
}

#[test]
fn a_long_reply_that_is_left_out_alone_is_left_out_whole() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    client.send(&[&b"CLIENT REPLY SKIP\r\n"[..], &get("k"), PING].concat());
    assert_eq!(master.request(), ["GET", "k"]);
    let long = "x".repeat(1 << 20);
    let (first, rest) = long.split_at(1 << 19);
    master.send(format!("${}\r\n{first}", long.len()).as_bytes());
    client.says_nothing();
    master.send(format!("{rest}\r\n").as_bytes());
    assert_eq!(client.line(), "+PONG");
}

#[test]
fn a_long_reply_that_nobody_wants_is_not_sent_either() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    client.send(&[&b"CLIENT REPLY OFF\r\n"[..], &get("k")].concat());
    assert_eq!(master.request(), ["GET", "k"]);
    let long = "x".repeat(1 << 20);
    let (first, rest) = long.split_at(1 << 19);
    master.send(format!("${}\r\n{first}", long.len()).as_bytes());
    client.says_nothing();
    master.send(format!("{rest}\r\n").as_bytes());
    client.says_nothing();
    assert_eq!(ask(&mut client, "RESET"), "+RESET");
    assert_eq!(ask(&mut client, "PING"), "+PONG");
}

#[test]
fn each_subcommand_can_be_denied() {
    let scene = Scene::new(|config| config.deny = vec!["client|kill".to_owned()]);
    let mut client = scene.client();
    let denied = "-ERR 'client|kill' is denied by this pool's settings";
    assert_eq!(ask(&mut client, "CLIENT KILL ID 1"), denied);
    assert_eq!(lines(&mut client, "CLIENT LIST").len(), 1);
    for refused in ["PAUSE 100", "UNPAUSE", "UNBLOCK 1", "IMPORT-SOURCE ON"] {
        let answer = ask(&mut client, &format!("CLIENT {refused}"));
        assert!(answer.contains("' is not supported by Shoal: "), "{answer}");
    }
    for refused in ["NO-EVICT ON", "NO-TOUCH ON"] {
        let answer = ask(&mut client, &format!("CLIENT {refused}"));
        assert!(answer.starts_with("-ERR clients share"), "{answer}");
    }
}

#[test]
fn questions_do_not_keep_workers_from_ending() {
    let crowd = Crowd::new();
    let mut clients = crowd.clients();
    let asking = std::thread::spawn(move || {
        let started = Instant::now();
        while started.elapsed() < A_WHILE * 4 {
            for client in &mut clients {
                // It is closed sooner or later.
                let _ = client.to.write_all(b"CLIENT LIST\r\n");
            }
        }
    });
    assert!(crowd.plane.stop(SOON), "all workers ended");
    asking.join().expect("no panic");
}
