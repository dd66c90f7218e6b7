//! WATCH and UNWATCH: connections that one client has to itself until its EXEC.
//!
//! ```text
//!  opened ──► held by a client: WATCH … MULTI … EXEC ──► leaving ──(last reply)──► spare ──► held …
//! ```
//! Only WATCH and EXEC go on them. A client that watches has nothing unanswered when one of the two is
//! sent, and nothing of it is taken until that is answered: so what it reads in between, on the
//! connection that it shares, was read after WATCH was executed, and nothing overtakes.
//!
//! The rule: EXEC is executed on the very connection that watches, or not at all. Whatever else becomes
//! of that connection (it is lost, its master was replaced, the lease is over, the ring has changed)
//! EXEC answers null, as if a key had changed, for who watches is ready for that; INDOUBT remains for an
//! EXEC that writes, was sent and not answered. Called by `local`, `transaction` and what loses
//! connections.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::Worker;
use super::dispatch::{Request, Step};
use super::hold::Room;
use super::losses::{Loss, strerror};
use crate::backend::{Backend, Phase, Pin, Progress};
use crate::client::Gate;
use crate::coalesce::Outcome;
use crate::command::{self, Access};
use crate::inflight::{Owner, Pending, Slot, WHOLE};
use crate::lane::{LaneKey, Protocol};
use crate::reactor::{Handle, Token};
use crate::socket;
use crate::transaction::{Transaction, Watch};

/// Connections of the process that clients may have to themselves.
const MOST_PINNED: usize = 1024;
/// Connections of one shard and worker that are kept for the next client.
const MOST_SPARE: usize = 16;

const OK: &[u8] = b"+OK\r\n";
const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";

impl Worker {
    /// Watches keys of one shard, once the client has a connection there.
    pub(super) fn watch(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let shard = match self.watched_shard(handle, request) {
            Ok(Some(shard)) => shard,
            Ok(None) => return self.cannot_forward(handle, &strerror(Errno::CONNREFUSED)),
            Err(line) => return self.answer(handle, line.as_bytes()),
        };
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        if !client.slots.is_empty() {
            client.gate = Gate::Full { resume_at: 0 };
            return Step::Kept;
        }
        match client.watch.as_ref().map(|it| (it.armed, it.shard)) {
            Some((true, at)) if at != shard => {
                let line = format!(
                    "-CROSSSLOT a client can watch keys of one shard only: those before are on \
                     \"{}\", these on \"{}\"\r\n",
                    self.snapshot.shard_name(at),
                    self.snapshot.shard_name(shard),
                );
                return self.answer(handle, line.as_bytes());
            }
            // EXEC will say that a key has changed, whatever else is watched.
            Some((true, _)) if !self.still_watches(handle) => return self.answer(handle, OK),
            // The ring has changed while it waited for its connection.
            Some((false, at)) if at != shard => self.unwatch(handle),
            _ => {}
        }
        self.watch_at(handle, shard, request.frame)
    }

    /// Sends a WATCH, or keeps it until the client has a connection to this shard.
    fn watch_at(&mut self, handle: Handle, shard: usize, frame: &[u8]) -> Step {
        match self.pin(handle, shard) {
            Room::Ready(backend) => {
                if let Some(client) = self.clients.get_mut(handle.index as usize)
                    && let Some(watch) = &mut client.watch
                    && !watch.armed
                {
                    watch.armed = true;
                    let router = &self.pools[usize::from(client.pool)].router;
                    watch.router = router.clone();
                }
                self.send_pinned(handle, backend, Access::Read, frame, 1);
                Step::Taken
            }
            Room::Later => {
                let step = self.park(handle, shard, frame.len());
                if step == Step::Taken {
                    self.unwatch(handle);
                }
                step
            }
            Room::Never(reason) | Room::Failed(reason) => {
                self.unwatch(handle);
                self.cannot_forward(handle, &reason)
            }
        }
    }

    /// The shard of the keys of a WATCH; none if all are ejected.
    fn watched_shard(
        &mut self,
        handle: Handle,
        request: Request<'_>,
    ) -> Result<Option<usize>, String> {
        let Some(client) = self.clients.get(handle.index as usize) else {
            return Ok(None);
        };
        let router = &self.pools[usize::from(client.pool)].router;
        let mut owners = (1..request.args.len())
            .filter_map(|at| Some((at as u32, router.shard_of(request.arg(at))?)));
        let Some(first) = owners.next() else {
            return Ok(None);
        };
        match (
            owners.find(|other| other.1 != first.1),
            command::lookup(request.arg(0)),
        ) {
            (Some(other), Some(command)) => Err(self.crosses(command, request, [first, other])),
            _ => Ok(Some(first.1)),
        }
    }

