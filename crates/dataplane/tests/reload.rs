//! Other pools in place of those that are served: clients, connections and what is in flight stay.

mod scene;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use dataplane::eject::EjectRule;
use dataplane::plane::Plane;
use dataplane::pool::{PoolConfig, Servers};
use dataplane::snapshot::RouteSpec;
use scene::{
    A_WHILE, Master, SOON, Scene, Wire, client_at, fixed, free_port, get, huge, key_of, pool, set,
};

fn reload(plane: &Plane, epoch: u64, configs: Vec<PoolConfig>, masters: &[&Master]) {
    let routes: Vec<RouteSpec> = masters.iter().map(|master| master.route()).collect();
    plane.reload(configs, epoch, &routes).expect("a reload");
}

fn fixed_pool(listen: SocketAddr, shards: &[&str]) -> PoolConfig {
    let mut config = pool("p", listen, shards);
    fixed(&mut config);
    config
}

#[test]
fn a_setting_changes_under_a_client_that_stays() {
    let scene = Scene::new(|_| {});
    let mut server = scene.master();
    let mut client = scene.client();
    client.send(&get("a"));
    assert_eq!(server.request(), ["GET", "a"]);
    let mut config = pool("p", scene.listen, &["a"]);
    config.timeout = Duration::from_millis(150);
    reload(&scene.plane, 2, vec![config], &[&scene.masters[0]]);
    server.send(b"+in flight\r\n");
    assert_eq!(client.line(), "+in flight");
    client.send(&get("b"));
    assert_eq!(server.request(), ["GET", "b"], "on the same connection");
    assert_eq!(
        client.line(),
        "-ERR shard \"a\" did not answer within 150 ms"
    );
    assert_eq!(scene.plane.stats()[0].totals.clients, 1);
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn a_new_shard_takes_its_keys_and_the_old_one_answers_what_it_has() {
    let scene = Scene::new(|_| {});
    let (mut old, new) = (scene.master(), Master::new());
    let mut client = scene.client();
    client.send(&set("k", "1"));
    assert_eq!(old.request(), ["SET", "k", "1"]);
    let config = pool("p", scene.listen, &["b"]);
    reload(&scene.plane, 2, vec![config], &[&new]);
    scene.acked(2);
    let mut other = scene.client();
    other.send(&get("k"));
    let mut next = new.connection();
    assert_eq!(next.request(), ["GET", "k"]);
    old.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
    assert!(old.request().is_empty(), "closed once it is not needed");
}

#[test]
fn what_waits_for_a_shard_that_goes_is_looked_at_again() {
    let scene = Scene::new(|_| {});
    let mut old = scene.master();
    let new = Master::new();
    scene.lease(0);
    let mut client = scene.client();
    client.send(&set("k", "1"));
    scene.wait("the write is held", |shard| shard.totals.held_requests == 1);
    let config = pool("p", scene.listen, &["b"]);
    reload(&scene.plane, 2, vec![config], &[&new]);
    let mut next = new.connection();
    assert_eq!(next.request(), ["SET", "k", "1"]);
    next.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
    assert!(old.request().is_empty());
}

#[test]
fn a_fixed_server_that_moves_answers_what_it_has_and_gets_nothing_new() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&set("k", "1"));
    let mut old = scene.master();
    assert_eq!(old.request(), ["SET", "k", "1"]);
    let (new, config) = (Master::new(), fixed_pool(scene.listen, &["a"]));
    reload(&scene.plane, 2, vec![config], &[&new]);
    scene.acked(2);
    client.send(&get("k"));
    let mut next = new.connection();
    assert_eq!(next.request(), ["GET", "k"]);
    next.send(b"$-1\r\n");
    old.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
    assert_eq!(client.line(), "$-1");
    assert!(old.request().is_empty());
}

#[test]
fn sentinels_may_be_followed_from_now_on_without_a_connection_lost() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&get("k"));
    let mut server = scene.master();
    assert_eq!(server.request(), ["GET", "k"]);
    let config = pool("p", scene.listen, &["a"]);
    reload(&scene.plane, 2, vec![config], &[&scene.masters[0]]);
    scene.acked(2);
    server.send(b"$-1\r\n");
    assert_eq!(client.line(), "$-1");
    client.send(&get("k"));
    assert_eq!(server.request(), ["GET", "k"]);
}

