//! Requests whose shard has no master they may go to: kept, bounded in time and bytes, then sent on.
//!
//! Two kinds wait. A client whose next request cannot be taken is *parked*: the request stays in its
//! input, nothing behind it is looked at, and its order holds by itself. A request that was taken and
//! came back (its connection was lost before it was written, it is a read without an answer, or it was
//! refused before it was executed) is *held* with its bytes, and goes out before any parked client.
//! A request whose client is gone is dropped, never sent.

use std::collections::HashSet;
use std::time::Duration;

use super::Worker;
use super::dispatch::Step;
use super::shard::Held;
use crate::client::Gate;
use crate::coalesce::Outcome;
use crate::command::Access;
use crate::inflight::{Owner, Pending};
use crate::lane::LaneKey;
use crate::reactor::Handle;
use crate::snapshot::Nanos;

const NANOS_A_MILLI: Nanos = 1_000_000;

/// Why a request is no longer held.
enum Over {
    Time(Nanos),
    Bytes(usize),
}

impl Worker {
    /// The connection that may take a request of this lane now, if there is one.
    pub(super) fn takes(&mut self, shard: usize, lane: LaneKey, access: Access) -> Option<Handle> {
        if access == Access::Write && !self.lease_holds(shard) {
            return None;
        }
        let ready = self.shards[shard].ready(lane);
        if ready.is_none() {
            self.want_lane(shard, lane);
        }
        ready
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
        self.held_bytes[pool] += bytes;
        if let Some(client) = self.client(handle) {
            client.gate = Gate::Parked { shard, bytes };
        }
        self.shards[shard].parked.push_back(handle);
        self.mailbox.stats.shards[shard].held.add(u64::from(newly));
        Step::Kept
    }

    /// Keeps a request that was taken already. What it was held before counts: one that comes back
    /// again and again is held no longer than any other. One that nobody waits for is dropped.
    pub(super) fn hold(&mut self, shard: usize, key: LaneKey, pending: Pending, frame: Box<[u8]>) {
        let Owner::Client { client: owner, .. } = pending.owner else {
            return;
        };
        if self.client(owner).is_none() {
            return;
        }
        let pool = self.pool_index(shard);
        let before = Nanos::from(pending.held_ms) * NANOS_A_MILLI;
        let held = Held {
            owner: pending.owner,
            access: pending.access,
            lane: key,
            since: self.now.nanos.saturating_sub(before),
            frame,
        };
        if self.over_hold_bytes(pool, held.frame.len()).is_some() {
            let line = self.masterdown(shard, &Over::Bytes(self.hold_bytes(pool)));
            return self.settle(shard, held.owner, held.access, Outcome::NotSent(line));
        }
        self.held_bytes[pool] += held.frame.len();
        if let Some(client) = self.client(owner) {
            client.held += 1;
            self.watch_client(owner);
        }
        self.mailbox.stats.shards[shard].held.add(1);
        self.shards[shard].held.push_back(held);
    }

    /// Sends on what waits for a shard, as far as it can take it.
    pub(super) fn release(&mut self, shard: usize) {
        self.release_held(shard);
        let parked = std::mem::take(&mut self.shards[shard].parked);
        for handle in parked {
            if self.unpark(handle, shard) {
                self.take_from_input(handle);
            }
        }
    }

    fn release_held(&mut self, shard: usize) {
        let pool = self.pool_index(shard);
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
            let backend = if behind.contains(&client) {
                None
            } else {
                self.takes(shard, request.lane, request.access)
            };
            if let Some(backend) = backend {
                self.no_longer_held(pool, &request);
                self.send(backend, request.owner, request.access, &request.frame);
                let held = self.now.nanos.saturating_sub(request.since);
                if let Some(backend) = self.backend(backend) {
                    backend.note_held((held / NANOS_A_MILLI) as u32);
                }
            } else {
                behind.insert(client);
                self.shards[shard].held.push_back(request);
            }
        }
    }

    /// Takes a held request off the books.
    pub(super) fn no_longer_held(&mut self, pool: usize, held: &Held) {
        self.held_bytes[pool] = self.held_bytes[pool].saturating_sub(held.frame.len());
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
    fn unpark(&mut self, handle: Handle, shard: usize) -> bool {
        let Some(client) = self.client(handle) else {
            return false;
        };
        let Gate::Parked { shard: at, bytes } = client.gate else {
            return false;
        };
        if at != shard {
            return false;
        }
        client.gate = Gate::Open;
        let pool = usize::from(client.pool);
        self.held_bytes[pool] = self.held_bytes[pool].saturating_sub(bytes);
        true
    }

    /// Refuses what has been held too long.
    pub(super) fn expire_held(&mut self, shard: usize) {
        let pool = self.pool_index(shard);
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
            if is_old(client.held_since) && self.unpark(handle, shard) {
                self.take_from_input(handle);
            } else {
                self.shards[shard].parked.push_back(handle);
            }
        }
    }

    /// The error line, without CRLF, of a request that was not sent.
    fn masterdown(&self, shard: usize, over: &Over) -> String {
        self.mailbox.stats.shards[shard].masterdown.add(1);
        let name = self.snapshot.shard_name(shard);
        match over {
            Over::Time(held) => {
                let seconds = Duration::from_nanos(*held).as_secs_f64();
                format!("-MASTERDOWN shard \"{name}\" has no master: held {seconds:.1} s")
            }
            Over::Bytes(limit) => format!(
                "-MASTERDOWN shard \"{name}\" has no master: held requests fill their {limit} bytes"
            ),
        }
    }

    pub(super) fn pool_index(&self, shard: usize) -> usize {
        self.snapshot
            .pools
            .iter()
            .position(|pool| pool.shards.contains(&shard))
            .unwrap_or_default()
    }

    fn hold_nanos(&self, pool: usize) -> Nanos {
        self.snapshot.pools[pool].config.hold_timeout.as_nanos() as Nanos
    }

    /// This worker's part of the bytes that may be held.
    fn hold_bytes(&self, pool: usize) -> usize {
        self.snapshot.pools[pool].config.hold_bytes / self.workers
    }

    fn over_hold_bytes(&self, pool: usize, more: usize) -> Option<usize> {
        let limit = self.hold_bytes(pool);
        (self.held_bytes[pool] + more > limit).then_some(limit)
    }

    /// Publishes what waits for a shard and whether it serves.
    pub(super) fn publish(&self, shard: usize) {
        let counters = &self.mailbox.stats.shards[shard];
        let state = &self.shards[shard];
        let connected = state.ready(LaneKey::default()).is_some();
        let frames: usize = state.held.iter().map(|held| held.frame.len()).sum();
        let parked = state.parked.iter().filter_map(|handle| {
            match self.clients.get(handle.index as usize)?.gate {
                Gate::Parked { bytes, .. } => Some(bytes),
                _ => None,
            }
        });
        let requests = state.held.len() + state.parked.len();
        counters.held_requests.set(requests as u64);
        counters
            .held_bytes
            .set((frames + parked.sum::<usize>()) as u64);
        counters.connected.set(u64::from(connected));
        counters.serving.set(u64::from(connected && state.leased));
    }
}
