//! Moves a worker to a newer snapshot: shards that have another server, pools that came, changed or went.
//!
//! What a client has sent is not lost by it: requests that wait are looked at again under the new
//! snapshot, and connections that are not needed any more close once they have answered everything.

use std::sync::Arc;

use super::shard::Shard;
use super::{PoolState, Worker};
use crate::reactor::Handle;
use crate::snapshot::Snapshot;
use crate::socket;

impl Worker {
    /// Takes over what the plane has posted.
    pub(super) fn take_news(&mut self) {
        let Some(news) = self.mailbox.take() else {
            return;
        };
        if let Some(next) = news.snapshot {
            let reconfigured = !self.same_pools(&next);
            self.snapshot = next;
            if reconfigured {
                self.take_pools();
            }
            for shard in 0..self.shards.len() {
                self.take_route(shard);
            }
        }
        for (pool, listener) in news.listeners {
            self.listen(pool, listener);
        }
        self.mailbox.stats.epoch.set(self.snapshot.epoch);
    }

    fn same_pools(&self, next: &Snapshot) -> bool {
        let (old, new) = (&self.snapshot.pools, &next.pools);
        old.len() == new.len() && old.iter().zip(new).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    fn take_pools(&mut self) {
        for route in &self.snapshot.routes[self.shards.len()..] {
            self.shards.push(Shard::new(&route.face, self.number));
        }
        for pool in &self.snapshot.pools[self.pools.len()..] {
            self.pools.push(PoolState {
                router: pool.router.clone(),
                ejections: 0,
                counters: pool.face.counters[self.number].clone(),
                held_bytes: 0,
                listener: None,
            });
        }
        self.any_ejector = false;
        for id in 0..self.pools.len() {
            let pool = self.snapshot.pools[id].clone();
            self.pools[id].router = pool.router.clone();
            self.pools[id].ejections = 0;
            self.any_ejector |= pool.ejector.is_some();
            if let Some(listener) = &self.pools[id].listener {
                // It goes on with the options it had if the kernel will not have the new ones.
                let _ = socket::retune(listener, &pool.config);
            }
            if pool.leaving {
                self.leave_pool(id);
            }
        }
    }

    /// Takes no new clients of a pool and lets the old ones go once they have their answers.
    fn leave_pool(&mut self, pool: usize) {
        self.stop_listening(pool);
        let clients: Vec<Handle> = self
            .clients
            .iter()
            .filter(|(_, client)| usize::from(client.pool) == pool)
            .map(|(_, client)| client.handle)
            .collect();
        for handle in clients {
            if let Some(client) = self.client(handle) {
                client.closing = true;
            }
            self.touch_client(handle);
        }
    }

    fn take_route(&mut self, shard: usize) {
        let route = &self.snapshot.routes[shard];
        let pool = self.snapshot.pool_of(shard);
        let state = &mut self.shards[shard];
        let moved = state.endpoint != route.endpoint;
        let (was_fixed, fixed) = (state.fixed, pool.config.is_fixed());
        let first = pool.config.lane(0);
        if moved {
            state.endpoint.clone_from(&route.endpoint);
        }
        state.fixed = fixed;
        if route.leaving || moved && (fixed || was_fixed) {
            // Nobody has failed over: the old server answers what it has been sent.
            self.wind_down(shard);
        } else if moved {
            self.leave_master(shard);
        }
        let stays = !self.snapshot.routes[shard].leaving;
        if stays && fixed && moved {
            self.preconnect(shard);
        } else if stays && was_fixed && !fixed {
            self.want_lane(shard, first);
        } else if stays && fixed && self.shards[shard].endpoint.is_none() {
            self.release(shard); // what came before the first snapshot learns that there is no server
        }
    }

    /// Ends a shard's connections once they have answered everything. What waits is looked at again.
    fn wind_down(&mut self, shard: usize) {
        self.finish_backends(shard);
        self.shards[shard].lanes.clear();
        if self.snapshot.routes[shard].leaving {
            self.refuse_held(shard);
        }
        self.release(shard);
    }

    /// Takes over what other workers or the clock have changed about ejected servers.
    pub(super) fn follow_ejections(&mut self) {
        if !self.any_ejector {
            return;
        }
        for (pool, state) in self.snapshot.pools.iter().zip(&mut self.pools) {
            let Some(ejector) = &pool.ejector else {
                continue;
            };
            ejector.take_back(self.now.nanos);
            let version = ejector.version();
            if version != state.ejections {
                state.ejections = version;
                state.router = ejector.router();
            }
        }
    }
}
