//! One connection to the proxy: what it has sent, what it waits for, what it is owed.
//!
//! Owns the order of a client's replies. Knows nothing of backends: the worker brings requests from
//! here to there and replies back.

use std::os::fd::OwnedFd;

use crate::blocking::Blocking;
use crate::buffer::ByteQueue;
use crate::command::{Access, Command};
use crate::inflight::{Slot, Slots};
use crate::lane::LaneKey;
use crate::reactor::{Handle, Interest};
use crate::recent::Recent;
use crate::resp::RequestScan;
use crate::snapshot::Nanos;
use crate::subscriptions::Subscriptions;
use crate::tracking::Tracking;
use crate::transaction::{Transaction, Watch};
use crate::writes::Writes;

/// Whether a client's next request may be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    Open,
    /// One may, whose reply is left out: open while it has not been taken.
    One,
    /// Too much is unanswered or unread: opens again when at most this many requests are unanswered.
    Full {
        resume_at: usize,
    },
    /// Its next request is held because this shard cannot take it; `bytes` are what the hold counts.
    Parked {
        shard: usize,
        bytes: usize,
    },
}

/// A client that wants no replies.
#[derive(Clone, Copy)]
pub(crate) struct Muted {
    /// So many bytes at the front of its output are to be sent all the same.
    pub(crate) keep: usize,
    /// Only the next one is not wanted.
    pub(crate) once: bool,
}

/// What a client says that it is made with.
#[derive(Default)]
pub(crate) struct Library {
    pub(crate) name: Option<Box<[u8]>>,
    pub(crate) version: Option<Box<[u8]>>,
}

/// A client.
#[expect(
    clippy::struct_excessive_bools,
    reason = "five independent facts; each pair of them occurs"
)]
pub(crate) struct Client {
    pub(crate) handle: Handle,
    pub(crate) socket: OwnedFd,
    pub(crate) pool: u16,
    /// Unique in the process: what CLIENT ID says.
    pub(crate) number: u64,
    /// Requests of this client that were taken and came back to be held.
    pub(crate) held: u32,
    pub(crate) authenticated: bool,
    pub(crate) lane: LaneKey,
    pub(crate) gate: Gate,
    /// No more requests are taken; closed once all it is owed has been sent.
    pub(crate) closing: bool,
    /// Is known to send no more, and waits all the same.
    pub(crate) ended: bool,
    /// Is in the worker's list of clients to write to.
    pub(crate) dirty: bool,
    /// Is in the worker's list of clients whose gate may open.
    pub(crate) resuming: bool,
    pub(crate) interest: Interest,
    /// Since when the requests in `input` are held; 0 if they are not.
    pub(crate) held_since: Nanos,
    /// Received and not taken: an incomplete request, or what the gate keeps.
    pub(crate) input: ByteQueue,
    pub(crate) scan: RequestScan,
    /// Bytes that `input` must have before the request at its front can be whole; 0 if unknown.
    pub(crate) needed: usize,
    pub(crate) slots: Slots,
    /// Replies to be sent.
    pub(crate) output: ByteQueue,
    pub(crate) muted: Option<Muted>,
    pub(crate) name: Option<Box<[u8]>>,
    pub(crate) library: Library,
    /// When it connected, and when it was last read from or let go on.
    pub(crate) born: Nanos,
    pub(crate) active: Nanos,
    /// Its latest request, as far as that is known.
    pub(crate) last: Option<&'static Command>,
    /// What it has queued since MULTI.
    pub(crate) transaction: Option<Box<Transaction>>,
    pub(crate) watch: Option<Box<Watch>>,
    /// Its last request that could wait at a server.
    pub(crate) blocking: Option<Box<Blocking>>,
    pub(crate) writes: Writes,
    /// There only if its pool reads from replicas.
    pub(crate) recent: Option<Box<Recent>>,
    /// Its last request that a replica was sent.
    pub(crate) read_elsewhere: Option<u32>,
    /// There only while it is subscribed to something, or about to be.
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// There only if it tracks, or has, or is told in the place of one that does.
    pub(crate) tracking: Option<Box<Tracking>>,
}

impl Client {
    pub(crate) fn new(
        handle: Handle,
        socket: OwnedFd,
        pool: u16,
        number: u64,
        authenticated: bool,
    ) -> Self {
        Self {
            handle,
            socket,
            pool,
            number,
            held: 0,
            authenticated,
            lane: LaneKey::default(),
            gate: Gate::Open,
            closing: false,
            ended: false,
            dirty: false,
            resuming: false,
            interest: Interest::READ,
            held_since: 0,
            input: ByteQueue::default(),
            scan: RequestScan::default(),
            needed: 0,
            slots: Slots::default(),
            output: ByteQueue::default(),
            muted: None,
            name: None,
            library: Library::default(),
            born: 0,
            active: 0,
            last: None,
            transaction: None,
            watch: None,
            blocking: None,
            writes: Writes::default(),
            recent: None,
            read_elsewhere: None,
            subscriptions: None,
            tracking: None,
        }
    }

    /// Answers the newest request from here, behind whatever is still unanswered.
    pub(crate) fn answer(&mut self, reply: &[u8]) {
        if self.slots.is_empty() {
            self.output.push(reply);
        } else {
            self.slots.push(Slot::Ready(reply.into()));
        }
    }

