//! Shows how things stand: what waits, what is sent, which servers are reached. Once a millisecond, when a
//! round has written what it could; what a worker shows before it sleeps is how it stands.

use std::sync::atomic::Ordering::Release;

use super::Worker;
use crate::backend::{Backend, Load};
use crate::client::Gate;

impl Worker {
    pub(super) fn publish(&mut self) {
        self.unpublished = self.published_ms == Some(self.now.millis);
        if self.unpublished {
            return;
        }
        self.published_ms = Some(self.now.millis);
        let mut loads = vec![Load::default(); self.shards.len()];
        for (_, backend) in &self.backends {
            loads[backend.shard] += backend.load();
        }
        for (shard, load) in loads.iter().enumerate() {
            self.publish_waiting(shard);
            self.publish_connections(shard, load);
            self.publish_writing(shard);
        }
        self.mailbox.stats.epoch.store(self.snapshot.epoch, Release);
    }

    /// Whether a write may leave for the shard's master, or be there unanswered. While it has a lease one
    /// may, whatever is out now; so nobody who asks later than that can take an old "no" for a new one.
    fn publish_writing(&self, shard: usize) {
        let out = |backend: &Backend| backend.shard == shard && backend.awaits_write();
        let writing = self.lease_holds(shard) || self.backends.iter().any(|(_, it)| out(it));
        self.shards[shard].counters.writing.set(u64::from(writing));
    }

    fn publish_waiting(&self, shard: usize) {
        let state = &self.shards[shard];
        let frames: usize = state.held.iter().map(|held| held.frame.len()).sum();
        let parked = state.parked.iter().filter_map(|handle| {
            match self.clients.get(handle.index as usize)?.gate {
                Gate::Parked { bytes, .. } => Some(bytes),
                _ => None,
            }
        });
        let requests = state.held.len() + state.parked.len();
        state.counters.held_requests.set(requests as u64);
        let bytes = frames + parked.sum::<usize>();
        state.counters.held_bytes.set(bytes as u64);
    }

    fn publish_connections(&self, shard: usize, load: &Load) {
        let state = &self.shards[shard];
        let first = self.snapshot.pool_of(shard).config.lane(0);
        let connected = state.ready(first).is_some() || state.fixed && state.is_connected();
        // A fixed server is connected when a request needs it: till then nothing speaks against it.
        let reachable = connected || state.fixed && state.endpoint.is_some();
        let counters = &state.counters;
        counters.connected.set(u64::from(connected));
        counters.serving.set(u64::from(reachable && state.leased));
        counters.connections.set(load.connections);
        counters.queued.set(load.queued);
        counters.queued_bytes.set(load.queued_bytes);
        counters.unanswered.set(load.unanswered);
        counters.unanswered_bytes.set(load.unanswered_bytes);
    }
}