    /// The client's own connection to this shard: that it has, a spare one, or one that is opened now.
    fn pin(&mut self, handle: Handle, shard: usize) -> Room {
        let Some(client) = self.client(handle) else {
            return Room::Later;
        };
        let lane = client.lane;
        let has = client.watch.as_ref().map(|watch| watch.backend);
        if let Some(backend) = has.and_then(|has| self.backend(has)) {
            return match backend.phase {
                Phase::Ready => Room::Ready(backend.handle),
                _ => Room::Later,
            };
        }
        if let Some(spare) = self.spare(shard, lane) {
            self.keep_pinned(handle, shard, spare);
            return Room::Ready(spare);
        }
        if let Some(reason) = self.failing_reason(shard, lane) {
            return Room::Never(reason);
        }
        let state = &self.shards[shard];
        let Some(endpoint) = state.endpoint.clone() else {
            // Its name has no address; unless nobody has looked yet.
            let never = state.fixed && self.snapshot.epoch > 0;
            return if never {
                Room::Never(strerror(Errno::HOSTDOWN))
            } else {
                Room::Later
            };
        };
        if state.pin_retry_ms.is_some_and(|at| !self.due(at)) {
            return Room::Later;
        }
        if let Some(reason) = self.too_many_pinned() {
            return Room::Never(reason);
        }
        self.shards[shard].counters.attempts.add(1);
        match socket::connect(&endpoint) {
            Ok(socket) => self.open_pinned(handle, shard, lane, socket),
            Err(error) => self.pin_failed(shard, &Loss::io("connect", &error)),
        }
    }

    fn open_pinned(
        &mut self,
        handle: Handle,
        shard: usize,
        lane: LaneKey,
        socket: OwnedFd,
    ) -> Room {
        let index = self.backends.vacant_key();
        let pinned = self.new_handle(index);
        let mut backend = Backend::new(pinned, socket, shard, lane, self.now.millis);
        backend.begun = self.now.nanos;
        let (watched, token) = (backend.socket.as_fd(), Token::Backend(pinned));
        if let Err(error) = self.reactor.add(watched, token, backend.interest) {
            return self.pin_failed(shard, &Loss::io("watch", &error));
        }
        self.backends.insert(backend);
        self.keep_pinned(handle, shard, pinned);
        Room::Later
    }

    fn pin_failed(&mut self, shard: usize, loss: &Loss) -> Room {
        self.note_failure(shard, loss, self.now.nanos);
        if self.shards[shard].fixed {
            return Room::Never(loss.reason());
        }
        let retry_ms = self.shards[shard].next_retry(self.now.millis);
        self.shards[shard].pin_retry_ms = Some(retry_ms);
        Room::Later
    }

    /// Notes that this connection is the client's.
    fn keep_pinned(&mut self, handle: Handle, shard: usize, pinned: Handle) {
        if let Some(backend) = self.backend(pinned) {
            backend.pin = Pin::Client;
        }
        if let Some(client) = self.clients.get_mut(handle.index as usize) {
            let router = self.pools[usize::from(client.pool)].router.clone();
            client.watch = Some(Box::new(Watch {
                shard,
                router,
                backend: pinned,
                armed: false,
            }));
        }
    }

    fn spare(&self, shard: usize, lane: LaneKey) -> Option<Handle> {
        let mut backends = self.backends.iter().map(|(_, backend)| backend);
        let spare = backends
            .find(|backend| backend.is_spare() && (backend.shard, backend.lane) == (shard, lane));
        spare.map(|backend| backend.handle)
    }

    /// Why no further connection may be opened; a spare one elsewhere makes room for it.
    fn too_many_pinned(&mut self) -> Option<String> {
        let limit = (MOST_PINNED / self.workers).max(1);
        let mut pinned = self
            .backends
            .iter()
            .map(|(_, backend)| backend)
            .filter(|backend| backend.pin != Pin::Shared);
        if pinned.clone().count() < limit {
            return None;
        }
        let spare = pinned.find(|backend| backend.is_spare());
        let Some(spare) = spare.map(|backend| backend.handle) else {
            return Some(format!(
                "too many clients watch keys: Shoal opens up to {MOST_PINNED} connections for them"
            ));
        };
        self.backends.remove(spare.index as usize);
        None
    }

    /// Sends on a pinned connection; nothing of the client is taken until it is answered.
    fn send_pinned(
        &mut self,
        handle: Handle,
        to: Handle,
        access: Access,
        frame: &[u8],
        replies: u32,
    ) {
        let Some(client) = self.client(handle) else {
            return;
        };
        client.gate = Gate::Full { resume_at: 0 };
        let owner = Owner::Client {
            client: handle,
            sequence: client.slots.push(Slot::Waiting),
            part: WHOLE,
        };
        self.send(to, owner, access, frame);
        if let Some(backend) = self.backend(to) {
            backend.note_replies(replies);
        }
    }

