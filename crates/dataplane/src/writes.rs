//! Which shards a client has written to, for its next WAIT.
//!
//! A bit for each shard, by its id; shards whose ids are 64 apart share one, and WAIT then asks of one too many.

use std::ops::BitOrAssign;

/// Shards as bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Shards(u64);

impl Shards {
    fn of(shard: usize) -> Self {
        Self(1 << (shard % 64))
    }

    fn has(self, shard: usize) -> bool {
        self.0 & Self::of(shard).0 != 0
    }
}

impl BitOrAssign for Shards {
    fn bitor_assign(&mut self, more: Self) {
        self.0 |= more.0;
    }
}

/// A client's writes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writes {
    /// Since its last WAIT.
    since: Shards,
    /// What that WAIT asked about: the next one asks again if nothing was written since.
    before: Shards,
    /// Of both, those that have had another master since.
    lost: Shards,
}

impl Writes {
    /// The client writes to this shard.
    pub(crate) fn note(&mut self, shard: usize) {
        self.since |= Shards::of(shard);
    }

    /// This shard has another master, which may lack what was written before.
    pub(crate) fn doubt(&mut self, shard: usize) {
        if self.since.has(shard) || self.before.has(shard) {
            self.lost |= Shards::of(shard);
        }
    }

    /// WAIT would have to ask this shard.
    pub(crate) fn concern(&self, shard: usize) -> bool {
        let asked = if self.since == Shards::default() {
            self.before
        } else {
            self.since
        };
        asked.has(shard)
    }

    /// WAIT cannot vouch for what was written to this shard.
    pub(crate) fn is_lost(&self, shard: usize) -> bool {
        self.concern(shard) && self.lost.has(shard)
    }

    /// WAIT has been answered about what was written until now.
    pub(crate) fn told(&mut self) {
        if self.since != Shards::default() {
            self.before = self.since;
        }
        self.since = Shards::default();
    }

    /// The client knows that what it wrote may be lost.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::Writes;

    #[test]
    fn wait_asks_of_what_was_written_since_the_last_one_or_else_of_the_same() {
        let mut writes = Writes::default();
        assert!(!writes.concern(0));
        writes.note(0);
        writes.note(3);
        writes.told();
        assert!([0, 3].iter().all(|&shard| writes.concern(shard)));
        writes.note(1);
        assert!(writes.concern(1) && !writes.concern(0));
    }

    #[test]
    fn a_new_master_may_lack_what_was_written_before() {
        let mut writes = Writes::default();
        writes.doubt(0);
        writes.note(0);
        assert!(!writes.is_lost(0), "that was before");
        writes.doubt(0);
        assert!(writes.is_lost(0));
        writes.note(1);
        assert!(!writes.is_lost(1));
        writes.forget();
        assert!(!writes.concern(0) && !writes.is_lost(0));
    }
}
