//! Servers that fail leave the ring for a while, as with Twemproxy's `auto_eject_hosts`: what counts as a failure, and
//! what does not.

mod scene;

use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::eject::EjectRule;
use dataplane::plane::Plane;
use dataplane::pool::{PoolConfig, Servers};
use scene::{
    A_WHILE, Master, SOON, Scene, client_at, free_port, get, key_of, plane_over, pool, routes, set,
};

const RETRY: Duration = Duration::from_millis(400);

fn ejecting(failures: u32) -> impl Fn(&mut PoolConfig) {
    move |config| {
        let rule = EjectRule {
            failures,
            retry: RETRY,
        };
        config.servers = Servers::Fixed {
            preconnect: false,
            eject: Some(rule),
        };
    }
}

#[test]
fn a_server_without_an_address_is_ejected_like_any_other() {
    let live = Master::new();
    let (plane, mut client) = plane_over(&[None, Some(live.endpoint.into())], ejecting(2));
    let key = key_of(&["s0", "s1"], 0);
    for _ in 0..2 {
        client.send(&get(&key));
        assert_eq!(client.line(), "-ERR Host is down");
    }
    client.send(&get(&key));
    assert_eq!(live.connection().request(), ["GET", &key]);
    assert_eq!(plane.stats()[0].ejections, 1);
}

#[test]
fn a_server_whose_replies_are_always_late_is_ejected() {
    let scene = Scene::over(&["s0", "s1"], |config| {
        ejecting(2)(config);
        config.timeout = Duration::from_millis(50);
    });
    let key = key_of(&["s0", "s1"], 0);
    let mut client = scene.client();
    client.send(&get(&key));
    let mut server = scene.master();
    for _ in 0..2 {
        server.request();
        assert_eq!(client.line(), "-ERR Connection timed out");
        server.send(b"+late\r\n");
        scene.wait("the late reply is read", |shard| {
            shard.totals.unanswered == 0
        });
        client.send(&get(&key));
    }
    assert_eq!(scene.masters[1].connection().request(), ["GET", &key]);
    let stats = scene.plane.stats();
    assert_eq!(stats[0].ejections, 1);
    let responses = stats[0].shards[0].totals.responses;
    assert_eq!(responses, 0, "nobody was given them");
}

#[test]
fn the_last_allowed_failure_ejects_a_server_until_its_time_is_over() {
    let live = Master::new();
    let endpoints = [Some(free_port().into()), Some(live.endpoint.into())];
    let (plane, mut client) = plane_over(&endpoints, ejecting(2));
    let key = key_of(&["s0", "s1"], 0);
    for _ in 0..2 {
        client.send(&get(&key));
        assert_eq!(client.line(), "-ERR Connection refused");
    }
    let ejected = Instant::now();
    client.send(&get(&key));
    let mut server = live.connection();
    assert_eq!(server.request(), ["GET", &key], "the other one has it now");
    server.send(b"$-1\r\n");
    assert_eq!(client.line(), "$-1");
    let stats = plane.stats();
    assert_eq!(stats[0].ejections, 1);
    assert!(stats[0].shards[0].ejected_at > 0);
    while ejected.elapsed() < RETRY {
        thread::yield_now();
    }
    client.send(&get(&key));
    assert_eq!(client.line(), "-ERR Connection refused", "it is back");
}

