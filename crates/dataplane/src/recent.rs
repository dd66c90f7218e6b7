//! What a client has written lately, shard by shard: until every replica in use has it, the client reads at the master.
//!
//! A replica that is read from has what was acknowledged `max_lag` ago, so a client that waits for that since its own
//! last write to the shard was answered finds it. Kept only for clients of pools that read from replicas.

use crate::inflight::Slots;
use crate::snapshot::Nanos;

#[derive(Clone, Copy, Debug)]
struct Write {
    shard: usize,
    /// The place of its answer among the client's.
    sequence: u32,
    answered: Option<Nanos>,
}

/// The last write to each shard.
#[derive(Default, Debug)]
pub(crate) struct Recent {
    writes: Vec<Write>,
    /// Some are unanswered.
    open: bool,
}

impl Recent {
    /// A write to this shard has got its place.
    pub(crate) fn note(&mut self, shard: usize, sequence: u32) {
        self.open = true;
        let write = Write {
            shard,
            sequence,
            answered: None,
        };
        match self.writes.iter_mut().find(|it| it.shard == shard) {
            Some(known) => *known = write,
            None => self.writes.push(write),
        }
    }

    /// Something was answered: notes for the writes among it that it is so since `now`.
    pub(crate) fn settle(&mut self, slots: &Slots, now: impl FnOnce() -> Nanos) {
        if !self.open || !self.writes.iter().any(|write| write.is_due(slots)) {
            return;
        }
        let now = now();
        for write in self.writes.iter_mut().filter(|write| write.is_due(slots)) {
            write.answered = Some(now);
        }
        self.open = self.writes.iter().any(|write| write.answered.is_none());
    }

    /// Every replica has what the client wrote to this shard, if replicas have what was answered `max_lag` ago.
    pub(crate) fn is_everywhere(&mut self, shard: usize, now: Nanos, max_lag: Nanos) -> bool {
        let Some(at) = self.writes.iter().position(|write| write.shard == shard) else {
            return true;
        };
        let answered = self.writes[at].answered;
        let long_ago = answered.is_some_and(|at| now.saturating_sub(at) >= max_lag);
        if long_ago {
            self.writes.swap_remove(at);
        }
        long_ago
    }
}

impl Write {
    fn is_due(&self, slots: &Slots) -> bool {
        self.answered.is_none() && slots.is_past(self.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::{Recent, Slots};
    use crate::inflight::Slot;

    #[test]
    fn a_write_counts_from_its_answer() {
        let (mut recent, mut slots) = (Recent::default(), Slots::default());
        let sequence = slots.push(Slot::Waiting);
        recent.note(3, sequence);
        assert!(recent.is_everywhere(4, 50, 100), "that is another shard");
        assert!(!recent.is_everywhere(3, u64::MAX, 100), "it is unanswered");
        recent.settle(&slots, || unreachable!("nothing was answered"));
        slots.pop_head();
        recent.settle(&slots, || 50);
        assert!(!recent.is_everywhere(3, 149, 100));
        assert!(recent.is_everywhere(3, 150, 100));
    }

    #[test]
    fn the_last_of_several_writes_decides() {
        let (mut recent, mut slots) = (Recent::default(), Slots::default());
        for now in [10, 20] {
            let sequence = slots.push(Slot::Waiting);
            recent.note(3, sequence);
            slots.pop_head();
            recent.settle(&slots, || now);
        }
        assert!(!recent.is_everywhere(3, 119, 100));
        assert!(recent.is_everywhere(3, 120, 100));
    }
}
