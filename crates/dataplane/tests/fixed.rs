//! Pools whose servers are where the file says, as with Twemproxy: what cannot be sent is answered at once.

mod scene;

use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::endpoint::Endpoint;
use dataplane::plane::Plane;
use dataplane::pool::{Dialect, Servers};
use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};
use scene::{
    A_WHILE, SOON, Scene, Wire, fixed, free_port, get, huge, key_of, plane_of, plane_over, pool,
    routes, set,
};

#[test]
fn a_server_is_connected_when_a_request_needs_it() {
    let scene = Scene::new(fixed);
    scene.acked(1);
    assert!(scene.masters[0].is_left_alone());
    let mut client = scene.client();
    client.send(&get("k"));
    let mut server = scene.master();
    assert_eq!(server.request(), ["GET", "k"]);
    server.send(b"$-1\r\n");
    assert_eq!(client.line(), "$-1");
}

#[test]
fn preconnect_connects_it_before() {
    let scene = Scene::new(|config| {
        config.servers = Servers::Fixed {
            preconnect: true,
            eject: None,
        };
    });
    let _server = scene.master();
}

#[test]
fn a_refused_connection_answers_all_that_waits_for_it_and_the_next_request_tries_again() {
    let address = free_port();
    let (plane, mut client) = plane_over(&[Some(address.into())], |_| {});
    let requests = [get("a"), set("a", "1"), get("a")].concat();
    client.send(&requests);
    for _ in 0..3 {
        assert_eq!(client.line(), "-ERR Connection refused");
    }
    assert_eq!(plane.stats()[0].totals.errors, 3);
    let requests = plane.stats()[0].shards[0].totals.requests;
    assert_eq!(requests, 3, "they have waited for the server");
    let listener = TcpListener::bind(address).expect("the port is still free");
    client.send(&get("a"));
    let (stream, _) = listener.accept().expect("the proxy connects");
    let mut server = Wire::new(stream);
    assert_eq!(server.request(), ["GET", "a"]);
    server.send(b"+yes\r\n");
    assert_eq!(client.line(), "+yes");
}

#[test]
fn a_server_without_an_address_is_down() {
    let (plane, mut client) = plane_over(&[None], |_| {});
    client.send(&get("a"));
    assert_eq!(client.line(), "-ERR Host is down");
    let totals = &plane.stats()[0].shards[0].totals;
    assert_eq!((totals.broken, totals.requests), (1, 0));
}

/// Until a request waits for the first server.
fn waits(plane: &Plane) {
    let started = Instant::now();
    while plane.stats()[0].shards[0].totals.held_requests == 0 {
        assert!(started.elapsed() < SOON, "never: a request waits");
        thread::yield_now();
    }
}

#[test]
fn a_request_that_is_faster_than_the_first_snapshot_waits_for_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (plane, mut client) = plane_of(1, |_| {});
    client.send(&[get("a"), set("a", "1")].concat());
    waits(&plane);
    plane
        .apply(1, &routes(&[Some(address.into())]))
        .expect("a first snapshot");
    let (stream, _) = listener.accept().expect("the proxy connects");
    let mut server = Wire::new(stream);
    assert_eq!(server.request(), ["GET", "a"]);
    server.send(b"+yes\r\n");
    assert_eq!(client.line(), "+yes");
}

#[test]
fn a_request_that_was_faster_learns_that_its_server_has_no_address() {
    let (plane, mut client) = plane_of(1, |_| {});
    client.send(&get("a"));
    waits(&plane);
    plane.apply(1, &routes(&[None])).expect("a first snapshot");
    assert_eq!(client.line(), "-ERR Host is down");
}

#[test]
fn what_was_in_flight_when_a_server_left_is_told_apart() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&[get("k"), set("k", "1")].concat());
    let mut server = scene.master();
    assert_eq!(server.request(), ["GET", "k"]);
    assert_eq!(server.request(), ["SET", "k", "1"]);
    server.to.shutdown(Shutdown::Both).expect("an open socket");
    let mut server = scene.master();
    assert_eq!(server.request(), ["GET", "k"], "a read is sent once more");
    server.send(b"$-1\r\n");
    assert_eq!(client.line(), "$-1");
    let answer = client.line();
    assert!(answer.starts_with("-INDOUBT write to shard"), "{answer}");
}

#[test]
fn a_read_that_is_lost_twice_is_not_sent_a_third_time() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&get("k"));
    for _ in 0..2 {
        let mut server = scene.master();
        assert_eq!(server.request(), ["GET", "k"]);
        server.to.shutdown(Shutdown::Both).expect("an open socket");
    }
    assert_eq!(client.line(), "-ERR Connection reset by peer");
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn errors_of_the_server_are_passed_on_as_they_are() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&[set("k", "1"), get("k")].concat());
    let mut server = scene.master();
    server.request();
    server.request();
    server.send(b"-READONLY You can't write against a read only replica.\r\n-LOADING wait\r\n");
    assert!(client.line().starts_with("-READONLY"));
    assert_eq!(client.line(), "-LOADING wait");
    client.send(&get("k"));
    assert_eq!(server.request(), ["GET", "k"], "the connection is kept");
}

