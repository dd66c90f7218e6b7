//! Writes what a round has gathered: one write for each backend, then one for each client.
//!
//! The last look at the lease stands here, right before the bytes leave: a worker that was stopped
//! between routing and writing sends no write to a master that may have been replaced meanwhile.

use std::collections::HashSet;

use rustix::io::Errno;

use super::Worker;
use super::boot_nanos;
use super::losses::Loss;
use crate::backend::{Phase, Pin};
use crate::command::Access;
use crate::inflight::Owner;
use crate::reactor::Handle;

impl Worker {
    pub(super) fn flush_backends(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty_backends);
        for handle in dirty.drain(..) {
            self.flush_backend(handle);
        }
        // Losing a backend may have made others dirty: they keep their place for the next round.
        if self.dirty_backends.is_empty() {
            self.dirty_backends = dirty;
        }
    }

    fn flush_backend(&mut self, handle: Handle) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        backend.dirty = false;
        if backend.phase == Phase::Connecting || backend.unwritten().is_empty() {
            return self.watch_backend(handle);
        }
        let shared = backend.pin == Pin::Shared;
        if let Pin::Replica(id) = backend.pin
            && !self.may_read(handle, id)
        {
            return self.lose_backend(handle, &Loss::Ours("its lease ended before the read"));
        }
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if backend.has_unwritten_writes() && !self.may_write(handle) {
            if !shared {
                return self.lose_backend(handle, &Loss::Ours("its lease ended before EXEC"));
            }
            self.withhold(handle);
        }
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if backend.has_unwritten_writes() && backend.stalled || backend.unwritten().is_empty() {
            return self.watch_backend(handle);
        }
        match rustix::io::write(&backend.socket, backend.unwritten()) {
            Ok(count) => backend.wrote(count),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return self.lose_backend(handle, &Loss::Broken("write", error)),
        }
        self.watch_backend(handle);
    }

    /// The lease of the backend's shard holds at this very moment, and is for the backend's server.
    fn may_write(&mut self, handle: Handle) -> bool {
        let Some(backend) = self.backend(handle) else {
            return false;
        };
        let (shard, ending) = (backend.shard, backend.phase == Phase::Ending);
        if ending {
            // The lease of today is another server's.
            backend.stalled = true;
            return false;
        }
        let holds = boot_nanos() < self.snapshot.routes[shard].lease.until();
        if let Some(backend) = self.backend(handle) {
            backend.stalled = !holds;
        }
        if !holds {
            self.shards[shard].leased = false;
        }
        holds
    }

    /// Takes the writes that have not begun to leave back and holds them; reads may go on.
    fn withhold(&mut self, handle: Handle) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let (shard, lane) = (backend.shard, backend.lane);
        let mut behind = HashSet::new();
        for (pending, frame) in backend.take_unwritten() {
            let Owner::Client { client, .. } = pending.owner else {
                continue;
            };
            let follows = behind.contains(&client);
            if pending.access == Access::Read && !follows {
                let millis = self.now.millis;
                if let Some(backend) = self.backend(handle) {
                    backend.push(pending.owner, pending.access, &frame, millis);
                    backend.note_held(pending.held_ms);
                    backend.note_replies(pending.replies);
                }
                continue;
            }
            behind.insert(client);
            self.hold(shard, lane, pending, frame);
        }
        if let Some(backend) = self.backend(handle) {
            // What is left of a write has begun to leave: nothing may follow it until it may end.
            backend.stalled = backend.has_unwritten_writes();
        }
    }

    /// Lets a connection go on whose lease ended in the midst of a write: with the write once the
    /// lease is back; without it once nothing else is unanswered there, because half a request is
    /// never executed, and the reads behind it need not wait.
    pub(super) fn tend_stalled(&mut self) {
        let stalled: Vec<Handle> = self
            .backends
            .iter()
            .filter(|(_, backend)| backend.stalled)
            .map(|(_, backend)| backend.handle)
            .collect();
        for handle in stalled {
            if self.may_write(handle) {
                self.touch_backend(handle);
            } else if self.backend(handle).is_some_and(|it| !it.awaits_reply()) {
                self.lose_backend(
                    handle,
                    &Loss::Ours("its lease ended in the midst of a write"),
                );
            }
        }
    }

    pub(super) fn flush_clients(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty_clients);
        for handle in dirty.drain(..) {
            self.flush_client(handle);
        }
        if self.dirty_clients.is_empty() {
            self.dirty_clients = dirty;
        }
    }

    fn flush_client(&mut self, handle: Handle) {
        let Some(client) = self.client(handle) else {
            return;
        };
        client.dirty = false;
        client.drop_muted();
        if !client.output.is_empty() {
            match rustix::io::write(&client.socket, client.output.filled()) {
                Ok(count) => client.sent(count),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return self.client_lost(handle),
            }
        }
        if client.tracking.is_some() {
            self.tell_again(handle);
        }
        let Some(client) = self.client(handle) else {
            return;
        };
        if client.closing && client.idle() {
            return self.close_client(handle);
        }
        self.watch_client(handle);
        self.reconsider(handle);
    }
}
