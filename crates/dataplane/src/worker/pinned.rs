//! Connections that one client has to itself: while it watches keys, while it blocks, and while it subscribes;
//! and those on which a worker is told what changes.
//!
//! ```text
//!  opened ──► a client's ──► leaving: its last request is sent ──(last reply)──► spare ──► a client's …
//! ```
//! They are opened when a client needs one and kept for the next; their number is bounded. On one that is
//! being opened for a shard without a master the client waits as it does for the one that all share. What
//! is to be done about what was on one when it was lost is said by `watches`, `blocking`, `pubsub` and `witnesses`.
//! Called by these, and by what loses connections.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::Worker;
use super::losses::{Loss, strerror};
use crate::backend::{Backend, Phase, Pin, Progress};
use crate::client::{Client, Gate};
use crate::coalesce::Outcome;
use crate::command::Access;
use crate::inflight::{Owner, Slot, WHOLE};
use crate::lane::LaneKey;
use crate::reactor::Handle;
use crate::snapshot::{NANOS_A_MILLI, Nanos};
use crate::socket;

/// A connection on which the proxy listens that is lost sooner than this is not opened again at once.
const SHORT_LIFE: Nanos = 100 * NANOS_A_MILLI;
/// Connections of the process that clients may have to themselves.
const MOST_PINNED: usize = 4096;
/// The same of subscribers, which have one for each shard and keep it.
const MOST_EARS: usize = 32_768;
/// Connections of one shard and worker that are kept for the next client.
const MOST_SPARE: usize = 16;

/// What becomes of a client's wish for a connection of its own.
pub(super) enum Own {
    /// It can be used.
    Ready(Handle),
    /// It is being made.
    Opening(Handle),
    /// It cannot be made yet.
    Later,
    /// There is no server to connect to, and will be none; the reason.
    Never(String),
}

impl Worker {
    /// Notes that a connection on which the proxy listens was lost: whether it had been made, and when it is due again
    /// if not at once.
    pub(super) fn note_listener_lost(
        &mut self,
        backend: &Backend,
        loss: &Loss,
    ) -> (bool, Option<u32>) {
        let shard = backend.shard;
        self.note_failure(shard, loss, backend.begun);
        let made = !matches!(backend.phase, Phase::Connecting | Phase::Greeting);
        let lived = self.now.nanos.saturating_sub(backend.begun);
        let served = made && lived >= SHORT_LIFE;
        let retry_ms = (!served).then(|| self.shards[shard].next_retry(self.now.millis));
        (made, retry_ms)
    }

    /// A connection of one's own to this shard: that which the client `has`, a spare one, or one that is opened
    /// now. Whoever asks keeps its name.
    pub(super) fn pin(
        &mut self,
        has: Option<Handle>,
        shard: usize,
        lane: LaneKey,
        pin: Pin,
    ) -> Own {
        if let Some(backend) = has.and_then(|has| self.backend(has)) {
            return match backend.phase {
                Phase::Ready => Own::Ready(backend.handle),
                _ => Own::Opening(backend.handle),
            };
        }
        if let Some(spare) = self.take_spare(shard, lane) {
            if let Some(backend) = self.backend(spare) {
                backend.pin = pin;
            }
            return Own::Ready(spare);
        }
        if let Some(reason) = self.failing_reason(shard, lane) {
            return Own::Never(reason);
        }
        let state = &self.shards[shard];
        let Some(endpoint) = state.endpoint.clone() else {
            // Its name has no address; unless nobody has looked yet.
            let never = state.fixed && self.snapshot.epoch > 0;
            return if never {
                Own::Never(strerror(Errno::HOSTDOWN))
            } else {
                Own::Later
            };
        };
        if state.pin_retry_ms.is_some_and(|at| !self.due(at)) {
            return Own::Later;
        }
        if let Some(reason) = self.too_many_pinned(pin) {
            return Own::Never(reason);
        }
        self.shards[shard].counters.attempts.add(1);
        match socket::connect(&endpoint) {
            Ok(socket) => self.open_pinned(shard, lane, pin, socket),
            Err(error) => self.pin_failed(shard, &Loss::io("connect", &error)),
        }
    }

    /// A connection of this client's own is being made: until it is there, looking at its request again is in vain.
    pub(super) fn waits_for_own(&self, handle: Handle) -> bool {
        let own = self
            .clients
            .get(handle.index as usize)
            .filter(|client| client.handle == handle)
            .and_then(Client::own_to_come);
        own.and_then(|own| {
            self.backends
                .get(own.index as usize)
                .filter(|it| it.handle == own)
        })
        .is_some_and(|backend| matches!(backend.phase, Phase::Connecting | Phase::Greeting))
    }

    fn open_pinned(&mut self, shard: usize, lane: LaneKey, pin: Pin, socket: OwnedFd) -> Own {
        match self.add_backend(shard, lane, pin, socket) {
            Ok(pinned) => Own::Opening(pinned),
            Err(error) => self.pin_failed(shard, &Loss::io("watch", &error)),
        }
    }

    fn pin_failed(&mut self, shard: usize, loss: &Loss) -> Own {
        self.note_failure(shard, loss, self.now.nanos);
        if self.shards[shard].fixed {
            return Own::Never(loss.reason());
        }
        let retry_ms = self.shards[shard].next_retry(self.now.millis);
        self.shards[shard].pin_retry_ms = Some(retry_ms);
        Own::Later
    }

