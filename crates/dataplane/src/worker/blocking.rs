//! Requests that wait at the server: BLPOP and its kin, XREAD with BLOCK.
//!
//! Each goes alone on a connection that is the client's for so long, once all that the client sent before is
//! answered; nothing of the client is taken until it is answered, as in a server. A client that leaves
//! takes its connection with it, so that nothing is popped for nobody.
//!
//! The rule: a request that certainly was not executed (it was not sent, or the server sent it away because
//! it is no master that serves) is never shown to have failed: it goes back to the front of what the client
//! has sent, is looked at again like any request, held while there is no master, and sent with what is left
//! of its time. When its connection is lost while it waits, one that only reads is sent again too; one that
//! pops or moves is INDOUBT. Called by `dispatch`, `accept`, `pinned`
//! and `waits`.

use super::Worker;
use super::dispatch::{Request, Step};
use super::pinned::Own;
use super::watches::null;
use crate::backend::{Backend, Phase, Pin, Progress};
use crate::blocking::{self, Blocking};
use crate::buffer::ByteQueue;
use crate::client::{Client, Gate};
use crate::coalesce::Outcome;
use crate::command::{Access, Command, Wait};
use crate::inflight::{Owner, Pending, WHOLE};
use crate::reactor::Handle;
use crate::resp::RequestScan;

impl Worker {
    /// A request that waits begins once all before it is answered, and not for a client that has left, as nothing is
    /// to be popped for nobody; what becomes of one that does not begin.
    pub(super) fn not_alone(&mut self, handle: Handle) -> Option<Step> {
        let Some(client) = self.client(handle) else {
            return Some(Step::Taken);
        };
        if !client.slots.is_empty() {
            client.gate = Gate::Full { resume_at: 0 };
            return Some(Step::Kept);
        }
        if client.ended {
            self.client_gone(handle);
            return Some(Step::Taken);
        }
        None
    }

    /// Sends a request that may wait, or keeps it until the client has a connection for it.
    pub(super) fn dispatch_blocking(
        &mut self,
        handle: Handle,
        pool: usize,
        command: &'static Command,
        wait: Wait,
        request: Request<'_>,
    ) -> Step {
        let Some(place) = blocking::timeout_at(wait, request.frame, request.args) else {
            return self.dispatch_single(handle, pool, command, request);
        };
        let shard = match self.only_shard(handle, pool, command, request) {
            Ok(shard) => shard,
            Err(step) => {
                self.forget_blocking(handle);
                return step;
            }
        };
        let now = self.now.nanos;
        if let Some(step) = self.not_alone(handle) {
            return step;
        }
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let (lane, protocol) = (client.lane, client.lane.protocol);
        let waits = match &client.blocking {
            Some(waits) if !waits.is_sent() => waits,
            _ => {
                let timeout = blocking::timeout_ms(wait, request.arg(place));
                &*client
                    .blocking
                    .insert(Box::new(Blocking::new(now, timeout)))
            }
        };
        let (since, until, has) = (waits.since, waits.until, waits.own_at(shard));
        let moved = has.is_none() && !waits.own.is_empty();
        if waits.is_over(now) {
            self.forget_blocking(handle);
            return self.answer(handle, null(protocol));
        }
        if moved {
            // The ring has changed since.
            self.give_own_back(handle);
        }
        if command.access == Access::Write && !self.lease_holds(shard) {
            return self.wait_to_block(handle, shard, request);
        }
        match self.pin(has, shard, lane, Pin::Blocked) {
            Own::Ready(backend) => {
                let left = until.filter(|_| since < now);
                match left.map(|until| blocking::remaining(wait, until - now)) {
                    Some(left) => {
                        let frame = request.with_argument(place, left.as_bytes());
                        self.block(handle, shard, backend, command.access, &frame);
                    }
                    None => self.block(handle, shard, backend, command.access, request.frame),
                }
                Step::Taken
            }
            Own::Opening(backend) => {
                if let Some(waits) = self.client(handle).and_then(|it| it.blocking.as_mut()) {
                    waits.keep(shard, backend);
                }
                self.wait_to_block(handle, shard, request)
            }
            Own::Later => self.wait_to_block(handle, shard, request),
            Own::Never(reason) => {
                self.forget_blocking(handle);
                self.cannot_forward(handle, &reason)
            }
        }
    }

