//! Other pools in place of those that are served: clients, connections and what is in flight stay.

mod scene;

use std::time::Duration;

use dataplane::plane::Plane;
use dataplane::pool::{PoolConfig, Servers};
use dataplane::snapshot::RouteSpec;
use scene::{Master, SOON, Scene, client_at, free_port, get, pool, set};

fn reload(plane: &Plane, epoch: u64, configs: Vec<PoolConfig>, masters: &[&Master]) {
    let routes: Vec<RouteSpec> = masters.iter().map(|master| master.route()).collect();
    plane.reload(configs, epoch, &routes).expect("a reload");
}

fn fixed(mut config: PoolConfig) -> PoolConfig {
    config.servers = Servers::Fixed {
        preconnect: false,
        eject: None,
    };
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
    let scene = Scene::new(|config| *config = fixed(config.clone()));
    let mut client = scene.client();
    client.send(&set("k", "1"));
    let mut old = scene.master();
    assert_eq!(old.request(), ["SET", "k", "1"]);
    let (new, config) = (Master::new(), fixed(pool("p", scene.listen, &["a"])));
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
    let scene = Scene::new(|config| *config = fixed(config.clone()));
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