#[test]
fn a_pool_listens_elsewhere_and_its_clients_stay() {
    let scene = Scene::new(|_| {});
    let mut server = scene.master();
    let mut client = scene.client();
    client.send(b"*1\r\n$4\r\nPING\r\n");
    assert_eq!(client.line(), "+PONG");
    let elsewhere = free_port();
    let config = pool("p", elsewhere, &["a"]);
    reload(&scene.plane, 2, vec![config], &[&scene.masters[0]]);
    let mut newcomer = client_at(elsewhere);
    for client in [&mut client, &mut newcomer] {
        client.send(&get("k"));
        assert_eq!(server.request(), ["GET", "k"]);
        server.send(b"$-1\r\n");
        assert_eq!(client.line(), "$-1");
    }
    scene.acked(2);
    assert!(std::net::TcpStream::connect(scene.listen).is_err());
}

#[test]
fn a_pool_that_goes_finishes_what_its_clients_have_asked() {
    let scene = Scene::new(|_| {});
    let mut server = scene.master();
    let mut client = scene.client();
    client.send(&get("k"));
    assert_eq!(server.request(), ["GET", "k"]);
    let other = free_port();
    let config = pool("q", other, &["a"]);
    reload(&scene.plane, 2, vec![config], &[&scene.masters[0]]);
    scene.acked(2);
    server.send(b"$-1\r\n");
    assert_eq!(client.line(), "$-1");
    assert_eq!(client.line(), "", "closed");
    client_at(other).send(&get("k"));
    let mut server = scene.master();
    assert_eq!(server.request(), ["GET", "k"]);
}

#[test]
fn a_reload_that_cannot_listen_changes_nothing() {
    let scene = Scene::new(|_| {});
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = taken.local_addr().expect("its address");
    let configs = vec![pool("p", scene.listen, &["a"]), pool("q", listen, &["a"])];
    let routes = [scene.masters[0].route(), scene.masters[0].route()];
    let refused = scene.plane.reload(configs, 2, &routes);
    assert!(refused.is_err_and(|error| error.to_string() == format!("{listen} is in use")));
    let mut server = scene.master();
    let mut client = scene.client();
    client.send(&get("k"));
    assert_eq!(server.request(), ["GET", "k"]);
    assert_eq!(scene.plane.stats().len(), 1);
}

#[test]
fn a_pool_that_comes_back_has_its_counters() {
    let scene = Scene::new(|_| {});
    let mut client = scene.client();
    client.send(b"*1\r\n$4\r\nPING\r\n");
    assert_eq!(client.line(), "+PONG");
    let other = pool("q", free_port(), &["a"]);
    reload(&scene.plane, 2, vec![other.clone()], &[&scene.masters[0]]);
    assert_eq!(client.line(), "", "closed");
    let again = vec![pool("p", scene.listen, &["a"]), other];
    reload(&scene.plane, 3, again, &[&scene.masters[0]; 2]);
    scene.acked(3);
    let stats = scene.plane.stats();
    assert_eq!(stats[0].name, "p");
    assert_eq!((stats[0].totals.accepted, stats[0].totals.clients), (1, 0));
    assert!(scene.plane.stop(SOON));
}

#[test]
fn what_has_not_left_for_the_old_server_goes_to_the_new_one() {
    let scene = Scene::new(fixed);
    let (mut first, mut second) = (scene.client(), scene.client());
    first.send(&set("k", &huge()));
    let mut old = scene.master();
    old.begins();
    second.send(&set("q", "1"));
    scene.wait("both are queued", |shard| shard.totals.queued == 2);
    let new = Master::new();
    let config = pool("p", scene.listen, &["a"]);
    reload(&scene.plane, 2, vec![config], &[&new]);
    scene.acked(2);
    let (bytes, ended) = old.drain();
    assert!(
        bytes < 24 << 20 && ended,
        "the half of a write, and no more"
    );
    let mut next = new.connection();
    let mut keys: Vec<String> = (0..2).map(|_| next.request().swap_remove(1)).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["k", "q"]);
    next.send(b"+OK\r\n+OK\r\n");
    assert_eq!((first.line(), second.line()), ("+OK".into(), "+OK".into()));
}