    /// A connection of this lane that nobody has.
    fn take_spare(&mut self, shard: usize, lane: LaneKey) -> Option<Handle> {
        let spares = std::mem::take(&mut self.shards[shard].spares);
        let mut found = None;
        for handle in spares.into_iter().rev() {
            match self.backend(handle) {
                Some(backend) if !backend.is_spare() => {}
                Some(backend) if found.is_none() && backend.lane == lane => found = Some(handle),
                Some(_) => self.shards[shard].spares.push(handle),
                None => {}
            }
        }
        found
    }

    /// Why no further connection may be opened; a spare one elsewhere makes room for it.
    fn too_many_pinned(&mut self, pin: Pin) -> Option<String> {
        let subscribes = |pin: Pin| matches!(pin, Pin::Subscriber(_) | Pin::Witness);
        let (most, who) = if subscribes(pin) {
            (MOST_EARS, "subscribe or track")
        } else {
            (MOST_PINNED, "watch keys or block")
        };
        let limit = (most / self.workers).max(1);
        if self.backends.len() < limit {
            return None;
        }
        let mut pinned = self
            .backends
            .iter()
            .map(|(_, backend)| backend)
            .filter(|backend| backend.pin.is_own() && subscribes(backend.pin) == subscribes(pin));
        if pinned.clone().count() < limit {
            return None;
        }
        let spare = pinned.find(|backend| backend.is_spare());
        let Some(spare) = spare.map(|backend| backend.handle) else {
            return Some(format!(
                "too many clients {who}: Shoal opens up to {most} connections for them"
            ));
        };
        self.backends.remove(spare.index as usize);
        None
    }

    /// Sends on a pinned connection; nothing of the client is taken until it is answered. Gives the number of the
    /// slot that waits for that.
    pub(super) fn send_pinned(
        &mut self,
        handle: Handle,
        to: Handle,
        access: Access,
        frame: &[u8],
        replies: u32,
    ) -> Option<u32> {
        let client = self.client(handle)?;
        client.gate = Gate::Full { resume_at: 0 };
        let sequence = client.slots.push(Slot::Waiting);
        let owner = Owner::Client {
            client: handle,
            sequence,
            part: WHOLE,
        };
        self.send(to, owner, access, frame);
        if let Some(backend) = self.backend(to) {
            backend.note_replies(replies);
        }
        Some(sequence)
    }

    pub(super) fn leave_pinned(&mut self, pinned: Handle) {
        if let Some(backend) = self.backend(pinned) {
            backend.phase = Phase::Leaving;
        }
    }

    /// Something was answered on a connection that takes nothing new: after the last answer it is
    /// closed, or free for the next client.
    pub(super) fn answered_last(&mut self, handle: Handle) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if backend.has_inflight() {
            return;
        }
        let (shard, leaving) = (backend.shard, backend.phase == Phase::Leaving);
        if !leaving || self.shards[shard].spares.len() >= MOST_SPARE {
            self.backends.remove(handle.index as usize);
        } else if let Some(backend) = self.backend(handle) {
            backend.phase = Phase::Ready;
            backend.pin = Pin::Nobody;
            self.shards[shard].spares.push(handle);
        }
    }

    /// The server refused what it was sent because it is no master that serves.
    pub(super) fn refuse_pinned(&mut self, handle: Handle) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let (shard, protocol) = (backend.shard, backend.lane.protocol);
        let frame: Box<[u8]> = backend.front_bytes().into();
        let pending = backend.pop();
        self.shards[shard].counters.refusals.add(1);
        if let Some(pending) = pending {
            if self.is_blocking(pending.owner) {
                self.block_again(shard, &pending, &frame, Progress::Written);
                let retry_ms = self.shards[shard].next_retry(self.now.millis);
                self.shards[shard].pin_retry_ms = Some(retry_ms);
            } else if pending.owner.is_whole() {
                self.spoil(shard, pending, protocol);
            } else {
                self.settle(shard, pending.owner, pending.access, Outcome::Unknown);
            }
        }
        let loss = Loss::Ours("refused a request: not a master that serves");
        self.lose_backend(handle, &loss);
    }

    /// A pinned connection is no more: decides what becomes of what was on it.
    pub(super) fn lose_pinned(&mut self, backend: Backend, loss: &Loss) {
        if let Pin::Subscriber(client) = backend.pin {
            return self.lose_ear(&backend, client, loss);
        }
        if backend.pin == Pin::Witness {
            return self.lose_witness(&backend, loss);
        }
        let (shard, lane) = (backend.shard, backend.lane);
        let made = !matches!(backend.phase, Phase::Connecting | Phase::Greeting);
        let fixed = self.shards[shard].fixed;
        if fixed && !made {
            // Before the server may be ejected for it: what waited for it is not for another one.
            self.answer_waiting(shard, lane, loss.reason());
        }
        if !backend.is_spare() {
            self.note_failure(shard, loss, backend.begun);
        }
        for (pending, progress, frame) in backend.dissolve() {
            let written = progress == Progress::Written;
            let of_wait = !pending.owner.is_whole();
            if of_wait || written && pending.access == Access::Write {
                self.settle(shard, pending.owner, pending.access, Outcome::Unknown);
            } else if self.is_blocking(pending.owner) {
                if written && fixed {
                    let outcome = Outcome::NotSent(format!("-ERR {}", loss.reason()));
                    self.settle(shard, pending.owner, pending.access, outcome);
                } else {
                    self.block_again(shard, &pending, &frame, progress);
                }
            } else {
                self.spoil(shard, pending, lane.protocol);
            }
        }
        if !fixed && !made {
            let retry_ms = self.shards[shard].next_retry(self.now.millis);
            self.shards[shard].pin_retry_ms = Some(retry_ms);
        }
    }
}
