//! Requests whose shard has no master they may go to: kept, bounded in time and bytes, then sent on.
//!
//! Two kinds wait. A client whose next request cannot be taken is *parked*: the request stays in its
//! input, nothing behind it is looked at, and its order holds by itself. A request that was taken and
//! came back (its connection was lost before it was written, it is a read without an answer, or it was
//! refused before it was executed) is *held* with its bytes, and goes out before any parked client.
//! A request whose client is gone is dropped, never sent.

use std::collections::HashSet;
use std::time::Duration;

use rustix::io::Errno;

use super::Worker;
use super::dispatch::Step;
use super::losses::{Loss, strerror};
use super::shard::Held;
use crate::client::Gate;
use crate::coalesce::Outcome;
use crate::command::Access;
use crate::inflight::{Owner, Pending, SCAN_STEP};
use crate::lane::LaneKey;
use crate::reactor::Handle;
use crate::snapshot::{NANOS_A_MILLI, Nanos};

/// Why a request is no longer held.
pub(super) enum Over {
    Time(Nanos),
    Bytes(usize),
}

/// Whether a shard can take a request.
pub(super) enum Room {
    /// On this connection.
    Ready(Handle),
    /// Not yet: it may be held.
    Later,
    /// There is no server that could, and will be none; the reason.
    Never(String),
    /// It waited for a connection that could not be made; the reason.
    Failed(String),
}

impl Worker {
    /// The connection that may take a request of this lane now, if there is one.
    pub(super) fn takes(&mut self, shard: usize, lane: LaneKey, access: Access) -> Room {
        if access == Access::Write && !self.lease_holds(shard) {
            return Room::Later;
        }
        if let Some(ready) = self.shards[shard].ready(lane) {
            return Room::Ready(ready);
        }
        let state = &self.shards[shard];
        if state.fixed && state.endpoint.is_none() {
            if self.snapshot.epoch == 0 {
                return Room::Later; // nobody has looked yet where it is
            }
            // Its name has no address: Twemproxy's word for it, and a failure like any other.
            let loss = Loss::Broken("look up", Errno::HOSTDOWN);
            self.note_failure(shard, &loss, self.now.nanos);
            return Room::Never(strerror(Errno::HOSTDOWN));
        }
        match self.failing_reason(shard, lane) {
            Some(reason) => Room::Failed(reason),
            None => match self.want_lane(shard, lane) {
                Some(reason) => Room::Never(reason),
                None => Room::Later,
            },
        }
    }

    /// Keeps a client's next request until its shard can take it, or refuses it when its time or the
    /// space for it is over.
    pub(super) fn park(&mut self, handle: Handle, shard: usize, bytes: usize) -> Step {
        let now = self.now.nanos;
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let newly = client.held_since == 0;
        if newly {
            client.held_since = now;
        }
        let since = client.held_since;
        let pool = usize::from(client.pool);
        if now.saturating_sub(since) >= self.hold_nanos(pool) {
            let line = self.masterdown(shard, &Over::Time(now - since));
            return self.answer(handle, format!("{line}\r\n").as_bytes());
        }
        if let Some(limit) = self.over_hold_bytes(pool, bytes) {
            let line = self.masterdown(shard, &Over::Bytes(limit));
            return self.answer(handle, format!("{line}\r\n").as_bytes());
        }
        self.pools[pool].held_bytes += bytes;
        if let Some(client) = self.client(handle) {
            client.gate = Gate::Parked { shard, bytes };
        }
        self.shards[shard].parked.push_back(handle);
        self.shards[shard].counters.held.add(u64::from(newly));
        Step::Kept
    }