    /// All that the client has watched would still be known to its server at EXEC.
    fn still_watches(&mut self, handle: Handle) -> bool {
        let Some(client) = self.clients.get(handle.index as usize) else {
            return false;
        };
        let router = &self.pools[usize::from(client.pool)].router;
        let Some(watch) = &client.watch else {
            return false;
        };
        let backend = watch.backend;
        Arc::ptr_eq(router, &watch.router)
            && self
                .backend(backend)
                .is_some_and(|backend| backend.phase == Phase::Ready)
    }

    /// EXEC of a client that watches: on the connection that does, or null.
    pub(super) fn exec_watched(
        &mut self,
        handle: Handle,
        mut transaction: Box<Transaction>,
    ) -> Step {
        let fresh = self.still_watches(handle);
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let null = null(client.lane.protocol);
        let Some(shard) = client.watch.as_ref().map(|watch| watch.shard) else {
            return Step::Taken;
        };
        if !fresh {
            self.unwatch(handle);
            return self.answer(handle, null);
        }
        if transaction.access == Access::Write && !self.lease_holds(shard) {
            let step = self.park(handle, shard, transaction.whole().len());
            if step == Step::Taken {
                self.unwatch(handle);
            } else if let Some(client) = self.client(handle) {
                client.transaction = Some(transaction);
            }
            return step;
        }
        let Some(watch) = self.client(handle).and_then(|client| client.watch.take()) else {
            return Step::Taken;
        };
        let (access, replies) = (transaction.access, transaction.replies());
        self.send_pinned(handle, watch.backend, access, transaction.whole(), replies);
        self.leave_pinned(watch.backend);
        Step::Taken
    }

    /// The client watches nothing any more.
    pub(super) fn unwatch(&mut self, handle: Handle) {
        if let Some(client) = self.client(handle)
            && let Some(watch) = client.watch.take()
        {
            self.unpin(&watch);
        }
    }

    /// Gives a connection back that may watch something.
    pub(super) fn unpin(&mut self, watch: &Watch) {
        let millis = self.now.millis;
        let Some(backend) = self.backend(watch.backend) else {
            return;
        };
        if backend.phase == Phase::Ready {
            backend.push(Owner::Nobody, Access::Read, UNWATCH, millis);
            self.touch_backend(watch.backend);
            self.leave_pinned(watch.backend);
        } else if matches!(backend.phase, Phase::Connecting | Phase::Greeting) {
            self.backends.remove(watch.backend.index as usize);
        }
    }

    fn leave_pinned(&mut self, pinned: Handle) {
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
        let spares = self
            .backends
            .iter()
            .filter(|(_, backend)| backend.is_spare() && backend.shard == shard);
        if !leaving || spares.count() >= MOST_SPARE {
            self.backends.remove(handle.index as usize);
        } else if let Some(backend) = self.backend(handle) {
            backend.phase = Phase::Ready;
            backend.pin = Pin::Nobody;
        }
    }

    /// The server refused WATCH or EXEC because it is no master that serves.
    pub(super) fn refuse_pinned(&mut self, handle: Handle) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let (shard, protocol) = (backend.shard, backend.lane.protocol);
        let pending = backend.pop();
        self.shards[shard].counters.refusals.add(1);
        if let Some(pending) = pending {
            self.spoil(shard, pending, protocol);
        }
        let loss = Loss::Ours("refused a request: not a master that serves");
        self.lose_backend(handle, &loss);
    }

    /// A pinned connection is no more: decides what becomes of what was on it.
    pub(super) fn lose_pinned(&mut self, backend: Backend, loss: &Loss) {
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
        for (pending, progress, _) in backend.dissolve() {
            let written = progress == Progress::Written;
            if written && pending.access == Access::Write {
                self.settle(shard, pending.owner, pending.access, Outcome::Unknown);
            } else {
                self.spoil(shard, pending, lane.protocol);
            }
        }
        if !fixed && !made {
            let retry_ms = self.shards[shard].next_retry(self.now.millis);
            self.shards[shard].pin_retry_ms = Some(retry_ms);
        }
    }

    /// Answers what was certainly not executed: an EXEC as if a key had changed; a WATCH as if it had
    /// been, for its EXEC will be answered so.
    fn spoil(&mut self, shard: usize, pending: Pending, protocol: Protocol) {
        let reply = if pending.replies > 1 {
            null(protocol)
        } else {
            OK
        };
        let outcome = Outcome::Reply(reply.into());
        self.settle(shard, pending.owner, pending.access, outcome);
    }
}

fn null(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    }
}
