//! One connection to a server: a pipe of requests, and the owners of the replies to come.
//!
//! ```text
//!  output   [ answered | written, unanswered | not written ]
//!           consumed   ^ front of the FIFO   ^ written
//! ```
//! A request's bytes stay in `output` until its reply has come, so that a read can be sent again when
//! the connection is lost, and so that what was never written is known exactly. Knows nothing of
//! clients but their handles.

use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;

use crate::buffer::ByteQueue;
use crate::command::Access;
use crate::inflight::{Owner, Pending};
use crate::lane::{LaneKey, Protocol};
use crate::reactor::{Handle, Interest};
use crate::resp::ReplyScan;
use crate::scripts::Sent;
use crate::snapshot::Nanos;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Connecting,
    /// Connected; AUTH, HELLO and SELECT are not all answered.
    Greeting,
    Ready,
    /// Pinned, and its client has finished with it: once everything on it is answered, the next client
    /// may have it.
    Leaving,
    /// Refused a request before executing it: takes nothing new, its replies are still read.
    Retired,
    /// Not needed any more: takes nothing new, begins or ends no write, and closes once everything on it
    /// is answered.
    Ending,
}

/// Whose a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pin {
    /// All clients' of its lane.
    Shared,
    /// The same, to this replica of the shard's master.
    Replica(u32),
    /// That of one client, which watches keys on it.
    Client,
    /// That of one client, whose request may wait there for long.
    Blocked,
    /// That of this client, which is subscribed on it.
    Subscriber(Handle),
    /// That of the worker, which is told on it what changes.
    Witness,
    /// The next client's.
    Nobody,
}

impl Pin {
    /// It is one client's, or was.
    pub(crate) fn is_own(self) -> bool {
        !matches!(self, Self::Shared | Self::Replica(_))
    }
}

/// How far a request had come when its connection was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    /// Not one complete frame of it left this process: it cannot have been executed.
    Unwritten,
    Written,
}

/// What is on connections now, for people to look at.
#[derive(Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) connections: u64,
    pub(crate) queued: u64,
    pub(crate) queued_bytes: u64,
    pub(crate) unanswered: u64,
    pub(crate) unanswered_bytes: u64,
}

impl std::ops::AddAssign for Load {
    fn add_assign(&mut self, more: Self) {
        self.connections += more.connections;
        self.queued += more.queued;
        self.queued_bytes += more.queued_bytes;
        self.unanswered += more.unanswered;
        self.unanswered_bytes += more.unanswered_bytes;
    }
}

/// A request that has waited too long.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) pending: Pending,
    /// Something of it has left: its reply stays due and will be discarded. If not, it never will.
    pub(crate) sent: bool,
}

/// Which run of its server a connection leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Run {
    Unasked,
    /// The answer comes before that of any step of SCAN.
    Asked,
    /// The hash of its run id; `None` if the server does not tell it.
    Known(Option<u32>),
}

/// A reply whose front part has been passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) remaining: usize,
}

/// A connection to a master.
pub(crate) struct Backend {
    pub(crate) handle: Handle,
    pub(crate) socket: OwnedFd,
    pub(crate) shard: usize,
    pub(crate) lane: LaneKey,
    pub(crate) pin: Pin,
    pub(crate) phase: Phase,
    /// When the phase began, milliseconds of the worker's clock.
    pub(crate) since_ms: u32,
    /// When it was made, or, until then, when that was begun.
    pub(crate) begun: Nanos,
    /// When something was last read from it.
    pub(crate) heard_ms: u32,
    /// Is in the worker's list of backends to write to.
    pub(crate) dirty: bool,
    pub(crate) interest: Interest,
    pub(crate) input: ByteQueue,
    pub(crate) scan: ReplyScan,
    pub(crate) stream: Option<Stream>,
    /// A write has begun to leave and may not go on without a lease: nothing else can be sent.
    pub(crate) stalled: bool,
    /// What run of the server it leads to, once SCAN has asked.
    pub(crate) run: Run,
    /// Clients of whom a request was refused here.
    pub(crate) refused: HashSet<Handle>,
    /// What the server answered to the mark before a WAIT, if that is an error.
    pub(crate) mark_refused: Option<Box<[u8]>>,
    pub(crate) scripts: Sent,
    output: ByteQueue,
    written: usize,
    /// Requests in `output` of which something is unwritten and which change data.
    unwritten_writes: usize,
    fifo: VecDeque<Pending>,
    /// Entries at the front of the FIFO whose time is over.
    expired: usize,
}

