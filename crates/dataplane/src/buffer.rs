//! Byte queues: what has arrived but is not parsed, and what is to be sent.
//!
//! A queue appends at the end and is consumed from the front without moving bytes; the space in
//! front is reclaimed when the queue runs empty or when it outweighs what is left. An empty queue
//! holds no memory worth speaking of, so that ten thousand idle clients cost little.

use std::ops::Range;

/// Space in front of the unread bytes that is worth a move.
const RECLAIM: usize = 64 * 1024;
/// Capacity that an empty queue may keep.
const KEEP: usize = 4 * 1024;

/// A queue of bytes.
#[derive(Default)]
pub(crate) struct ByteQueue {
    bytes: Vec<u8>,
    start: usize,
}

impl ByteQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Drops `count` bytes from the front.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.bytes.len());
        if self.start == self.bytes.len() {
            self.clear();
        } else if self.start >= RECLAIM && self.start * 2 >= self.bytes.len() {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(self.bytes.len() - self.start);
            self.start = 0;
        }
    }

    /// Keeps the first `count` bytes and drops what is behind them.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.bytes.truncate(self.start + count);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Bytes that it could take without another allocation.
    pub(crate) fn spare_len(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Takes these bytes out of the midst.
    pub(crate) fn remove(&mut self, range: Range<usize>) {
        self.bytes
            .drain(self.start + range.start..self.start + range.end);
        if self.is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.start = 0;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// The vector behind the queue, for a read straight into its spare capacity of at least
    /// `spare` bytes.
    pub(crate) fn spare(&mut self, spare: usize) -> &mut Vec<u8> {
        if self.start > 0 && self.bytes.capacity() - self.bytes.len() < spare {
            self.bytes.copy_within(self.start.., 0);
            self.bytes.truncate(self.bytes.len() - self.start);
            self.start = 0;
        }
        self.bytes.reserve(spare);
        &mut self.bytes
    }
}

/// Scratch space that was used, as it may be kept for the next use: one huge request is no reason to keep as much
/// for ever.
pub(crate) fn reusable<T>(scratch: Vec<T>) -> Vec<T> {
    if scratch.capacity() > KEEP {
        Vec::new()
    } else {
        scratch
    }
}

#[cfg(test)]
mod tests {
    use super::{ByteQueue, reusable};

    #[test]
    fn scratch_space_is_kept_unless_it_is_huge() {
        assert_eq!(reusable(Vec::<u64>::with_capacity(100)).capacity(), 100);
        assert_eq!(reusable(Vec::<u64>::with_capacity(1 << 20)).capacity(), 0);
    }

    #[test]
    fn bytes_come_out_in_order_across_reclaims() {
        let mut queue = ByteQueue::default();
        let mut expected = Vec::new();
        let mut seen = Vec::new();
        for round in 0..2_000_u32 {
            let piece = round.to_le_bytes().repeat(100);
            expected.extend_from_slice(&piece);
            queue.push(&piece);
            let take = queue.len() * 2 / 3;
            seen.extend_from_slice(&queue.filled()[..take]);
            queue.consume(take);
        }
        seen.extend_from_slice(queue.filled());
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_empty_queue_gives_a_large_buffer_back() {
        let mut queue = ByteQueue::default();
        queue.push(&vec![1; 1 << 20]);
        queue.consume(1 << 20);
        assert!(queue.is_empty());
        assert_eq!(queue.bytes.capacity(), 0);
    }

    #[test]
    fn truncate_keeps_the_front_and_remove_what_is_around() {
        let mut queue = ByteQueue::default();
        queue.push(b"abcdef");
        queue.consume(2);
        queue.truncate(3);
        assert_eq!(queue.filled(), b"cde");
        queue.remove(1..2);
        assert_eq!(queue.filled(), b"ce");
    }
}