#[test]
fn when_all_servers_are_ejected_nothing_is_sent() {
    let (plane, mut client) = plane_over(&[Some(free_port().into())], ejecting(1));
    client.send(&get("a"));
    assert_eq!(client.line(), "-ERR Connection refused");
    let attempts = plane.stats()[0].shards[0].totals.attempts;
    client.send(b"*3\r\n$4\r\nMGET\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert_eq!(client.line(), "-ERR Connection refused");
    assert_eq!(plane.stats()[0].shards[0].totals.attempts, attempts);
}

#[test]
fn each_lost_connection_is_a_failure_and_a_read_that_is_sent_again_none() {
    let scene = Scene::over(&["s0", "s1"], ejecting(2));
    let key = key_of(&["s0", "s1"], 0);
    let mut client = scene.client();
    for _ in 0..2 {
        client.send(&get(&key));
        for _ in 0..2 {
            let mut server = scene.master();
            assert_eq!(server.request(), ["GET", &key]);
            server.to.shutdown(Shutdown::Both).expect("an open socket");
        }
        assert_eq!(client.line(), "-ERR Connection reset by peer");
    }
    client.send(&get(&key));
    assert_eq!(scene.masters[1].connection().request(), ["GET", &key]);
}

#[test]
fn who_asks_again_at_once_is_timed_out_again() {
    let scene = Scene::over(&["s0", "s1"], |config| {
        ejecting(2)(config);
        config.timeout = Duration::from_millis(50);
    });
    let key = key_of(&["s0", "s1"], 0);
    let mut client = scene.client();
    for _ in 0..2 {
        client.send(&get(&key));
        assert_eq!(client.line(), "-ERR Connection timed out");
    }
    client.send(&get(&key));
    assert_eq!(scene.masters[1].connection().request(), ["GET", &key]);
}

#[test]
fn a_server_that_refuses_the_password_is_not_ejected_for_it() {
    let scene = Scene::over(&["s0", "s1"], |config| {
        ejecting(1)(config);
        config.backend_password = Some("wrong".into());
    });
    let key = key_of(&["s0", "s1"], 0);
    let mut client = scene.client();
    for _ in 0..2 {
        client.send(&get(&key));
        let mut server = scene.master();
        assert_eq!(server.request(), ["AUTH", "wrong"]);
        server.send(b"-WRONGPASS invalid\r\n");
        assert_eq!(client.line(), "-ERR greeting refused: -WRONGPASS invalid");
    }
    assert_eq!(scene.plane.stats()[0].ejections, 0);
}

#[test]
fn any_reply_forgives_the_failures_before_it() {
    let scene = Scene::new(ejecting(2));
    for _ in 0..3 {
        let mut client = scene.client();
        client.send(&set("k", "1"));
        let mut server = scene.master();
        server.request();
        server.send(b"-ERR some error\r\n");
        assert_eq!(client.line(), "-ERR some error");
        server.to.shutdown(Shutdown::Both).expect("an open socket");
        scene.wait("the loss is seen", |shard| shard.totals.connections == 0);
    }
    assert_eq!(scene.plane.stats()[0].ejections, 0);
}

#[test]
fn a_long_reply_forgives_them_too() {
    let scene = Scene::new(ejecting(2));
    for _ in 0..3 {
        let mut client = scene.client();
        client.send(&get("k"));
        let mut server = scene.master();
        server.request();
        let half = "y".repeat(50_000);
        server.send(format!("$100000\r\n{half}").as_bytes());
        client.begins();
        server.send(format!("{half}\r\n").as_bytes());
        assert_eq!(client.line(), "$100000");
        assert_eq!(client.line().len(), 100_000);
        server.to.shutdown(Shutdown::Both).expect("an open socket");
        scene.wait("the loss is seen", |shard| shard.totals.connections == 0);
    }
    assert_eq!(scene.plane.stats()[0].ejections, 0);
}

#[test]
fn a_restart_is_one_failure_however_many_workers_there_are() {
    let names = ["a", "b"];
    let (master, other) = (Master::new(), Master::new());
    let listen = free_port();
    let mut config = pool("p", listen, &names);
    ejecting(2)(&mut config);
    let plane = Plane::new(vec![config], 2).expect("a valid configuration");
    plane.start().expect("a free port");
    let routes = [master.route(), other.route()];
    plane.apply(1, &routes).expect("a first snapshot");
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    // The kernel chooses the worker of a client.
    while servers.len() < 2 {
        let mut client = client_at(listen);
        client.send(&set(&key_of(&names, 0), "1"));
        if let Some(mut server) = master.connection_within(A_WHILE) {
            assert_eq!(
                server.request()[0],
                "SET",
                "its worker knows that it is there"
            );
            servers.push(server);
        }
        clients.push(client);
    }
    for server in &servers {
        server.to.shutdown(Shutdown::Both).expect("an open socket");
    }
    let started = Instant::now();
    while plane.stats()[0].shards[0].totals.connection_errors < 2 {
        assert!(started.elapsed() < SOON, "never: both losses are seen");
        thread::yield_now();
    }
    assert_eq!(plane.stats()[0].ejections, 0);
}

#[test]
fn a_reload_that_changes_nothing_leaves_an_ejected_server_where_it_is() {
    let (live, dead) = (Master::new(), free_port());
    let names = ["a", "b"];
    let listen = free_port();
    let mut config = pool("p", listen, &names);
    ejecting(1)(&mut config);
    if let Servers::Fixed {
        eject: Some(rule), ..
    } = &mut config.servers
    {
        rule.retry = SOON * 10;
    }
    let plane = Plane::new(vec![config.clone()], 1).expect("a valid configuration");
    plane.start().expect("a free port");
    let endpoints = [Some(dead.into()), Some(live.endpoint.into())];
    plane.apply(1, &routes(&endpoints)).expect("a snapshot");
    let (mut client, key) = (client_at(listen), key_of(&names, 0));
    client.send(&get(&key));
    assert_eq!(client.line(), "-ERR Connection refused");
    let other = pool("q", free_port(), &["c"]);
    let mut changed = config.clone();
    changed.max_inflight = 7;
    let reload = |epoch: u64, configs: Vec<PoolConfig>| {
        let mut routes = routes(&endpoints);
        routes.resize(configs.len() + 1, live.route());
        plane.reload(configs, epoch, &routes).expect("a reload");
        while plane.acked_epoch() < epoch {
            thread::yield_now();
        }
    };
    let mut server = None;
    let epochs = [
        vec![config.clone()],
        vec![config, other.clone()],
        vec![changed, other],
    ];
    for (epoch, configs) in (2..).zip(epochs) {
        reload(epoch, configs);
        client.send(&get(&key));
        let server = server.get_or_insert_with(|| live.connection());
        assert_eq!(server.request(), ["GET", &key], "the other one has it");
        server.send(b"$-1\r\n");
        assert_eq!(client.line(), "$-1");
    }
}