    /// Answers request `sequence` with a whole reply.
    pub(crate) fn deliver(&mut self, sequence: u32, reply: &[u8]) {
        if self.slots.is_head(sequence) {
            self.output.push(reply);
            self.finish_head();
        } else if let Some(slot) = self.slots.get_mut(sequence) {
            *slot = Slot::Ready(reply.into());
        }
    }

    /// The head has been answered into `output`: what is ready behind it follows.
    pub(crate) fn finish_head(&mut self) {
        self.slots.pop_head();
        while let Some(reply) = self.slots.take_ready() {
            self.output.push(&reply);
        }
    }

    /// Appends a message. It is no reply: who wants none gets it all the same, in front of the reply that it does not
    /// want.
    pub(crate) fn push_message(&mut self, mark: u8, rest: &[u8]) {
        let Some(muted) = &mut self.muted else {
            self.output.push(&[mark]);
            self.output.push(rest);
            return;
        };
        let unwanted = self.output.filled()[muted.keep..].to_vec();
        self.output.truncate(muted.keep);
        self.output.push(&[mark]);
        self.output.push(rest);
        muted.keep += 1 + rest.len();
        self.output.push(&unwanted);
    }

    /// The socket took so many bytes of what is to be sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.output.consume(count);
        if let Some(muted) = &mut self.muted {
            muted.keep -= count;
        }
    }

    /// Drops the replies of a client that wants none; if it was only one, and that is there, the gate opens once
    /// the others may come.
    pub(crate) fn drop_muted(&mut self) {
        let Some(Muted { keep, once }) = self.muted else {
            return;
        };
        let answered = self.is_answered();
        self.output.truncate(keep);
        if once && answered {
            self.muted = None;
            self.gate = Gate::Full { resume_at: 0 };
        }
    }

    /// Replies are sent from now on, but not those that have not been wanted.
    pub(crate) fn unmute(&mut self) {
        self.drop_muted();
        self.muted = None;
        self.gate = Gate::Open;
    }

    /// Everything it asked for is there, and something that it does not want.
    fn is_answered(&self) -> bool {
        let muted = self.muted.as_ref();
        self.slots.is_empty() && muted.is_some_and(|muted| self.output.len() > muted.keep)
    }

    /// The gate, once what has closed it is over.
    pub(crate) fn gate_again(&self) -> Gate {
        match &self.muted {
            Some(muted) if muted.once => Gate::One,
            _ => Gate::Open,
        }
    }

    /// More of what it sends is wanted.
    pub(crate) fn reads(&self) -> bool {
        !self.closing && (self.gate == Gate::Open || self.may_take_one())
    }

    /// The one request that may be taken has not been.
    pub(crate) fn may_take_one(&self) -> bool {
        self.gate == Gate::One && self.slots.is_empty() && !self.is_answered()
    }

    /// Nothing is unanswered and nothing is unsent.
    pub(crate) fn idle(&self) -> bool {
        self.slots.is_empty() && self.output.is_empty()
    }

    /// Bytes that are kept of what it has sent.
    pub(crate) fn kept(&self) -> usize {
        let queued = self.transaction.as_ref().map_or(0, |it| it.len());
        self.input.len() + queued
    }

    /// Something of it is held: if it leaves, that must never be sent.
    pub(crate) fn is_held(&self) -> bool {
        self.held > 0 || matches!(self.gate, Gate::Parked { .. })
    }

    /// What it sends to these shards as its newest request may change data.
    pub(crate) fn note_writes(&mut self, access: Access, shards: &[usize]) {
        if access == Access::Write {
            for &shard in shards {
                self.writes.note(shard);
            }
            if let Some(recent) = &mut self.recent {
                for &shard in shards {
                    recent.note(shard, self.slots.last());
                }
            }
        }
    }

    /// A replica has not answered all that it was sent. A write must wait for that, or the replica could have it by then.
    pub(crate) fn reads_elsewhere(&mut self) -> bool {
        let waits = self
            .read_elsewhere
            .is_some_and(|last| !self.slots.is_past(last));
        if !waits {
            self.read_elsewhere = None;
        }
        waits
    }

    /// Keeps a write for later that would overtake a read.
    pub(crate) fn waits_for_reads(&mut self, access: Access) -> bool {
        let waits = access == Access::Write && self.reads_elsewhere();
        if waits {
            self.gate = Gate::Full { resume_at: 0 };
        }
        waits
    }

    /// The connection of its own to the shard that it is parked for, if nothing was sent there yet.
    pub(crate) fn own_to_come(&self) -> Option<Handle> {
        let Gate::Parked { shard, .. } = self.gate else {
            return None;
        };
        let blocking = self.blocking.as_ref().filter(|waits| !waits.is_sent());
        let watch = self.watch.as_ref().filter(|watch| !watch.armed);
        blocking
            .and_then(|waits| waits.own_at(shard))
            .or(watch.map(|watch| watch.backend))
    }

    /// Its request waits at a server: if it leaves, that must end.
    pub(crate) fn blocks(&self) -> bool {
        let waits = self.blocking.as_ref();
        waits.is_some_and(|waits| waits.sequence.is_some_and(|it| self.slots.is_head(it)))
    }

    /// What the socket should be watched for in this state.
    pub(crate) fn wanted(&self) -> Interest {
        let read = match self.gate {
            _ if self.reads() => Interest::READ,
            _ if self.blocks() || self.is_held() && !self.ended => Interest::PEER_CLOSED,
            _ => Interest::NONE,
        };
        read.and_write(!self.output.is_empty())
    }
}