#[test]
fn half_a_write_is_cut_off_once_what_went_before_it_is_answered() {
    let scene = Scene::new(fixed);
    let (mut first, mut second) = (scene.client(), scene.client());
    first.send(&get("k"));
    let mut old = scene.master();
    assert_eq!(old.request(), ["GET", "k"]);
    second.send(&set("k", &huge()));
    old.begins();
    let (new, config) = (Master::new(), fixed_pool(scene.listen, &["a"]));
    reload(&scene.plane, 2, vec![config], &[&new]);
    scene.acked(2);
    let (bytes, ended) = old.drain();
    assert!(
        bytes < 24 << 20 && !ended,
        "it waits for a reply, and sends no more"
    );
    old.send(b"$-1\r\n");
    assert_eq!(first.line(), "$-1");
    assert_eq!(old.drain(), (0, true));
    let mut next = new.connection();
    assert_eq!(next.request()[1], "k");
    next.send(b"+OK\r\n");
    assert_eq!(second.line(), "+OK");
}

#[test]
fn what_waited_for_a_shard_that_goes_finds_the_others_where_they_are_now() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let (mut old, new) = (scene.masters[1].connection(), Master::new());
    scene.lease(0);
    let key = key_of(&["a", "b"], 0);
    let mut client = scene.client();
    client.send(&set(&key, "1"));
    scene.wait("the write is held", |shard| shard.totals.held_requests == 1);
    let config = fixed_pool(scene.listen, &["b"]);
    reload(&scene.plane, 2, vec![config], &[&new]);
    let mut next = new.connection();
    assert_eq!(next.request(), ["SET", &key, "1"]);
    assert!(old.request().is_empty(), "nothing comes but the end");
}

#[test]
fn what_the_old_server_refuses_goes_to_the_new_one_on_the_connection_there_is() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&set("k", "1"));
    let mut old = scene.master();
    assert_eq!(old.request(), ["SET", "k", "1"]);
    let (new, config) = (Master::new(), pool("p", scene.listen, &["a"]));
    reload(&scene.plane, 2, vec![config], &[&new]);
    let mut next = new.connection();
    let mut other = scene.client();
    other.send(&get("x"));
    assert_eq!(next.request(), ["GET", "x"]);
    old.send(b"-READONLY You can't write against a read only replica.\r\n");
    assert_eq!(next.request(), ["SET", "k", "1"]);
    next.send(b"$-1\r\n+OK\r\n");
    assert_eq!(other.line(), "$-1");
    assert_eq!(client.line(), "+OK");
    assert!(new.is_left_alone(), "one connection is enough");
    assert!(old.request().is_empty(), "closed once it is not needed");
}

/// A client to whom half of a long reply has been passed on, the server that has the other half, and that.
fn half_a_reply(scene: &Scene) -> (Wire, Wire, String) {
    let mut client = scene.client();
    client.send(&get("k"));
    let mut server = scene.master();
    assert_eq!(server.request(), ["GET", "k"]);
    let half = "y".repeat(50_000);
    server.send(format!("$100000\r\n{half}").as_bytes());
    client.begins();
    (client, server, format!("{half}\r\n"))
}

#[test]
fn a_connection_whose_last_reply_is_long_closes_with_it() {
    let scene = Scene::new(fixed);
    let (mut client, mut old, rest) = half_a_reply(&scene);
    let (new, config) = (Master::new(), fixed_pool(scene.listen, &["a"]));
    reload(&scene.plane, 2, vec![config], &[&new]);
    scene.acked(2);
    old.send(rest.as_bytes());
    assert_eq!(client.line(), "$100000");
    assert_eq!(client.line().len(), 100_000);
    assert!(old.request().is_empty());
}

#[test]
fn the_loss_of_an_old_connection_is_no_failure_of_the_new_server() {
    let ejecting = |mut config: PoolConfig| {
        let rule = EjectRule {
            failures: 1,
            retry: SOON,
        };
        config.servers = Servers::Fixed {
            preconnect: false,
            eject: Some(rule),
        };
        config
    };
    let scene = Scene::new(|config| *config = ejecting(config.clone()));
    let mut client = scene.client();
    client.send(&set("k", "1"));
    let mut old = scene.master();
    assert_eq!(old.request(), ["SET", "k", "1"]);
    let (new, config) = (Master::new(), ejecting(pool("p", scene.listen, &["a"])));
    reload(&scene.plane, 2, vec![config], &[&new]);
    scene.acked(2);
    old.to.shutdown(Shutdown::Both).expect("an open socket");
    assert!(client.line().starts_with("-INDOUBT"));
    let stats = &scene.plane.stats()[0];
    assert_eq!((stats.ejections, &*stats.shards[0].last_error), (0, ""));
    client.send(&get("k"));
    assert_eq!(new.connection().request(), ["GET", "k"]);
}

