//! When no write can reach a master any more: its lease has ended, every worker knows, and all are answered.

mod scene;

use dataplane::snapshot::RouteSpec;
use scene::{Scene, get, set};

/// Ends the lease of the shard with a newer snapshot, and waits until every worker has shown how it stands.
fn end_the_lease(scene: &Scene) {
    let route = RouteSpec {
        lease_until: 0,
        ..scene.masters[0].route()
    };
    scene.plane.apply(2, &[route]).expect("a newer snapshot");
    scene.acked(2);
}

fn writing(scene: &Scene) -> u64 {
    scene.plane.stats()[0].shards[0].totals.writing
}

#[test]
fn whoever_has_a_lease_may_be_writing() {
    let scene = Scene::new(|_| {});
    let _master = scene.master();
    scene.wait("it may write", |shard| shard.totals.writing == 1);
}

#[test]
fn a_write_that_is_out_counts_until_it_is_answered() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let (mut client, mut other) = (scene.client(), scene.client());
    client.send(&set("k", "v"));
    assert_eq!(master.request(), ["SET", "k", "v"]);
    end_the_lease(&scene);
    assert_eq!(writing(&scene), 1, "nobody knows yet what becomes of it");
    other.send(&[set("k", "w"), get("k")].concat());
    master.says_nothing();
    master.send(b"+OK\r\n");
    assert_eq!(client.line(), "+OK");
    scene.wait("none is out", |shard| shard.totals.writing == 0);
}

#[test]
fn reads_and_what_blocks_do_not_count() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let (mut client, mut worker) = (scene.client(), scene.client());
    worker.send(b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n");
    let mut own = scene.asked_master("master");
    assert_eq!(own.request(), ["BLPOP", "q", "0"]);
    client.send(&get("k"));
    assert_eq!(master.request(), ["GET", "k"]);
    end_the_lease(&scene);
    assert_eq!(writing(&scene), 0);
}