impl Backend {
    pub(crate) fn new(
        handle: Handle,
        socket: OwnedFd,
        shard: usize,
        lane: LaneKey,
        now_ms: u32,
    ) -> Self {
        Self {
            handle,
            socket,
            shard,
            lane,
            pin: Pin::Shared,
            phase: Phase::Connecting,
            since_ms: now_ms,
            begun: 0,
            heard_ms: now_ms,
            dirty: false,
            interest: Interest::READ.and_write(true),
            input: ByteQueue::default(),
            scan: ReplyScan::default(),
            stream: None,
            stalled: false,
            run: Run::Unasked,
            refused: HashSet::new(),
            mark_refused: None,
            scripts: Sent::default(),
            output: ByteQueue::default(),
            written: 0,
            unwritten_writes: 0,
            fifo: VecDeque::new(),
            expired: 0,
        }
    }

    /// Queues what a new connection must say before it can be used; returns whether there is any.
    /// A master that has refused a request is asked whether it serves and is one.
    pub(crate) fn greet(&mut self, password: Option<&str>, suspect: bool, now_ms: u32) -> bool {
        if let Some(password) = password {
            self.say(&[b"AUTH", password.as_bytes()], now_ms);
        }
        if self.lane.protocol == Protocol::Resp3 {
            self.say(&[b"HELLO", b"3"], now_ms);
        }
        if self.lane.database != 0 {
            self.say(
                &[b"SELECT", self.lane.database.to_string().as_bytes()],
                now_ms,
            );
        }
        if suspect {
            self.say(&[b"PING"], now_ms);
            self.say(&[b"ROLE"], now_ms);
        }
        !self.fifo.is_empty()
    }

    /// Asks which run of the server this is, if that has not been done.
    pub(crate) fn ask_run(&mut self, now_ms: u32) {
        if self.run == Run::Unasked {
            self.run = Run::Asked;
            let frame = b"*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n";
            self.push(Owner::RunId, Access::Read, frame, now_ms);
        }
    }

