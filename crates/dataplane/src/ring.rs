//! From a hash to the shard that owns it: ketama, modula and random as twemproxy builds them.
//!
//! Owns the continuum. The rule it keeps: the same shards, weights and order give the same owners
//! as nutcracker 0.5.0 gives, down to its single-precision arithmetic; a shard is known by its
//! name, so nothing but a change of names or weights moves a key. `snapshot` builds a ring, `route`
//! looks up one hash a key, `moves` compares two rings.

mod moves;

use crate::hash::md5_points;

/// How keys are spread over the shards of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Consistent hashing: about 160 points a shard, made from its name.
    Ketama,
    /// The hash modulo the number of slots, one slot for each unit of weight, in the order of the
    /// shards.
    Modula,
    /// Any shard; hash and weight are ignored.
    Random,
}

impl Distribution {
    /// Every distribution with its name in configuration files.
    pub const ALL: [(&'static str, Self); 3] = [
        ("ketama", Self::Ketama),
        ("modula", Self::Modula),
        ("random", Self::Random),
    ];

    /// The distribution called `name`, or `None`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|&(_, distribution)| distribution)
    }
}

/// A built continuum: immutable, looked up once for each key.
#[derive(Debug, Clone)]
pub struct Ring {
    continuum: Continuum,
    shards: usize,
}

#[derive(Debug, Clone)]
enum Continuum {
    /// `owners[i]` owns the hashes after `points[i - 1]` up to `points[i]`. Two arrays, because the
    /// search reads only the points: 160 of a shard are 640 bytes of cache.
    Ketama {
        points: Box<[u32]>,
        owners: Box<[u32]>,
    },
    /// The owner of each slot.
    Modula(Box<[u32]>),
    Random,
}

/// Points that one MD5 digest gives.
const POINTS_PER_DIGEST: u32 = 4;
/// Points of a shard whose weight is the average.
const POINTS_PER_SHARD: f32 = 160.0;

impl Ring {
    /// Builds the ring of `shards`, pairs of name and weight; lookups answer with an index into
    /// them.
    ///
    /// The order decides modula's slots (and, for ketama, which of two equal points comes first): a
    /// pool read from nutcracker.yml gives its servers as nutcracker sorts them, by name length and
    /// then by bytes. Names above some 260 bytes do not fit into nutcracker's buffer, and its owners
    /// then differ.
    ///
    /// # Panics
    /// If `shards` is empty or all weights are 0: the configuration has refused both before.
    pub fn build(distribution: Distribution, shards: &[(String, u32)]) -> Self {
        assert!(
            shards.iter().any(|&(_, weight)| weight > 0),
            "a ring needs a shard with a weight"
        );
        let continuum = match distribution {
            Distribution::Ketama => ketama(shards),
            Distribution::Modula => Continuum::Modula(modula_slots(shards)),
            Distribution::Random => Continuum::Random,
        };
        Self {
            continuum,
            shards: shards.len(),
        }
    }

    /// The index of the shard that owns `hash`. A random ring has no hashes: the caller passes a
    /// random number in its place.
    pub fn shard(&self, hash: u32) -> usize {
        match &self.continuum {
            Continuum::Ketama { points, owners } => owners[successor(points, hash)] as usize,
            Continuum::Modula(slots) => slots[hash as usize % slots.len()] as usize,
            Continuum::Random => hash as usize % self.shards,
        }
    }

    /// The point of the ring that `hash` falls to, for people who ask why a key is where it is;
    /// only ketama has points.
    pub fn point(&self, hash: u32) -> Option<u32> {
        match &self.continuum {
            Continuum::Ketama { points, .. } => Some(points[successor(points, hash)]),
            Continuum::Modula(_) | Continuum::Random => None,
        }
    }

    /// The exact fraction of the hashes from 0 up to `hashes` that each shard owns, in the order of the
    /// shards.
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^32 hashes are exact in an f64"
    )]
    pub fn shares(&self, hashes: u64) -> Vec<f64> {
        let mut owned = vec![0_u64; self.shards];
        match &self.continuum {
            Continuum::Ketama { points, owners } => {
                let mut from = 0;
                for (&point, &owner) in points.iter().zip(owners) {
                    let up_to = (u64::from(point) + 1).min(hashes);
                    owned[owner as usize] += up_to.saturating_sub(from);
                    from = from.max(up_to);
                }
                // The first point also owns what lies behind the last one.
                owned[owners[0] as usize] += hashes - from;
            }
            Continuum::Modula(slots) => {
                let count = slots.len() as u64;
                for (slot, &owner) in (0..).zip(slots) {
                    owned[owner as usize] += hashes / count + u64::from(slot < hashes % count);
                }
            }
            Continuum::Random => return vec![1.0 / self.shards as f64; self.shards],
        }
        owned.iter().map(|&n| n as f64 / hashes as f64).collect()
    }
}

/// The index of the first point that is not below `hash`, around the end of the ring.
fn successor(points: &[u32], hash: u32) -> usize {
    let at = points.partition_point(|&point| point < hash);
    if at == points.len() { 0 } else { at }
}

fn ketama(shards: &[(String, u32)]) -> Continuum {
    let total = shards.iter().map(|&(_, weight)| u64::from(weight)).sum();
    let mut continuum = Vec::new();
    for (owner, (name, weight)) in shards.iter().enumerate() {
        for digest in 0..digests(*weight, total, shards.len()) {
            let points = md5_points(format!("{name}-{digest}").as_bytes());
            continuum.extend(points.map(|point| (point, owner as u32)));
        }
    }
    // Stable, as glibc's qsort is in nutcracker: of two equal points the earlier shard's stays
    // first.
    continuum.sort_by_key(|&(point, _)| point);
    Continuum::Ketama {
        points: continuum.iter().map(|&(point, _)| point).collect(),
        owners: continuum.iter().map(|&(_, owner)| owner).collect(),
    }
}

/// How many digests a shard has on the ring. The arithmetic is nutcracker's, in single precision
/// and in its order: for equal weights it gives 40, but 39 for 25, 47, 50 and some other numbers of
/// shards.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the rounding is what decides the number of points"
)]
fn digests(weight: u32, total: u64, shards: usize) -> u32 {
    let part = weight as f32 / total as f32;
    let digests = part * POINTS_PER_SHARD / POINTS_PER_DIGEST as f32 * shards as f32;
    ((f64::from(digests) + 1e-10) as f32).floor() as u32
}

fn modula_slots(shards: &[(String, u32)]) -> Box<[u32]> {
    shards
        .iter()
        .enumerate()
        .flat_map(|(owner, &(_, weight))| std::iter::repeat_n(owner as u32, weight as usize))
        .collect()
}
