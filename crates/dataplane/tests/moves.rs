//! What a change of the ring moves: exact counts, against lookups hash by hash.

use std::collections::HashMap;

use dataplane::hash::HashKind;
use dataplane::ring::{Distribution, Ring};
use proptest::prelude::*;

const ALL: u64 = 1 << 32;
const OWNED: [Distribution; 2] = [Distribution::Ketama, Distribution::Modula];

fn named(prefix: &str, weights: &[u32]) -> Vec<(String, u32)> {
    (1..)
        .zip(weights)
        .map(|(i, &weight)| (format!("{prefix}{i}"), weight))
        .collect()
}

fn ring(distribution: Distribution, weights: &[u32]) -> Ring {
    Ring::build(distribution, &named("shard", weights))
}

fn moved(moves: &[(usize, usize, u64)]) -> u64 {
    moves
        .iter()
        .filter(|(from, to, _)| from != to)
        .map(|&(_, _, hashes)| hashes)
        .sum()
}

/// What a lookup of each hash gives.
fn one_by_one(old: &Ring, new: &Ring, hashes: u32) -> Vec<(usize, usize, u64)> {
    let mut counts = HashMap::new();
    for hash in 0..hashes {
        *counts
            .entry((old.shard(hash), new.shard(hash)))
            .or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts.iter().map(|(&(a, b), &n)| (a, b, n)).collect();
    counts.sort_unstable();
    counts
}

#[test]
fn a_slot_more_moves_all_of_modula_but_what_has_one_remainder_for_both() {
    // 2^32 = 6 * 715827882 + 4. Of six hashes in a row, 0 and 1 leave the same rest by 2 and by 3;
    // the four hashes at the end are 0, 1, 2 and 3 of the next six.
    let (two, three) = (
        ring(Distribution::Modula, &[1, 1]),
        ring(Distribution::Modula, &[1, 1, 1]),
    );
    let six = 715_827_882;
    let expected = [
        (0, 0, six + 1),
        (0, 1, six),
        (0, 2, six + 1),
        (1, 0, six + 1),
        (1, 1, six + 1),
        (1, 2, six),
    ];
    assert_eq!(two.moves(&three, ALL).as_deref(), Some(&expected[..]));
}

#[test]
fn a_shard_added_to_ketama_takes_its_share_and_nothing_else_moves() {
    let (old, new) = (
        ring(Distribution::Ketama, &[1; 2]),
        ring(Distribution::Ketama, &[1; 3]),
    );
    let moves = old.moves(&new, ALL).expect("an answer");
    assert!(moves.iter().all(|&(from, to, _)| from == to || to == 2));
    let shares = new.shares(1 << 32);
    #[expect(clippy::cast_precision_loss, reason = "2^32 is exact in an f64")]
    let gained = moved(&moves) as f64 / ALL as f64;
    assert!((gained - shares[2]).abs() < f64::EPSILON);
}

#[test]
fn random_has_no_owners_unless_there_is_one_shard() {
    let random = ring(Distribution::Random, &[1; 2]);
    let ketama = ring(Distribution::Ketama, &[1; 2]);
    assert_eq!(random.moves(&ketama, ALL), None);
    assert_eq!(ketama.moves(&random, ALL), None);
    let only = ring(Distribution::Random, &[1]);
    assert_eq!(only.moves(&only, ALL), Some(vec![(0, 0, ALL)]));
    let moves = only.moves(&ketama, ALL).expect("an answer");
    assert_eq!(moves.iter().map(|&(_, _, n)| n).sum::<u64>(), ALL);
}

#[test]
fn a_hash_says_how_many_values_it_has() {
    assert_eq!(HashKind::Fnv1a64.space(), Some(ALL));
    assert_eq!(HashKind::Crc32.space(), Some(0x8000));
    assert_eq!(HashKind::Crc16.space(), None);
    for (name, kind) in HashKind::ALL {
        let largest = (0..20_000)
            .map(|n| kind.hash(format!("key:{n}").as_bytes()))
            .max();
        let space = kind.space().unwrap_or(ALL);
        // The largest of 20000 lies in the last hundredth, all but surely.
        let range = space - space / 100..space;
        assert!(
            range.contains(&u64::from(largest.expect("hashes"))),
            "{name}"
        );
    }
}

#[test]
fn rings_of_a_thousand_shards_are_counted_in_moments() {
    let ketama = ring(Distribution::Ketama, &[1; 1000]);
    let modula = ring(Distribution::Modula, &[1; 1000]);
    for (old, new) in [(&ketama, &ketama), (&ketama, &modula), (&modula, &modula)] {
        let moves = old.moves(new, ALL).expect("an answer");
        assert_eq!(moves.iter().map(|&(_, _, n)| n).sum::<u64>(), ALL);
    }
}

/// The bound is on the work, not on the time, so that the answer is the same on every machine.
#[test]
fn what_would_take_long_is_refused() {
    let (mut light, mut heavy) = (vec![4; 1000], vec![1000; 1000]);
    (light[0], heavy[0]) = (5, 999); // without a common divisor: not in step within 2^32 hashes
    let (light, heavy) = (
        ring(Distribution::Modula, &light),
        ring(Distribution::Modula, &heavy),
    );
    assert_eq!(light.moves(&heavy, ALL), None);
    assert_eq!(heavy.moves(&light, ALL), None);
    let many = ring(Distribution::Modula, &[1; 3000]);
    assert_eq!(many.moves(&many, ALL), None);
}

fn any_ring() -> impl Strategy<Value = Ring> {
    let weights = prop_oneof![
        prop::collection::vec(1_u32..4, 1..12),
        prop::collection::vec(1_u32..300, 1..6)
    ];
    (prop::sample::select(&OWNED[..]), weights)
        .prop_map(|(distribution, weights)| ring(distribution, &weights))
}

proptest! {
    #[test]
    fn the_counts_are_what_lookups_find(old in any_ring(), new in any_ring(), hashes in 1_u32..40_000) {
        prop_assert_eq!(old.moves(&new, u64::from(hashes)), Some(one_by_one(&old, &new, hashes)));
    }

    #[test]
    fn sampled_hashes_move_as_often_as_the_counts_say(
        old in any_ring(), new in any_ring(), sample in prop::collection::vec(any::<u32>(), 4000)
    ) {
        let moves = old.moves(&new, ALL).expect("small rings");
        let found = sample.iter().filter(|&&hash| old.shard(hash) != new.shard(hash)).count();
        #[expect(clippy::cast_precision_loss, reason = "2^32 is exact in an f64")]
        let (found, share) = (found as f64 / 4000.0, moved(&moves) as f64 / ALL as f64);
        prop_assert!((found - share).abs() < 0.05, "{} {}", found, share);
        for hash in sample {
            let pair = (old.shard(hash), new.shard(hash));
            prop_assert!(moves.iter().any(|&(from, to, _)| (from, to) == pair));
        }
    }

    #[test]
    fn every_hash_is_counted_once_and_the_way_back_is_the_same(old in any_ring(), new in any_ring()) {
        let there = old.moves(&new, ALL).expect("small rings");
        prop_assert_eq!(there.iter().map(|&(_, _, n)| n).sum::<u64>(), ALL);
        let mut back: Vec<_> = new.moves(&old, ALL).expect("small rings");
        for (from, to, _) in &mut back {
            std::mem::swap(from, to);
        }
        back.sort_unstable();
        prop_assert_eq!(there, back);
    }

    #[test]
    fn a_ring_moves_nothing_to_itself_and_has_its_shares(ring in any_ring()) {
        let moves = ring.moves(&ring, ALL).expect("small rings");
        prop_assert_eq!(moved(&moves), 0);
        for (shard, share) in ring.shares(1 << 32).into_iter().enumerate() {
            let owned: u64 = moves.iter().filter(|&&(from, ..)| from == shard).map(|&(_, _, n)| n).sum();
            #[expect(clippy::cast_precision_loss, reason = "2^32 is exact in an f64")]
            let owned = owned as f64 / ALL as f64;
            prop_assert!((owned - share).abs() < f64::EPSILON);
        }
    }
}