/// Keeps the only worker busy for a while, with one request.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing shows that it has begun; if it has not, less is tested"
)]
fn occupy(client: &mut Wire) {
    let keys = 150_000;
    let mut frame = format!("*{}\r\n$4\r\nMGET\r\n", keys + 1).into_bytes();
    for key in 100_000..100_000 + keys {
        frame.extend_from_slice(format!("$6\r\n{key}\r\n").as_bytes());
    }
    client.send(&frame);
    thread::sleep(A_WHILE / 5);
}

#[test]
fn all_who_have_connected_to_a_listener_are_taken_before_it_closes() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let mut busy = scene.client();
    occupy(&mut busy);
    let mut queued: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(scene.listen).expect("the proxy listens"))
        .collect();
    let config = pool("p", free_port(), &["a", "b"]);
    let masters = [&scene.masters[0], &scene.masters[1]];
    reload(&scene.plane, 2, vec![config], &masters);
    scene.acked(2);
    for client in &mut queued {
        client.set_read_timeout(Some(SOON)).expect("a timeout");
        client.write_all(b"*1\r\n$4\r\nPING\r\n").expect("open");
        client.read_exact(&mut [0; 7]).expect("a reply");
    }
}

#[test]
fn a_pool_that_came_and_went_while_a_worker_was_busy_does_not_listen() {
    let scene = Scene::over(&["a", "b"], |_| {});
    let (mut client, other) = (scene.client(), free_port());
    occupy(&mut client);
    let stays = || pool("p", scene.listen, &["a", "b"]);
    let [a, b] = &scene.masters[..] else {
        unreachable!()
    };
    let comes = vec![stays(), pool("q", other, &["a"])];
    reload(&scene.plane, 2, comes, &[a, b, a]);
    reload(&scene.plane, 3, vec![stays()], &[a, b]);
    scene.acked(3);
    assert!(TcpStream::connect(other).is_err());
}

#[test]
fn a_removed_server_that_closes_is_not_connected_again() {
    let scene = Scene::new(fixed);
    let mut client = scene.client();
    client.send(&get("k"));
    let mut old = scene.master();
    assert_eq!(old.request(), ["GET", "k"]);
    let (new, config) = (Master::new(), fixed_pool(scene.listen, &["b"]));
    reload(&scene.plane, 2, vec![config], &[&new]);
    scene.acked(2);
    old.to.shutdown(Shutdown::Both).expect("an open socket");
    let removed = "-ERR shard \"a\" was removed before it took the request";
    assert_eq!(client.line(), removed);
    assert!(scene.masters[0].is_left_alone());
}

#[test]
fn what_a_removed_master_refuses_is_answered_at_once() {
    let scene = Scene::new(|config| config.hold_timeout = A_WHILE);
    let mut client = scene.client();
    client.send(&set("k", "1"));
    let mut old = scene.master();
    assert_eq!(old.request(), ["SET", "k", "1"]);
    let (new, config) = (Master::new(), pool("p", scene.listen, &["b"]));
    reload(&scene.plane, 2, vec![config], &[&new]);
    scene.acked(2);
    old.send(b"-READONLY You can't write against a read only replica.\r\n");
    let removed = "-ERR shard \"a\" was removed before it took the request";
    assert_eq!(client.line(), removed);
}

#[test]
fn what_waits_for_a_shard_that_stays_goes_to_the_one_that_has_its_key_now() {
    let scene = Scene::over(&["a", "b"], |config| config.hold_timeout = SOON * 4);
    scene.lease(0);
    let key = key_of(&["a", "b"], 0);
    let mut client = scene.client();
    client.send(&set(&key, "1"));
    scene.wait("the write is held", |shard| shard.totals.held_requests == 1);
    let mut config = pool("p", scene.listen, &["a", "b"]);
    config.hold_timeout = SOON * 4;
    config.shards[0].1 = 0;
    let mut routes: Vec<RouteSpec> = scene.masters.iter().map(Master::route).collect();
    routes[0].lease_until = 0;
    scene.plane.reload(vec![config], 2, &routes).expect("valid");
    let mut server = scene.masters[1].connection();
    assert_eq!(server.request(), ["SET", &key, "1"]);
}