    /// Keeps a request that was taken already. What it was held before counts: one that comes back
    /// again and again is held no longer than any other. One that nobody waits for is dropped; one for a
    /// shard that was removed is refused, for it will never be taken.
    pub(super) fn hold(&mut self, shard: usize, key: LaneKey, pending: Pending, frame: Box<[u8]>) {
        let Owner::Client { client: owner, .. } = pending.owner else {
            return;
        };
        if self.client(owner).is_none() {
            return;
        }
        if let Owner::Client {
            sequence,
            part: SCAN_STEP,
            ..
        } = pending.owner
        {
            return self.scan_again(owner, sequence);
        }
        if self.snapshot.routes[shard].leaving {
            return self.refuse_removed(shard, pending.owner, pending.access);
        }
        let pool = self.shards[shard].pool;
        let before = Nanos::from(pending.held_ms) * NANOS_A_MILLI;
        let held = Held {
            owner: pending.owner,
            access: pending.access,
            replies: pending.replies,
            lane: key,
            since: self.now.nanos.saturating_sub(before),
            frame,
        };
        if self.over_hold_bytes(pool, held.frame.len()).is_some() {
            let line = self.masterdown(shard, &Over::Bytes(self.hold_bytes(pool)));
            return self.settle(shard, held.owner, held.access, Outcome::NotSent(line));
        }
        self.pools[pool].held_bytes += held.frame.len();
        if let Some(client) = self.client(owner) {
            client.held += 1;
            self.watch_client(owner);
        }
        self.shards[shard].counters.held.add(1);
        self.shards[shard].held.push_back(held);
    }

    /// Sends on what waits for a shard, as far as it can take it.
    pub(super) fn release(&mut self, shard: usize) {
        self.release_held(shard);
        let parked = std::mem::take(&mut self.shards[shard].parked);
        for handle in parked {
            if self.waits_for_own(handle) {
                self.shards[shard].parked.push_back(handle);
            } else if self.unpark(handle, shard) {
                self.take_from_input(handle);
            }
        }
    }

    fn release_held(&mut self, shard: usize) {
        let pool = self.shards[shard].pool;
        let mut held = std::mem::take(&mut self.shards[shard].held);
        // They came back in no order; only the order of each client's own matters.
        held.make_contiguous()
            .sort_by(|a, b| a.owner.in_order(b.owner));
        let mut behind: HashSet<Handle> = HashSet::new();
        for request in held {
            let Owner::Client { client, .. } = request.owner else {
                continue;
            };
            if self.client(client).is_none() {
                self.no_longer_held(pool, &request);
                continue;
            }
            let room = if behind.contains(&client) {
                Room::Later
            } else {
                self.takes(shard, request.lane, request.access)
            };
            match room {
                Room::Ready(backend) => {
                    self.no_longer_held(pool, &request);
                    let frame = self.equipped(backend, pool, &request.frame);
                    self.send(backend, request.owner, request.access, &frame);
                    let held = self.now.nanos.saturating_sub(request.since) / NANOS_A_MILLI;
                    if let Some(backend) = self.backend(backend) {
                        // Also what was held for an instant only has been held.
                        backend.note_held((held as u32).max(1));
                        backend.note_replies(request.replies);
                    }
                }
                Room::Later => {
                    behind.insert(client);
                    self.shards[shard].held.push_back(request);
                }
                Room::Never(reason) | Room::Failed(reason) => {
                    self.no_longer_held(pool, &request);
                    let outcome = Outcome::NotSent(format!("-ERR {reason}"));
                    self.settle(shard, request.owner, request.access, outcome);
                }
            }
        }
    }

    /// Refuses what came back for a shard that no key belongs to any more.
    pub(super) fn refuse_held(&mut self, shard: usize) {
        let pool = self.shards[shard].pool;
        for held in std::mem::take(&mut self.shards[shard].held) {
            self.no_longer_held(pool, &held);
            self.refuse_removed(shard, held.owner, held.access);
        }
    }

    fn refuse_removed(&mut self, shard: usize, owner: Owner, access: Access) {
        let name = self.snapshot.shard_name(shard);
        let line = format!("-ERR shard \"{name}\" was removed before it took the request");
        self.settle(shard, owner, access, Outcome::NotSent(line));
    }

    /// Takes a held request off the books.
    pub(super) fn no_longer_held(&mut self, pool: usize, held: &Held) {
        self.pools[pool].held_bytes = self.pools[pool].held_bytes.saturating_sub(held.frame.len());
        if let Owner::Client { client: owner, .. } = held.owner
            && let Some(client) = self.client(owner)
        {
            client.held = client.held.saturating_sub(1);
            self.watch_client(owner);
        }
    }

