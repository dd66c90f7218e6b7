//! Who waits for which reply, on both sides.
//!
//! ```text
//!  client A slots   [ waiting | ready | split ]      popped from the front, in request order
//!                        |               |  |
//!  backend FIFO s1  [ A.0 | B.4 | A.2 part 0 ]       popped by each reply, in write order
//!  backend FIFO s2  [ C.1 | A.2 part 1 ]
//! ```
//! A slot is named by its sequence number, so a backend needs only (client, sequence, part); a client
//! that is gone leaves entries behind whose replies are dropped.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::coalesce::Split;
use crate::command::Access;
use crate::cursor::Cursor;
use crate::reactor::Handle;

/// The part number of a request that went out whole.
pub(crate) const WHOLE: u16 = u16::MAX;
/// The part number of a step of SCAN: it went out whole, and its reply is not the client's yet.
pub(crate) const SCAN_STEP: u16 = u16::MAX - 1;

/// One request of a client that has no answer yet, or whose answer waits for earlier ones.
pub(crate) enum Slot {
    Waiting,
    Ready(Box<[u8]>),
    Split(Box<Split>),
    /// A step of SCAN from this cursor on.
    Scan(Cursor),
}

/// The unanswered requests of one client, in order.
#[derive(Default)]
pub(crate) struct Slots {
    first: u32,
    queue: VecDeque<Slot>,
}

impl Slots {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Adds a slot and returns its sequence number.
    pub(crate) fn push(&mut self, slot: Slot) -> u32 {
        let sequence = self.first.wrapping_add(self.queue.len() as u32);
        self.queue.push_back(slot);
        sequence
    }

    /// The number of the newest request, also if that is answered.
    pub(crate) fn last(&self) -> u32 {
        let next = self.first.wrapping_add(self.queue.len() as u32);
        next.wrapping_sub(1)
    }

    pub(crate) fn get_mut(&mut self, sequence: u32) -> Option<&mut Slot> {
        self.queue
            .get_mut(sequence.wrapping_sub(self.first) as usize)
    }

    pub(crate) fn is_head(&self, sequence: u32) -> bool {
        sequence == self.first && !self.queue.is_empty()
    }

    /// The request that has this number is answered.
    pub(crate) fn is_past(&self, sequence: u32) -> bool {
        sequence.wrapping_sub(self.first).cast_signed() < 0
    }

    /// Removes the head, whose answer has been taken.
    pub(crate) fn pop_head(&mut self) {
        self.queue.pop_front();
        self.first = self.first.wrapping_add(1);
    }

    /// Removes and returns the head's answer if it is there.
    pub(crate) fn take_ready(&mut self) -> Option<Box<[u8]>> {
        if !matches!(self.queue.front(), Some(Slot::Ready(_))) {
            return None;
        }
        let head = self.queue.pop_front();
        self.first = self.first.wrapping_add(1);
        match head {
            Some(Slot::Ready(reply)) => Some(reply),
            _ => None,
        }
    }
}

/// Whose answer the next reply of a backend is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Client {
        client: Handle,
        sequence: u32,
        part: u16,
    },
    /// AUTH, HELLO or SELECT that Shoal sent when it connected.
    Handshake,
    /// The connection itself, which asks what run of the server it leads to.
    RunId,
    /// What stands before WAIT, so that it counts from there.
    Mark,
    /// Nobody: the client was answered already, or is gone.
    Nobody,
}

impl Owner {
    /// It is a client's request that went out whole.
    pub(crate) fn is_whole(self) -> bool {
        matches!(self, Self::Client { part: WHOLE, .. })
    }

    /// The order of one client's requests; between clients, any fixed order.
    pub(crate) fn in_order(self, other: Self) -> Ordering {
        let key = |owner: Self| match owner {
            Self::Client {
                client, sequence, ..
            } => (client.index, client.id, sequence),
            Self::Handshake | Self::RunId | Self::Mark | Self::Nobody => (0, 0, 0),
        };
        let ((a_index, a_id, a), (b_index, b_id, b)) = (key(self), key(other));
        // Sequence numbers wrap, but those of one client lie close together.
        let by_sequence = a.wrapping_sub(b).cast_signed().cmp(&0);
        (a_index, a_id).cmp(&(b_index, b_id)).then(by_sequence)
    }
}

/// One request on a backend, from its append to its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    pub(crate) owner: Owner,
    /// Length of the request in the backend's output queue.
    pub(crate) bytes: u32,
    pub(crate) access: Access,
    /// How many replies it has, of which only the last is for its owner: more than one if it is a
    /// whole transaction.
    pub(crate) replies: u32,
    /// When it was appended, milliseconds of the worker's clock.
    pub(crate) at_ms: u32,
    /// How long it has been held before, milliseconds: what it may still be held is the rest.
    pub(crate) held_ms: u32,
}

impl Pending {
    /// The same for a client that has been answered.
    pub(crate) fn of_nobody(self) -> Self {
        let owner = Owner::Nobody;
        Self { owner, ..self }
    }
}