#[test]
fn a_request_that_is_not_answered_in_time_is_timed_out_alone() {
    let scene = Scene::new(|config| {
        fixed(config);
        config.timeout = Duration::from_millis(200);
    });
    let mut client = scene.client();
    client.send(&[get("slow"), get("quick")].concat());
    let mut server = scene.master();
    server.request();
    server.request();
    assert_eq!(client.line(), "-ERR Connection timed out");
    assert_eq!(client.line(), "-ERR Connection timed out");
    server.send(b"+late\r\n+late\r\n");
    client.send(&set("k", "1"));
    assert_eq!(server.request(), ["SET", "k", "1"]);
    server.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK", "late replies are nobody's");
    let stats = &scene.plane.stats()[0].shards[0].totals;
    assert_eq!((stats.timeouts, stats.timed_out), (2, 1), "one failure");
}

#[test]
fn who_sends_no_more_while_a_connection_is_made_gets_the_reply() {
    let scene = Scene::new(|config| {
        fixed(config);
        config.backend_password = Some("secret".into());
    });
    let mut client = scene.client();
    client.send(&get("k"));
    let mut server = scene.master();
    assert_eq!(server.request(), ["AUTH", "secret"]);
    client.to.shutdown(Shutdown::Write).expect("an open socket");
    let ended = Instant::now();
    while ended.elapsed() < A_WHILE {
        thread::yield_now();
    }
    server.send(b"+OK\r\n");
    assert_eq!(server.request(), ["GET", "k"]);
    server.send(b"+yes\r\n");
    assert_eq!(client.line(), "+yes");
    assert_eq!(client.line(), "", "then it is let go");
    let left = |plane: &Plane| plane.stats()[0].totals.left;
    while left(&scene.plane) == 0 {
        assert!(ended.elapsed() < SOON, "never: it has left");
    }
}

#[test]
fn who_quits_has_left() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(b"*1\r\n$4\r\nQUIT\r\n");
    assert_eq!(
        (client.line(), client.line()),
        ("+OK".into(), String::new())
    );
    let totals = &scene.plane.stats()[0].totals;
    assert_eq!((totals.left, totals.lost), (1, 0));
}

#[test]
fn what_is_shown_does_not_lag_behind_when_nothing_more_happens() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&get("k"));
    let mut server = scene.master();
    let mut answer = |count: usize, next: usize| {
        for _ in 0..count {
            server.request();
            server.send(b"$-1\r\n");
            client.line();
        }
        client.send(&get("k").repeat(next));
    };
    let mut lags: Vec<Duration> = (0..5)
        .map(|_| {
            (0..20).for_each(|_| answer(1, 1));
            answer(1, 3);
            let asked = Instant::now();
            scene.wait("three are unanswered", |shard| shard.totals.unanswered == 3);
            let lag = asked.elapsed();
            answer(3, 1);
            lag
        })
        .collect();
    lags.sort();
    assert!(lags[2] < A_WHILE, "{lags:?}");
}

#[test]
fn a_request_that_expires_before_it_has_left_is_never_sent() {
    let scene = Scene::new(|config| {
        fixed(config);
        config.timeout = Duration::from_millis(200);
    });
    let (mut first, mut second) = (scene.client(), scene.client());
    first.send(&set("k", &huge()));
    let mut server = scene.master();
    server.begins();
    second.send(&set("q", "1"));
    assert_eq!(second.line(), "-ERR Connection timed out");
    assert_eq!(first.line(), "-ERR Connection timed out");
    assert_eq!(server.request()[1], "k", "half a request ends");
    second.send(&set("q", "2"));
    assert_eq!(server.request(), ["SET", "q", "2"]);
    server.send(b"+late\r\n+OK\r\n");
    assert_eq!(second.line(), "+OK");
}

#[test]
fn a_part_that_is_not_answered_in_time_is_in_doubt() {
    let names = ["a", "b"];
    let scene = Scene::over(&names, |config| {
        fixed(config);
        config.timeout = Duration::from_millis(200);
    });
    let (a, b) = (key_of(&names, 0), key_of(&names, 1));
    let mut client = scene.client();
    let (one, two) = (a.len(), b.len());
    let mset =
        format!("*5\r\n$4\r\nMSET\r\n${one}\r\n{a}\r\n$1\r\n1\r\n${two}\r\n{b}\r\n$1\r\n1\r\n");
    client.send(mset.as_bytes());
    let mut servers = [0, 1].map(|n| scene.masters[n].connection());
    assert_eq!(servers[0].request(), ["MSET", &a, "1"]);
    assert_eq!(servers[1].request(), ["MSET", &b, "1"]);
    servers[0].send(b"+OK\r\n");
    let doubt = "-INDOUBT write to shards \"a\" (done), \"b\" (unknown)";
    assert_eq!(client.line(), doubt);
    assert_eq!(scene.plane.stats()[0].shards[1].totals.indoubt, 1);
}