    fn say(&mut self, args: &[&[u8]], now_ms: u32) {
        let mut frame = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            frame.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            frame.extend_from_slice(arg);
            frame.extend_from_slice(b"\r\n");
        }
        self.push(Owner::Handshake, Access::Read, &frame, now_ms);
    }

    /// Appends a request; it is written when the round ends.
    pub(crate) fn push(&mut self, owner: Owner, access: Access, frame: &[u8], now_ms: u32) {
        self.output.push(frame);
        self.fifo.push_back(Pending {
            owner,
            bytes: frame.len() as u32,
            access,
            replies: 1,
            at_ms: now_ms,
            held_ms: 0,
        });
        self.unwritten_writes += usize::from(access == Access::Write);
    }

    /// Notes of the request that was appended last that it had been held.
    pub(crate) fn note_held(&mut self, held_ms: u32) {
        if let Some(pending) = self.fifo.back_mut() {
            pending.held_ms = held_ms;
        }
    }

    /// Notes of the request that was appended last how many replies it has.
    pub(crate) fn note_replies(&mut self, replies: u32) {
        if let Some(pending) = self.fifo.back_mut() {
            pending.replies = replies;
        }
    }

    /// How many replies belong together at the front.
    pub(crate) fn replies_due(&self) -> u32 {
        self.fifo.front().map_or(1, |front| front.replies)
    }

    pub(crate) fn unwritten(&self) -> &[u8] {
        &self.output.filled()[self.written..]
    }

    pub(crate) fn has_unwritten_writes(&self) -> bool {
        self.unwritten_writes > 0
    }

    /// Records that the kernel took `count` more bytes.
    pub(crate) fn wrote(&mut self, count: usize) {
        self.written += count;
        if self.written == self.output.len() {
            self.unwritten_writes = 0;
        } else if self.unwritten_writes > 0 {
            let mut end = 0;
            self.unwritten_writes = 0;
            for pending in &self.fifo {
                end += pending.bytes as usize;
                let unwritten = end > self.written && pending.access == Access::Write;
                self.unwritten_writes += usize::from(unwritten);
            }
        }
    }

    /// The owner of the next reply.
    pub(crate) fn front(&self) -> Option<&Pending> {
        self.fifo.front()
    }

    /// The next reply is complete: removes its owner, and its request's bytes with it. `None` if no
    /// reply is due, or if the reply came before its request was written.
    pub(crate) fn pop(&mut self) -> Option<Pending> {
        let bytes = self.fifo.front()?.bytes as usize;
        if bytes > self.written {
            return None;
        }
        self.output.consume(bytes);
        self.written -= bytes;
        self.expired = self.expired.saturating_sub(1);
        self.fifo.pop_front()
    }

    /// The bytes of the front request, for sending it again.
    pub(crate) fn front_bytes(&self) -> &[u8] {
        let len = self.fifo.front().map_or(0, |front| front.bytes as usize);
        &self.output.filled()[..len]
    }

    /// More than the front request is this client's.
    pub(crate) fn has_more_of(&self, client: Handle) -> bool {
        let mut behind = self.fifo.iter().skip(1);
        behind.any(|it| matches!(it.owner, Owner::Client { client: of, .. } if of == client))
    }

    /// Something about it is to be decided by the clock.
    pub(crate) fn has_deadline(&self) -> bool {
        self.stalled || matches!(self.pin, Pin::Replica(_)) && self.has_inflight()
    }

    /// How long the next reply has been waited for, milliseconds.
    pub(crate) fn waited_ms(&self, now_ms: u32) -> Option<u32> {
        let front = self.fifo.front()?;
        Some(now_ms.wrapping_sub(front.at_ms))
    }

    /// Some request that has left whole is unanswered.
    pub(crate) fn awaits_reply(&self) -> bool {
        let front = self.fifo.front();
        front.is_some_and(|front| front.bytes as usize <= self.written)
    }

    /// Some write is unanswered; not one that blocks, for as long as it waits it has changed nothing.
    pub(crate) fn awaits_write(&self) -> bool {
        let writes = |pending: &Pending| pending.access == Access::Write;
        self.pin != Pin::Blocked && self.fifo.iter().any(writes)
    }

    /// Nobody has it, and the next client may.
    pub(crate) fn is_spare(&self) -> bool {
        self.pin == Pin::Nobody && self.phase == Phase::Ready
    }

    /// Some request was refused here: what follows is not taken at face value.
    pub(crate) fn has_refused(&self) -> bool {
        self.phase == Phase::Retired || !self.refused.is_empty()
    }

    /// What is on the connection now.
    pub(crate) fn load(&self) -> Load {
        let mut load = Load {
            connections: u64::from(!matches!(self.phase, Phase::Connecting)),
            unanswered: self.fifo.len() as u64,
            unanswered_bytes: self.output.len() as u64,
            ..Load::default()
        };
        if !self.unwritten().is_empty() {
            let mut end = 0;
            for pending in &self.fifo {
                end += pending.bytes as usize;
                load.queued += u64::from(end > self.written);
            }
            load.queued_bytes = self.unwritten().len() as u64;
            load.unanswered -= load.queued;
            load.unanswered_bytes -= load.queued_bytes;
        }
        load
    }

    /// All that is unanswered was on another connection before.
    pub(crate) fn only_repeats(&self) -> bool {
        !self.fifo.is_empty() && self.fifo.iter().all(|pending| pending.held_ms > 0)
    }

    pub(crate) fn has_inflight(&self) -> bool {
        !self.fifo.is_empty()
    }

    /// Takes the requests that have waited `timeout_ms` for their replies.
    pub(crate) fn expire(&mut self, now_ms: u32, timeout_ms: u32) -> Vec<Late> {
        let is_late = |pending: &Pending| now_ms.wrapping_sub(pending.at_ms) >= timeout_ms;
        if !self.fifo.get(self.expired).is_some_and(is_late) {
            return Vec::new();
        }
        let before = self.fifo.iter().take(self.expired);
        let mut start: usize = before.map(|pending| pending.bytes as usize).sum();
        let mut taken = Vec::new();
        while let Some(pending) = self.fifo.get_mut(self.expired)
            && is_late(pending)
            && (start < self.written || pending.owner == Owner::Handshake)
        {
            start += pending.bytes as usize;
            self.expired += 1;
            if matches!(pending.owner, Owner::Client { .. }) {
                let (pending, sent) = (std::mem::replace(pending, pending.of_nobody()), true);
                taken.push(Late { pending, sent });
            }
        }
        let unsent = self.fifo.iter().skip(self.expired);
        let unsent = unsent.take_while(|pending| is_late(pending)).count();
        if unsent > 0 {
            self.scripts.forget_all();
        }
        let dropped = self.fifo.drain(self.expired..self.expired + unsent);
        let mut end = start;
        for pending in dropped {
            end += pending.bytes as usize;
            let sent = false;
            taken.push(Late { pending, sent });
        }
        self.output.remove(start..end);
        self.wrote(0);
        taken
    }

    /// Requests have expired on it, and for so long nothing at all has come: it never will.
    pub(crate) fn is_dead(&self, now_ms: u32, silence_ms: u32) -> bool {
        let since = |then: u32| now_ms.wrapping_sub(then);
        self.expired > 0
            && since(self.heard_ms) >= silence_ms
            && self
                .fifo
                .front()
                .is_some_and(|front| since(front.at_ms) >= silence_ms)
    }

    /// Takes back the requests of which not one byte is written, with their bytes, oldest first.
    pub(crate) fn take_unwritten(&mut self) -> Vec<(Pending, Box<[u8]>)> {
        let mut start = 0;
        let mut keep = self.fifo.len();
        for (index, pending) in self.fifo.iter().enumerate() {
            if start >= self.written {
                keep = index;
                break;
            }
            start += pending.bytes as usize;
        }
        if keep == self.fifo.len() {
            return Vec::new();
        }
        self.scripts.forget_all();
        let mut at = start;
        let taken = self
            .fifo
            .drain(keep..)
            .map(|pending| {
                let end = at + pending.bytes as usize;
                let bytes = self.output.filled()[at..end].into();
                at = end;
                (pending, bytes)
            })
            .collect();
        self.output.truncate(start);
        self.expired = self.expired.min(keep);
        self.wrote(0);
        taken
    }

    /// A request of this client is unanswered here.
    pub(crate) fn is_waited_for(&self, by: Handle) -> bool {
        let of = |pending: &Pending| matches!(pending.owner, Owner::Client { client, .. } if client == by);
        self.fifo.iter().any(of)
    }

    /// Everything that has no reply, with its bytes and how far it came, oldest first; the
    /// connection is of no use afterwards.
    pub(crate) fn dissolve(self) -> Vec<(Pending, Progress, Box<[u8]>)> {
        let mut at = 0;
        self.fifo
            .iter()
            .map(|pending| {
                let end = at + pending.bytes as usize;
                let progress = if end <= self.written {
                    Progress::Written
                } else {
                    Progress::Unwritten
                };
                let bytes = self.output.filled()[at..end].into();
                at = end;
                (*pending, progress, bytes)
            })
            .collect()
    }

    /// What the socket should be watched for in this state.
    pub(crate) fn wanted(&self) -> Interest {
        let write =
            self.phase == Phase::Connecting || !self.stalled && !self.unwritten().is_empty();
        Interest::READ.and_write(write)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::{Access, Backend, Handle, LaneKey, Owner, Progress};

    fn backend() -> Backend {
        let (socket, _) = UnixStream::pair().expect("a pair of sockets");
        let handle = Handle { index: 0, id: 0 };
        Backend::new(handle, socket.into(), 0, LaneKey::default(), 0)
    }

    fn owner(sequence: u32) -> Owner {
        Owner::Client {
            client: Handle { index: 7, id: 1 },
            sequence,
            part: super::super::inflight::WHOLE,
        }
    }

    #[test]
    fn a_request_half_written_cannot_have_been_executed() {
        let mut backend = backend();
        backend.push(owner(0), Access::Read, b"aaaa", 0);
        backend.push(owner(1), Access::Write, b"bbbb", 0);
        backend.push(owner(2), Access::Write, b"cccc", 0);
        backend.wrote(6);
        assert!(backend.has_unwritten_writes());
        let fates: Vec<_> = backend
            .dissolve()
            .into_iter()
            .map(|(_, progress, bytes)| (progress, bytes))
            .collect();
        assert_eq!(
            fates,
            [
                (Progress::Written, b"aaaa"[..].into()),
                (Progress::Unwritten, b"bbbb"[..].into()),
                (Progress::Unwritten, b"cccc"[..].into()),
            ]
        );
    }

    #[test]
    fn only_requests_without_a_written_byte_are_taken_back() {
        let mut backend = backend();
        backend.push(owner(0), Access::Read, b"aaaa", 0);
        backend.push(owner(1), Access::Write, b"bbbb", 0);
        backend.push(owner(2), Access::Write, b"cccc", 0);
        backend.wrote(6);
        let taken = backend.take_unwritten();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].0.owner, owner(2));
        assert_eq!(&*taken[0].1, b"cccc");
        assert_eq!(backend.unwritten(), b"bb");
        assert!(backend.has_unwritten_writes());
        backend.wrote(2);
        assert!(!backend.has_unwritten_writes());
    }

    #[test]
    fn a_reply_before_its_request_was_written_is_refused() {
        let mut backend = backend();
        backend.push(owner(0), Access::Read, b"aaaa", 0);
        assert!(backend.pop().is_none());
        backend.wrote(4);
        assert_eq!(backend.pop().map(|pending| pending.owner), Some(owner(0)));
    }

    #[test]
    fn an_expired_request_keeps_its_place_and_is_taken_once() {
        let mut backend = backend();
        backend.push(owner(0), Access::Write, b"aaaa", 0);
        backend.push(owner(1), Access::Write, b"bbbb", 60);
        backend.wrote(8);
        let late = backend.expire(100, 100);
        assert!(matches!(&late[..], [late] if late.sent && late.pending.owner == owner(0)));
        assert!(backend.expire(100, 100).is_empty());
        assert_eq!(backend.pop().map(|p| p.owner), Some(Owner::Nobody));
        assert_eq!(backend.expire(160, 100)[0].pending.owner, owner(1));
    }

    #[test]
    fn an_expired_request_that_has_not_begun_to_leave_never_does() {
        let mut backend = backend();
        for (sequence, at_ms) in [0, 0, 0, 60].into_iter().enumerate() {
            backend.push(
                owner(sequence as u32),
                Access::Write,
                &[b'a' + sequence as u8; 4],
                at_ms,
            );
        }
        backend.wrote(6);
        let late = backend.expire(100, 100).into_iter();
        let sent: Vec<_> = late.map(|late| (late.pending.owner, late.sent)).collect();
        assert_eq!(
            sent,
            [(owner(0), true), (owner(1), true), (owner(2), false)]
        );
        assert_eq!(backend.unwritten(), b"bbdddd");
        assert!(backend.has_unwritten_writes());
        backend.wrote(6);
        assert!(!backend.has_unwritten_writes());
        let owners: Vec<_> = (0..3)
            .filter_map(|_| backend.pop())
            .map(|p| p.owner)
            .collect();
        assert_eq!(owners, [Owner::Nobody, Owner::Nobody, owner(3)]);
    }

    #[test]
    fn a_server_that_says_nothing_for_long_to_what_has_expired_is_dead() {
        let mut backend = backend();
        backend.push(owner(0), Access::Read, b"aaaa", 50);
        backend.wrote(4);
        assert!(!backend.is_dead(2000, 1000), "nothing has expired");
        backend.expire(2000, 100);
        assert!(!backend.is_dead(1049, 1000));
        assert!(backend.is_dead(1050, 1000));
        backend.heard_ms = 60;
        assert!(!backend.is_dead(1050, 1000), "something has come");
    }
}