    fn block(&mut self, handle: Handle, shard: usize, to: Handle, access: Access, frame: &[u8]) {
        let now = self.now.nanos;
        let sequence = self.send_pinned(handle, to, access, frame, 1);
        self.leave_pinned(to);
        let Some(client) = self.client(handle) else {
            return;
        };
        client.note_writes(access, &[shard]);
        if let Some(waits) = &mut client.blocking {
            waits.keep(shard, to);
            waits.sequence = sequence;
            waits.sent_at = now;
        }
    }

    /// Keeps the request; if it has been kept too long, it is answered and forgotten.
    pub(super) fn wait_to_block(
        &mut self,
        handle: Handle,
        shard: usize,
        request: Request<'_>,
    ) -> Step {
        if let Some(client) = self.client(handle)
            && let Some(since) = client.blocking.as_ref().and_then(|it| it.refused_since)
        {
            client.held_since = since;
        }
        let step = self.park(handle, shard, request.frame.len());
        if step == Step::Taken {
            self.forget_blocking(handle);
        }
        step
    }

    /// The client's request does not wait any more without having been sent.
    pub(super) fn forget_blocking(&mut self, handle: Handle) {
        self.give_own_back(handle);
        if let Some(client) = self.client(handle) {
            client.blocking.take_if(|waits| !waits.is_sent());
        }
    }

    fn give_own_back(&mut self, handle: Handle) {
        let client = self.client(handle);
        let waits = client.and_then(|client| client.blocking.as_mut());
        let own = waits
            .filter(|waits| !waits.is_sent())
            .map(|waits| std::mem::take(&mut waits.own));
        for (_, backend) in own.into_iter().flatten() {
            self.give_back(backend);
        }
    }

    /// A connection on which nothing was sent is free for the next client.
    fn give_back(&mut self, pinned: Handle) {
        let Some(backend) = self.backend(pinned) else {
            return;
        };
        if backend.phase == Phase::Ready {
            self.leave_pinned(pinned);
            self.answered_last(pinned);
        } else {
            self.backends.remove(pinned.index as usize);
        }
    }

    /// A client has left: the server is to pop nothing for it any more.
    pub(super) fn stop_blocking(&mut self, client: &Client) {
        let Some(waits) = &client.blocking else {
            return;
        };
        for &(_, own) in &waits.own {
            let waited_for = |backend: &mut Backend| backend.is_waited_for(client.handle);
            if client.blocks() && self.backend(own).is_some_and(waited_for) {
                self.backends.remove(own.index as usize);
            } else if !waits.is_sent() {
                self.give_back(own);
            }
        }
    }

    /// This request waits whole at a server, or is on its way there to wait.
    pub(super) fn is_blocking(&mut self, owner: Owner) -> bool {
        let Owner::Client {
            client,
            sequence,
            part: WHOLE,
        } = owner
        else {
            return false;
        };
        self.client(client).is_some_and(|client| {
            let waits = client.blocking.as_ref();
            client.blocks() && waits.is_some_and(|waits| waits.sequence == Some(sequence))
        })
    }

    /// Puts a request that waited, and was not executed, back to the front of what its client has sent. One that
    /// would begin to read at another place than it did is answered with an error.
    pub(super) fn block_again(
        &mut self,
        shard: usize,
        pending: &Pending,
        frame: &[u8],
        progress: Progress,
    ) {
        let Owner::Client { client: handle, .. } = pending.owner else {
            return;
        };
        let now = self.now.nanos;
        let Some(client) = self.client(handle) else {
            return;
        };
        let written = progress == Progress::Written;
        if client.closing || written && blocking::reads_from_now_on(frame) {
            let name = self.snapshot.shard_name(shard);
            let line = format!(
                "-ERR shard \"{name}\" was lost while the request waited there, and what was added meanwhile is not known"
            );
            let outcome = Outcome::NotSent(line);
            return self.settle(shard, pending.owner, pending.access, outcome);
        }
        client.slots.pop_head();
        if let Some(waits) = &mut client.blocking {
            waits.sequence = None;
            waits.own.clear();
            if written {
                waits.sent_away(now);
            }
        }
        let mut input = ByteQueue::default();
        input.push(frame);
        input.push(client.input.filled());
        client.input = input;
        client.scan = RequestScan::default();
        client.needed = 0;
        // Its gate is closed, as always while it waits: it opens when all that concerns the shard is done.
        self.reconsider(handle);
    }
}
