//! WATCH and UNWATCH, and EXEC of a client that watches.
//!
//! Only WATCH and EXEC go on the connection that watches. A client that watches has nothing unanswered when
//! one of the two is sent, and nothing of it is taken until that is answered: so what it reads in between,
//! on the connection that it shares, was read after WATCH was executed, and nothing overtakes.
//!
//! The rule: EXEC is executed on the very connection that watches, or not at all. Whatever else becomes
//! of that connection (it is lost, its master was replaced, the lease is over, the ring has changed)
//! EXEC answers null, as if a key had changed, for who watches is ready for that; INDOUBT remains for an
//! EXEC that writes, was sent and not answered. Called by `local`, `transaction` and `pinned`.

use std::sync::Arc;

use super::Worker;
use super::dispatch::{Request, Step};
use super::pinned::Own;
use crate::backend::{Phase, Pin};
use crate::client::Gate;
use crate::coalesce::Outcome;
use crate::command::{self, Access};
use crate::inflight::{Owner, Pending};
use crate::lane::Protocol;
use crate::reactor::Handle;
use crate::transaction::{Transaction, Watch};

const OK: &[u8] = b"+OK\r\n";
const UNWATCH: &[u8] = b"*1\r\n$7\r\nUNWATCH\r\n";

impl Worker {
    /// Watches keys of one shard, once the client has a connection there.
    pub(super) fn watch(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let pool = self.client(handle).map(|client| usize::from(client.pool));
        let (Some(pool), Some(command)) = (pool, command::lookup(request.arg(0))) else {
            return Step::Taken;
        };
        let shard = match self.only_shard(handle, pool, command, request) {
            Ok(shard) => shard,
            Err(step) => return step,
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
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let (lane, has) = (client.lane, client.watch.as_ref().map(|it| it.backend));
        match self.pin(has, shard, lane, Pin::Client) {
            Own::Ready(backend) => {
                self.keep_watching(handle, shard, backend);
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
            Own::Opening(backend) => {
                self.keep_watching(handle, shard, backend);
                self.wait_to_watch(handle, shard, frame)
            }
            Own::Later => self.wait_to_watch(handle, shard, frame),
            Own::Never(reason) => {
                self.unwatch(handle);
                self.cannot_forward(handle, &reason)
            }
        }
    }

    fn wait_to_watch(&mut self, handle: Handle, shard: usize, frame: &[u8]) -> Step {
        let step = self.park(handle, shard, frame.len());
        if step == Step::Taken {
            self.unwatch(handle);
        }
        step
    }

    /// Notes that this connection is the client's, to watch on.
    fn keep_watching(&mut self, handle: Handle, shard: usize, pinned: Handle) {
        if let Some(client) = self.clients.get_mut(handle.index as usize)
            && client.watch.as_ref().is_none_or(|it| it.backend != pinned)
        {
            let router = self.pools[usize::from(client.pool)].router.clone();
            client.watch = Some(Box::new(Watch {
                shard,
                router,
                backend: pinned,
                armed: false,
            }));
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
        if let Some(client) = self.client(handle) {
            client.note_writes(access, &[shard]);
        }
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

    /// Answers what was certainly not executed: an EXEC as if a key had changed; a WATCH as if it had
    /// been, for its EXEC will be answered so.
    pub(super) fn spoil(&mut self, shard: usize, pending: Pending, protocol: Protocol) {
        let reply = if pending.replies > 1 {
            null(protocol)
        } else {
            OK
        };
        let outcome = Outcome::Reply(reply.into());
        self.settle(shard, pending.owner, pending.access, outcome);
    }
}

/// Nothing, where an array could be.
pub(super) fn null(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    }
}
