//! Rings: the known points, the shares, and what every ring has to keep. Owners as nutcracker gives
//! them are in `recorded_rings.rs`.

use dataplane::hash::HashKind;
use dataplane::ring::{Distribution, Ring};
use proptest::prelude::*;

fn named(prefix: &str, weights: &[u32]) -> Vec<(String, u32)> {
    let name = |i: usize| format!("{prefix}{}", i + 1);
    (0..)
        .zip(weights)
        .map(|(i, &weight)| (name(i), weight))
        .collect()
}

#[test]
fn ketama_has_the_known_points() {
    let ring = Ring::build(Distribution::Ketama, &named("server", &[1; 4]));
    let points = [
        (0x0095_7bcf, 2),
        (0x00a3_1052, 1),
        (0x0194_4b4e, 0),
        (0x0274_1a8d, 3),
        (0xffc1_2355, 3),
    ];
    for (point, owner) in points {
        assert_eq!(ring.point(point), Some(point));
        assert_eq!(ring.shard(point), owner, "{point:#x}");
    }
    // Between two points the next one owns, behind the last one the first.
    assert_eq!(ring.shard(0), 2);
    assert_eq!(ring.shard(0x0095_7bd0), 1);
    assert_eq!(
        (ring.shard(0xffc1_2356), ring.point(u32::MAX)),
        (2, Some(0x0095_7bcf))
    );

    let keys = ["a", "foo", "hello", "user:1000", "key:000000000001"];
    let owners = keys.map(|key| ring.shard(HashKind::Fnv1a64.hash(key.as_bytes())));
    assert_eq!(owners, [2, 0, 3, 0, 2]);
}

#[test]
fn equal_weights_give_160_points_or_156_where_single_precision_rounds_down() {
    for (shards, each) in [
        (1, 160),
        (4, 160),
        (24, 160),
        (25, 156),
        (26, 160),
        (47, 156),
        (50, 156),
        (107, 156),
    ] {
        let ring = Ring::build(Distribution::Ketama, &named("s", &vec![1; shards]));
        assert_eq!(points(&ring), shards * each, "{shards} shards");
    }
}

/// How many points a ring has: each is the successor of the one before it.
fn points(ring: &Ring) -> usize {
    let first = ring.point(0).expect("ketama");
    let mut point = first;
    let mut count = 1;
    while let Some(next) = point.checked_add(1).and_then(|hash| ring.point(hash)) {
        if next == first {
            break;
        }
        point = next;
        count += 1;
    }
    count
}

#[test]
fn modula_gives_each_shard_a_slot_for_each_unit_of_weight() {
    let ring = Ring::build(Distribution::Modula, &named("s", &[1, 3, 2]));
    let owners: Vec<usize> = (0..7).map(|hash| ring.shard(hash)).collect();
    assert_eq!(owners, [0, 1, 1, 1, 2, 2, 0]);
    assert_eq!(ring.point(0), None);
    // 2^32 = 6 * 715827882 + 4: the first four slots have one hash more.
    let hashes = [715_827_883.0, 3.0 * 715_827_883.0, 2.0 * 715_827_882.0];
    let expected = hashes.map(|hashes: f64| hashes / 4_294_967_296.0);
    assert_eq!(ring.shares(1 << 32), expected);
}

#[test]
fn random_takes_a_number_instead_of_a_hash_and_ignores_weights() {
    let ring = Ring::build(Distribution::Random, &named("s", &[9, 1, 1]));
    assert_eq!([0, 1, 2, 3].map(|number| ring.shard(number)), [0, 1, 2, 0]);
    assert_eq!(ring.shares(1 << 32), [1.0 / 3.0; 3]);
}

#[test]
fn one_shard_owns_everything() {
    for (name, distribution) in Distribution::ALL {
        let ring = Ring::build(distribution, &named("only", &[7]));
        assert_eq!(
            [0, 1, u32::MAX].map(|hash| ring.shard(hash)),
            [0; 3],
            "{name}"
        );
        assert_eq!(ring.shares(1 << 32), [1.0], "{name}");
    }
}

#[test]
fn names_lead_to_distributions() {
    for (name, distribution) in Distribution::ALL {
        assert_eq!(Distribution::from_name(name), Some(distribution));
    }
    assert_eq!(Distribution::from_name("Ketama"), None);
}

fn shards() -> impl Strategy<Value = Vec<(String, u32)>> {
    prop::collection::vec(1_u32..50, 1..12).prop_map(|weights| named("shard", &weights))
}

proptest! {
    #[test]
    fn shares_are_what_lookups_find(shards in shards(), hashes in prop::collection::vec(any::<u32>(), 2000)) {
        for (name, distribution) in Distribution::ALL {
            let ring = Ring::build(distribution, &shards);
            let shares = ring.shares(1 << 32);
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{}", name);
            let mut found = vec![0_u16; shards.len()];
            for &hash in &hashes {
                found[ring.shard(hash)] += 1;
            }
            for (share, found) in shares.iter().zip(&found) {
                let found = f64::from(*found) / 2000.0;
                prop_assert!((share - found).abs() < 0.1, "{}: {:?} {}", name, shares, found);
            }
        }
    }

    /// What consistent hashing is for, and why names and not endpoints are hashed.
    #[test]
    fn the_order_of_shards_moves_no_key_of_a_ketama_ring(shards in shards(), hashes: Vec<u32>) {
        let mut turned = shards.clone();
        turned.rotate_left(shards.len() / 2);
        let (ring, other) = (
            Ring::build(Distribution::Ketama, &shards),
            Ring::build(Distribution::Ketama, &turned),
        );
        for hash in hashes {
            prop_assert_eq!(&shards[ring.shard(hash)].0, &turned[other.shard(hash)].0);
        }
    }

    #[test]
    fn a_shard_added_to_a_ketama_ring_takes_keys_and_moves_no_other(count in 1_usize..10, hashes: Vec<u32>) {
        let before = Ring::build(Distribution::Ketama, &named("shard", &vec![1; count]));
        let after = Ring::build(Distribution::Ketama, &named("shard", &vec![1; count + 1]));
        for hash in hashes {
            let owner = after.shard(hash);
            prop_assert!(owner == before.shard(hash) || owner == count);
        }
    }
}

#[test]
fn of_a_hash_with_fifteen_bits_the_first_points_own_all() {
    let ring = Ring::build(Distribution::Ketama, &named("s", &[1; 3]));
    let space = HashKind::Crc32.space().expect("its hashes are counted");
    let mut owned = [0.0; 3];
    for hash in 0..space as u32 {
        owned[ring.shard(hash)] += 1.0 / f64::from(space as u32);
    }
    for (share, owned) in ring.shares(space).iter().zip(owned) {
        assert!((share - owned).abs() < 1e-9, "{share} {owned}");
    }
}