#[test]
fn clients_are_spread_over_the_connections_and_each_keeps_its_own() {
    let scene = Scene::new(|config| {
        fixed(config);
        config.connections = 2;
    });
    let mut clients = [scene.client(), scene.client()];
    let mut servers = Vec::new();
    for client in &mut clients {
        client.send(&get("a"));
        servers.push(scene.master());
    }
    for (client, server) in clients.iter_mut().zip(&mut servers) {
        client.send(&get("b"));
        assert_eq!(server.request(), ["GET", "a"]);
        assert_eq!(server.request(), ["GET", "b"]);
    }
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn the_database_of_the_pool_is_selected_after_the_password_is_given() {
    let scene = Scene::new(|config| {
        fixed(config);
        config.database = 3;
        config.backend_password = Some("secret".into());
    });
    let mut client = scene.client();
    client.send(&get("a"));
    let mut server = scene.master();
    assert_eq!(server.request(), ["AUTH", "secret"]);
    assert_eq!(server.request(), ["SELECT", "3"]);
    server.send(b"-ERR AUTH <password> called without any password configured\r\n+OK\r\n");
    assert_eq!(server.request(), ["GET", "a"], "it asks for no password");
}

#[test]
fn a_pool_of_twemproxy_answers_auth_in_its_words() {
    let scene = Scene::new(|config| {
        fixed(config);
        config.dialect = Dialect::Twemproxy;
        config.password = Some("secret".into());
    });
    let mut client = scene.client();
    let auth = |word: &str| format!("*2\r\n$4\r\nAUTH\r\n${}\r\n{word}\r\n", word.len());
    client.send(&get("a"));
    assert_eq!(client.line(), "-NOAUTH Authentication required");
    client.send(auth("secret").as_bytes());
    assert_eq!(client.line(), "+OK");
    client.send(auth("wrong").as_bytes());
    assert_eq!(client.line(), "-ERR invalid password");
    client.send(&get("a"));
    assert_eq!(client.line(), "-NOAUTH Authentication required");
}

#[test]
fn a_port_that_another_process_has_is_in_use_unless_it_is_to_be_shared() {
    let mut config = pool("p", free_port(), &["a"]);
    config.share_port = true;
    let first = Plane::new(vec![config.clone()], 1).expect("a valid configuration");
    first.start().expect("a free port");
    let second = Plane::new(vec![config.clone()], 1).expect("a valid configuration");
    second.start().expect("a port that is shared");
    config.share_port = false;
    let third = Plane::new(vec![config], 1).expect("a valid configuration");
    let taken = third.start().expect_err("it wants the port for itself");
    assert!(taken.to_string().ends_with("is in use"), "{taken}");
}

#[test]
fn both_sides_may_be_unix_sockets() {
    let directory = std::env::temp_dir().join(format!("shoal-unix-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (front, back) = (directory.join("front"), directory.join("back"));
    let listener = UnixListener::bind(&back).expect("a free path");
    // what a process that was killed has left
    drop(UnixListener::bind(&front).expect("a free path"));
    let mut config = pool("p", free_port(), &["a"]);
    fixed(&mut config);
    config.listen = front.to_str().expect("text").to_owned();
    config.socket_mode = Some(0o600);
    let plane = Plane::new(vec![config.clone()], 2).expect("a valid configuration");
    plane.start().expect("a path that nobody listens on");
    let second = Plane::new(vec![config], 1).expect("a valid configuration");
    let taken = second.start().expect_err("the first one listens");
    assert!(taken.to_string().ends_with("is in use"), "{taken}");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&front).expect("the socket").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let route = RouteSpec {
        endpoint: Some(Endpoint::Unix(back)),
        lease_until: NO_LEASE_NEEDED,
    };
    plane.apply(1, &[route]).expect("a first snapshot");
    let mut client = std::os::unix::net::UnixStream::connect(&front).expect("the proxy listens");
    std::io::Write::write_all(&mut client, &get("k")).expect("the proxy reads");
    let (mut server, _) = listener.accept().expect("the proxy connects");
    let mut request = vec![0; get("k").len()];
    std::io::Read::read_exact(&mut server, &mut request).expect("a request");
    assert_eq!(request, get("k"));
    std::io::Write::write_all(&mut server, b"$-1\r\n").expect("the proxy reads");
    let mut answer = [0; 5];
    std::io::Read::read_exact(&mut client, &mut answer).expect("an answer");
    assert_eq!(&answer, b"$-1\r\n");
    plane.stop(SOON);
    std::fs::remove_dir_all(&directory).expect("the directory");
}
