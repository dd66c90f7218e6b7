//! Reads backends, and brings each reply to the request it answers.

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::losses::Loss;
use super::refusals::{is_redirection, is_refusal, is_replica, redirected};
use super::replicas::cannot_answer;
use super::transaction;
use super::waits;
use super::{READ_SIZE, Worker, boot_nanos};
use crate::backend::{Phase, Pin, Run, Stream};
use crate::coalesce::{Outcome, UNMERGEABLE};
use crate::command::Access;
use crate::cursor;
use crate::inflight::{Owner, Pending, SCAN_STEP, Slot, WHOLE};
use crate::reactor::{Handle, Ready};
use crate::resp::{self, ProtocolError, ReplyScan, ReplyStatus};

/// A reply of this size is passed on while it arrives.
const STREAM_FROM: usize = 16 * 1024;
/// Unsent replies above which a client is closed: it does not read.
const OUTPUT_LIMIT: usize = 1 << 30;

impl Worker {
    pub(super) fn backend_ready(&mut self, handle: Handle, event: Ready) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if backend.phase == Phase::Connecting {
            if event.writable() || event.failed() {
                self.connected(handle);
            }
            return;
        }
        if event.readable() || event.failed() {
            self.read_backend(handle);
        }
        if event.writable() {
            self.touch_backend(handle);
        }
    }

    fn read_backend(&mut self, handle: Handle) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if backend.input.is_empty() {
            let mut buffer = std::mem::take(&mut self.read_buffer);
            buffer.clear();
            if let Some(backend) = self.backend(handle) {
                let read = rustix::io::read(&backend.socket, spare_capacity(&mut buffer));
                if self.heard_something(handle, read) {
                    let used = self.take_replies(handle, &buffer);
                    if let Some(backend) = self.backend(handle) {
                        backend.input.push(&buffer[used..]);
                    }
                }
            }
            self.read_buffer = buffer;
        } else {
            let spare = backend.input.len().clamp(READ_SIZE, 16 * READ_SIZE);
            let read =
                rustix::io::read(&backend.socket, spare_capacity(backend.input.spare(spare)));
            if self.heard_something(handle, read) {
                self.take_buffered(handle);
            }
        }
    }

    fn take_buffered(&mut self, handle: Handle) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let mut input = std::mem::take(&mut backend.input);
        let used = self.take_replies(handle, input.filled());
        if let Some(backend) = self.backend(handle) {
            input.consume(used);
            backend.input = input;
        }
    }

    /// Looks at the outcome of a read; gives the connection up at its end.
    fn heard_something(&mut self, handle: Handle, read: Result<usize, Errno>) -> bool {
        match read {
            Ok(0) => self.lose_backend(handle, &Loss::Closed),
            Ok(_) => {
                let millis = self.now.millis;
                if let Some(backend) = self.backend(handle) {
                    backend.heard_ms = millis;
                }
                return true;
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => self.lose_backend(handle, &Loss::Broken("read", error)),
        }
        false
    }

    /// Takes whole replies from `bytes`; returns how many bytes they had.
    fn take_replies(&mut self, handle: Handle, bytes: &[u8]) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let Some(backend) = self.backend(handle) else {
                break;
            };
            if let Some(Stream { remaining }) = backend.stream {
                let piece = remaining.min(rest.len());
                self.pass_on(handle, &rest[..piece], remaining - piece);
                used += piece;
                continue;
            }
            let count = backend.replies_due();
            match resp::scan_replies(rest, count, &mut backend.scan) {
                Ok(ReplyStatus::Complete { len }) => {
                    backend.scan = ReplyScan::default();
                    if count == 1 {
                        self.take_reply(handle, &rest[..len]);
                    } else {
                        self.take_replies_of_one(handle, count, &rest[..len]);
                    }
                    used += len;
                }
                Ok(ReplyStatus::Incomplete { needed_hint }) => {
                    if count > 1 || !self.may_stream(handle, rest, needed_hint) {
                        break;
                    }
                    self.pass_on(handle, rest, needed_hint - rest.len());
                    used = bytes.len();
                }
                Err(error) => {
                    self.lose_backend(handle, &Loss::Unfit(format!("unreadable reply: {error}")));
                    break;
                }
            }
        }
        used
    }

    /// A long string whose client waits for nothing before it may be passed on in pieces.
    fn may_stream(&mut self, handle: Handle, start: &[u8], needed: usize) -> bool {
        if needed < STREAM_FROM || !start.starts_with(b"$") {
            return false;
        }
        let Some(backend) = self.backend(handle) else {
            return false;
        };
        let Some(&Pending {
            owner:
                Owner::Client {
                    client,
                    sequence,
                    part: WHOLE,
                },
            ..
        }) = backend.front()
        else {
            return false;
        };
        if backend.phase != Phase::Ready {
            return false;
        }
        // From here on only lengths count; and if it is not passed on, the scan starts again.
        backend.scan = ReplyScan::default();
        // A message must not come into the midst of a reply: who may be sent one gets it whole.
        self.client(client).is_some_and(|client| {
            client.slots.is_head(sequence)
                && client.subscriptions.is_none()
                && client.tracking.is_none()
        })
    }

    /// Passes a piece of a long reply to the client at whose head it is.
    fn pass_on(&mut self, handle: Handle, piece: &[u8], remaining: usize) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if !may_be_the_end(piece, remaining) {
            let loss = Loss::Unfit(format!("unreadable reply: {}", ProtocolError::Reply));
            return self.lose_backend(handle, &loss);
        }
        backend.stream = (remaining > 0).then_some(Stream { remaining });
        let front = backend.front().map(|front| front.owner);
        let done = remaining == 0 && backend.pop().is_some();
        let (shard, phase) = (backend.shard, backend.phase);
        let of_master = phase != Phase::Ending && !matches!(backend.pin, Pin::Replica(_));
        if done {
            if phase != Phase::Ready {
                self.answered_last(handle);
            }
            self.answered(shard, of_master);
        }
        if let Some(Owner::Client { client, .. }) = front
            && let Some(to) = self.client(client)
        {
            to.output.push(piece);
            if done {
                to.finish_head();
            }
            self.count_response(shard, piece.len(), done);
            self.delivered(client);
        }
    }

    /// Brings a whole reply to its owner.
    fn take_reply(&mut self, handle: Handle, reply: &[u8]) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if backend.phase == Phase::Ready {
            match backend.pin {
                Pin::Subscriber(client) => return self.heard(handle, client, reply),
                Pin::Witness => return self.witnessed(handle, reply),
                _ => {}
            }
        }
        if reply[0] == b'>' {
            // Nothing else subscribes or tells of changes: no client waits for a push.
            return;
        }
        let (shard, backend_pin) = (backend.shard, backend.pin);
        let error = reply[0] == b'-';
        if error && self.mend_noscript(handle, reply) {
            return;
        }
        let fixed = self.shards[shard].fixed;
        if error && !fixed && is_redirection(reply) {
            let line = redirected(self.snapshot.shard_name(shard), reply);
            return self.take_answer(handle, &line, false);
        }
        if error && matches!(backend_pin, Pin::Replica(_)) && cannot_answer(reply) {
            return self.lose_backend(handle, &Loss::Ours("its replica cannot answer now"));
        }
        let refusal = error && !fixed && is_refusal(reply);
        self.take_answer(handle, reply, refusal);
    }

    /// Brings the replies to a transaction to its owner, as EXEC's answer.
    fn take_replies_of_one(&mut self, handle: Handle, count: u32, replies: &[u8]) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let shard = backend.shard;
        let verdict = transaction::judge(backend.front_bytes(), count, replies);
        let refusal = verdict.refused && !self.shards[shard].fixed;
        self.note_executed(handle, &verdict.answer);
        self.take_answer(handle, &verdict.answer, refusal);
    }

    /// Brings an answer to its owner; or, if the server refused to execute the request, holds that.
    fn take_answer(&mut self, handle: Handle, reply: &[u8], refusal: bool) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let shard = backend.shard;
        if refusal && backend.pin != Pin::Shared {
            return self.refuse_pinned(handle);
        }
        let frame: Option<Box<[u8]>> =
            (refusal || backend.has_refused()).then(|| backend.front_bytes().into());
        let Some(pending) = backend.pop() else {
            let loss = Loss::Unfit("a reply that nobody had asked for".to_owned());
            return self.lose_backend(handle, &loss);
        };
        if pending.owner == Owner::Handshake {
            return self.take_greeting(handle, reply);
        }
        if let Some(frame) = frame {
            return self.take_after_refusal(handle, pending, &frame, reply, refusal);
        }
        if pending.owner == Owner::RunId {
            backend.run = Run::Known(cursor::run_hash(reply));
        }
        if pending.owner == Owner::Mark {
            backend.mark_refused = waits::refusal(reply);
            return;
        }
        let run = backend.run;
        let of_master = backend.phase != Phase::Ending && !matches!(backend.pin, Pin::Replica(_));
        let mut mark_refused = None;
        if backend.phase != Phase::Ready {
            mark_refused = backend.mark_refused.take();
            self.answered_last(handle);
        }
        let reply = mark_refused.as_deref().unwrap_or(reply);
        let Owner::Client {
            client,
            sequence,
            part,
        } = pending.owner
        else {
            // It came too late: nobody is given it, and it is no excuse for the server.
            return;
        };
        self.answered(shard, of_master);
        let Some(to) = self.client(client) else {
            return;
        };
        if part == SCAN_STEP {
            self.scanned(client, sequence, run, reply);
        } else if part == WHOLE {
            to.deliver(sequence, reply);
            self.delivered(client);
        } else {
            let outcome = Outcome::Reply(reply.into());
            self.settle(shard, pending.owner, pending.access, outcome);
        }
        self.count_response(shard, reply.len(), true);
    }

    /// A server has answered in time: its failures before that are forgiven. A connection that is ending, or leads to
    /// a replica, says nothing about the master that the shard has now.
    pub(super) fn answered(&mut self, shard: usize, of_master: bool) {
        if !of_master {
            return;
        }
        self.shards[shard].answered();
        if self.any_ejector
            && let Some(ejector) = &self.snapshot.pool_of(shard).ejector
        {
            ejector.answered(shard);
        }
    }

    /// A client was given a reply, or the last piece of one, or another piece.
    fn count_response(&self, shard: usize, bytes: usize, whole: bool) {
        let counters = &self.shards[shard].counters;
        counters.responses.add(u64::from(whole));
        counters.response_bytes.add(bytes as u64);
    }

    fn take_greeting(&mut self, handle: Handle, reply: &[u8]) {
        if is_replica(reply) {
            return self.lose_backend(handle, &Loss::Ours("refused a request: it is a replica"));
        }
        if reply[0] == b'-' && !needs_no_password(reply) {
            let text = String::from_utf8_lossy(reply.trim_ascii_end()).into_owned();
            return self.lose_backend(handle, &Loss::Refused(format!("greeting refused: {text}")));
        }
        if self
            .backend(handle)
            .is_some_and(|backend| !backend.has_inflight())
        {
            self.greeted(handle);
        }
    }

    /// Gives all that one part of a request needs to be answered, and answers it if that was the last.
    pub(super) fn settle(&mut self, shard: usize, owner: Owner, access: Access, outcome: Outcome) {
        let Owner::Client {
            client: handle,
            sequence,
            part,
        } = owner
        else {
            return;
        };
        let in_doubt = match outcome {
            Outcome::Unknown => true,
            Outcome::Unanswered(_) => part != WHOLE,
            Outcome::Reply(_) | Outcome::NotSent(_) => false,
        };
        if in_doubt && access == Access::Write {
            self.shards[shard].counters.indoubt.add(1);
        }
        let snapshot = self.snapshot.clone();
        let name = |shard: usize| snapshot.shard_name(shard);
        let ours = !matches!(outcome, Outcome::Reply(_));
        let Some(client) = self.client(handle) else {
            return;
        };
        if part == SCAN_STEP && matches!(&outcome, Outcome::Reply(reply) if reply[0] != b'-') {
            // It came by a way on which nobody knows of which run it is.
            return self.scan_again(handle, sequence);
        }
        if matches!(part, WHOLE | SCAN_STEP) {
            let reply = match outcome {
                Outcome::Reply(reply) => reply,
                Outcome::NotSent(line) | Outcome::Unanswered(line) => {
                    format!("{line}\r\n").into_bytes().into()
                }
                Outcome::Unknown => lost(access, name(shard)).into_bytes().into(),
            };
            client.deliver(sequence, &reply);
            let counters = &self.pools[self.shards[shard].pool].counters;
            counters.errors.add(u64::from(ours));
        } else {
            let Some(Slot::Split(split)) = client.slots.get_mut(sequence) else {
                return;
            };
            if !split.settle(part, outcome) {
                return;
            }
            let reply = split.answer(access == Access::Write, name);
            let ours = split.lost_a_part() || reply == UNMERGEABLE;
            let waits = client.blocking.as_ref();
            if waits.is_some_and(|waits| {
                waits.sequence == Some(sequence) && waits::is_satisfied(&waits.asked_for, &reply)
            }) {
                client.writes.told();
            }
            client.deliver(sequence, &reply);
            let counters = &self.pools[self.shards[shard].pool].counters;
            counters.errors.add(u64::from(ours));
        }
        self.delivered(handle);
    }

    /// Something has come for a client.
    pub(super) fn delivered(&mut self, handle: Handle) {
        let Some(client) = self.client(handle) else {
            return;
        };
        if let Some(recent) = &mut client.recent {
            recent.settle(&client.slots, boot_nanos);
        }
        if client.output.len() > OUTPUT_LIMIT {
            let pool = usize::from(client.pool);
            self.pools[pool].counters.overflowed.add(1);
            return self.close_client(handle);
        }
        self.touch_client(handle);
        self.reconsider(handle);
    }
}

/// Whether `piece` of a string, behind which so many bytes are still to come, has the CRLF at the string's end as
/// far as it reaches into it.
fn may_be_the_end(piece: &[u8], remaining: usize) -> bool {
    let end = &b"\r\n"[..2_usize.saturating_sub(remaining)];
    piece.ends_with(&end[end.len().saturating_sub(piece.len())..])
}

/// The server's answer to AUTH where it asks for no password: it serves all the same.
fn needs_no_password(reply: &[u8]) -> bool {
    [&b"without any password"[..], b"no password is set"]
        .iter()
        .any(|words| memchr::memmem::find(reply, words).is_some())
}

/// The answer to a request whose connection was lost after it was written.
fn lost(access: Access, shard: &str) -> String {
    if access == Access::Write {
        format!(
            "-INDOUBT write to shard \"{shard}\" was sent but not confirmed before its master was \
             lost\r\n"
        )
    } else {
        format!("-ERR shard \"{shard}\" was lost before it answered\r\n")
    }
}
