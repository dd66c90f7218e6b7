//! Which hashes change their shard when one ring takes the place of another.
//!
//! Owns an exact count. The rule it keeps: every hash of the space is counted, or there is no
//! answer: where counting would take long, and for random, where a hash has no owner,
//! [`Ring::moves`] gives `None`. The bindings' `Ring` calls this.
//!
//! Each ring is read as a lap of runs, hashes in a row with one owner; the lap is repeated over the
//! space. Ketama has one lap with an arc for a run, modula a lap of as many hashes as it has slots.
//!
//! ```text
//! outer  |------ a ------|-- b --|------ a ------|-- b --|   the one with the longer runs
//! inner  | x |  y  | x |  y  | x |  y  | x |  y  | x |  y    counted within each run of the outer
//! ```

use super::{Continuum, Ring};

/// How many hashes there are.
const HASHES: u64 = 1 << 32;

/// More runs than this to look at (some seconds) are refused. 1000 shards of ketama against 1000 of
/// modula, the most that a topology can have, need 0.6 of it.
const MOST_STEPS: u64 = 1 << 29;
/// More pairs of an old and a new shard than this (32 MB) are refused.
const MOST_PAIRS: usize = 1 << 22;

impl Ring {
    /// How many of the hashes from 0 up to `hashes` go from which shard to which, as (index here,
    /// index in `new`, how many), those that stay included and pairs without a hash left out. The
    /// numbers add up to `hashes`.
    ///
    /// # Panics
    /// If `hashes` is more than there are, 2^32.
    pub fn moves(&self, new: &Self, hashes: u64) -> Option<Vec<(usize, usize, u64)>> {
        assert!(hashes <= HASHES, "a hash has 32 bits");
        let (old, new) = (Lap::of(self)?, Lap::of(new)?);
        if old.shards.saturating_mul(new.shards) > MOST_PAIRS {
            return None;
        }
        // Two laps of modula are in step again after their common multiple.
        let common = (old.length() / common_divisor(old.length(), new.length()))
            .saturating_mul(new.length())
            .clamp(1, hashes.max(1));
        let parts = [(common, hashes / common), (hashes % common, 1)];
        let steps = |outer: &Lap, inner: &Lap| -> u64 {
            let one = |&(upto, _)| outer.steps_across(inner, upto);
            parts.iter().map(one).fold(0, u64::saturating_add)
        };
        let turned = steps(&new, &old) < steps(&old, &new);
        let (outer, inner) = if turned { (&new, &old) } else { (&old, &new) };
        if steps(outer, inner) > MOST_STEPS {
            return None;
        }
        let mut counts = vec![0; outer.shards * inner.shards];
        for (upto, times) in parts {
            outer.count_across(inner, upto, times, &mut counts);
        }
        let pair = |(at, &count): (usize, &u64)| {
            let (a, b) = (at / inner.shards, at % inner.shards);
            (count > 0).then_some(if turned { (b, a, count) } else { (a, b, count) })
        };
        let mut moves: Vec<_> = counts.iter().enumerate().filter_map(pair).collect();
        moves.sort_unstable();
        Some(moves)
    }
}

/// The owners of as many hashes as it takes until they repeat themselves.
struct Lap {
    /// Where each run ends (the first hash that is no longer in it), and whose it is.
    runs: Vec<(u64, usize)>,
    shards: usize,
}

impl Lap {
    /// `None` if the ring has no owners.
    fn of(ring: &Ring) -> Option<Self> {
        let mut lap = Self {
            runs: Vec::new(),
            shards: ring.shards,
        };
        match &ring.continuum {
            Continuum::Ketama { points, owners } => {
                for (&point, &owner) in points.iter().zip(owners) {
                    lap.extend(u64::from(point) + 1, owner as usize);
                }
                lap.extend(HASHES, owners[0] as usize);
            }
            Continuum::Modula(slots) => {
                for (end, &owner) in (1..).zip(slots) {
                    lap.extend(end, owner as usize);
                }
            }
            Continuum::Random if ring.shards == 1 => lap.extend(1, 0),
            Continuum::Random => return None,
        }
        Some(lap)
    }

    /// Lets `owner` have the hashes up to `end` that nobody has yet: none, for the second of two
    /// equal points.
    fn extend(&mut self, end: u64, owner: usize) {
        match self.runs.last_mut() {
            Some(last) if last.0 == end => {}
            Some(last) if last.1 == owner => last.0 = end,
            _ => self.runs.push((end, owner)),
        }
    }

    fn length(&self) -> u64 {
        self.runs[self.runs.len() - 1].0
    }

    /// At most how many runs there are in so many hashes.
    fn runs_in(&self, hashes: u64) -> u64 {
        let laps = hashes.div_ceil(self.length());
        laps.saturating_mul(self.runs.len() as u64)
    }

    /// At most how many runs `count_across` looks at.
    fn steps_across(&self, inner: &Self, upto: u64) -> u64 {
        let outer = self.runs_in(upto);
        let within = outer
            .saturating_mul(inner.runs.len() as u64)
            .min(inner.runs_in(upto));
        // Within a run there is a part of a lap, and whole laps, which count as one.
        outer.saturating_add(within).saturating_mul(2)
    }

    /// Counts `times` over the hashes below `upto` for each pair of owners, into a row for each
    /// shard of this ring.
    fn count_across(&self, inner: &Self, upto: u64, times: u64, counts: &mut [u64]) {
        let mut lap = 0;
        while lap < upto {
            let mut from = lap;
            for &(end, owner) in &self.runs {
                let to = (lap + end).min(upto);
                let row = &mut counts[owner * inner.shards..][..inner.shards];
                inner.count(from, to, times, row);
                if to == upto {
                    return;
                }
                from = to;
            }
            lap = from;
        }
    }

    /// Counts `times` over the hashes `from..to` for each owner.
    fn count(&self, from: u64, to: u64, times: u64, counts: &mut [u64]) {
        let whole = (to - from) / self.length();
        if whole > 0 {
            let mut start = 0;
            for &(end, owner) in &self.runs {
                counts[owner] += (end - start) * whole * times;
                start = end;
            }
        }
        let mut left = (to - from) % self.length();
        let mut at = from % self.length();
        let first = self.runs.partition_point(|&(end, _)| end <= at);
        for &(end, owner) in self.runs.iter().cycle().skip(first) {
            if left == 0 {
                return;
            }
            let here = (end - at).min(left);
            counts[owner] += here * times;
            left -= here;
            at = if end == self.length() { 0 } else { end };
        }
    }
}

/// Euclid's; neither is 0.
fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}