    /// A request of this client that was taken earlier is still held for this shard: nothing of the
    /// client may overtake it.
    pub(super) fn is_behind(&mut self, handle: Handle, shard: usize) -> bool {
        let held = self.client(handle).is_some_and(|client| client.held > 0);
        held && self.shards[shard]
            .held
            .iter()
            .any(|held| matches!(held.owner, Owner::Client { client, .. } if client == handle))
    }

    /// Opens the gate of a client that waits for this shard; false if it does not.
    pub(super) fn unpark(&mut self, handle: Handle, shard: usize) -> bool {
        let Some(client) = self.client(handle) else {
            return false;
        };
        let Gate::Parked { shard: at, bytes } = client.gate else {
            return false;
        };
        if at != shard {
            return false;
        }
        client.gate = client.gate_again();
        let pool = usize::from(client.pool);
        self.pools[pool].held_bytes = self.pools[pool].held_bytes.saturating_sub(bytes);
        true
    }

    /// Refuses what has been held too long.
    pub(super) fn expire_held(&mut self, shard: usize) {
        let pool = self.shards[shard].pool;
        let now = self.now.nanos;
        let limit = self.hold_nanos(pool);
        let is_old = |since: Nanos| now.saturating_sub(since) >= limit;
        if self.shards[shard]
            .held
            .iter()
            .any(|held| is_old(held.since))
        {
            let (old, young) = std::mem::take(&mut self.shards[shard].held)
                .into_iter()
                .partition(|held| is_old(held.since));
            self.shards[shard].held = young;
            for held in old {
                self.no_longer_held(pool, &held);
                let line = self.masterdown(shard, &Over::Time(now - held.since));
                self.settle(shard, held.owner, held.access, Outcome::NotSent(line));
            }
        }
        let parked = std::mem::take(&mut self.shards[shard].parked);
        for handle in parked {
            let Some(client) = self.client(handle) else {
                continue;
            };
            if !matches!(client.gate, Gate::Parked { shard: at, .. } if at == shard) {
                continue;
            }
            let waits = client.blocking.as_ref();
            let over = waits.is_some_and(|waits| waits.is_over(now));
            if (over || is_old(client.held_since)) && self.unpark(handle, shard) {
                self.take_from_input(handle);
            } else {
                self.shards[shard].parked.push_back(handle);
            }
        }
    }

    /// The error line, without CRLF, of a request that was not sent.
    pub(super) fn masterdown(&self, shard: usize, over: &Over) -> String {
        self.shards[shard].counters.masterdown.add(1);
        let name = self.snapshot.shard_name(shard);
        match over {
            Over::Time(_) if self.shards[shard].fixed => {
                format!("-ERR {}", strerror(Errno::TIMEDOUT))
            }
            Over::Bytes(limit) if self.shards[shard].fixed => {
                format!("-ERR requests that wait for shard \"{name}\" fill their {limit} bytes")
            }
            Over::Time(held) => {
                let seconds = Duration::from_nanos(*held).as_secs_f64();
                format!("-MASTERDOWN shard \"{name}\" has no master: held {seconds:.1} s")
            }
            Over::Bytes(limit) => format!(
                "-MASTERDOWN shard \"{name}\" has no master: held requests fill their {limit} bytes"
            ),
        }
    }

    pub(super) fn hold_nanos(&self, pool: usize) -> Nanos {
        self.snapshot.pools[pool].config.hold_timeout.as_nanos() as Nanos
    }

    /// This worker's part of the bytes that may be held.
    fn hold_bytes(&self, pool: usize) -> usize {
        self.snapshot.pools[pool].config.hold_bytes / self.workers
    }

    fn over_hold_bytes(&self, pool: usize, more: usize) -> Option<usize> {
        let limit = self.hold_bytes(pool);
        (self.pools[pool].held_bytes + more > limit).then_some(limit)
    }
}
