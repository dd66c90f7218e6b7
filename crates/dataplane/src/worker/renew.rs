//! Moves a worker to a newer snapshot: shards that have another server, pools that came, changed or went.
//!
//! What a client has sent is not lost by it: requests that wait are looked at again under the new
//! snapshot, and connections that are not needed any more close once they have answered everything.

use std::sync::Arc;

use super::shard::Shard;
use super::{Note, PoolState, Worker, boot_nanos};
use crate::reactor::Handle;
use crate::recent::Recent;
use crate::snapshot::Snapshot;
use crate::socket;

/// What is other about a shard in the newer snapshot.
struct Change {
    moved: bool,
    was_fixed: bool,
    turn: Turn,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Stays,
    Leaves,
    ComesBack,
    HasLeft,
}

impl Change {
    /// Its connections end once they have answered everything.
    fn winds_down(&self, fixed: bool) -> bool {
        self.turn == Turn::Leaves || self.moved && (fixed || self.was_fixed)
    }
}

impl Worker {
    /// Takes over what the plane has posted.
    pub(super) fn take_news(&mut self) {
        let Some(news) = self.mailbox.take() else {
            return;
        };
        if let Some(next) = news.snapshot {
            let reconfigured = !self.same_pools(&next);
            let before = std::mem::replace(&mut self.snapshot, next);
            if reconfigured {
                self.take_pools();
            }
            self.take_routes(&before, reconfigured);
        }
        for (pool, listener) in news.listeners {
            // One that has gone again since then listens no more.
            if !self.snapshot.pools[pool].leaving {
                self.listen(pool, listener);
            }
        }
        for muster in &news.musters {
            self.answer_muster(muster);
        }
        for note in news.notes {
            match note {
                Note::Changed {
                    target,
                    reader,
                    change,
                } => self.told_for(target, reader, &change),
                Note::Broken { reader, target } => self.redirection_broken(reader, target),
            }
        }
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
                tracker: None,
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
        self.follow_ejections(); // of pools that are as they were, too
        self.doubt_own_writes();
        self.tend_all_subscribers();
    }

    /// What clients have written lately is not known where replicas were not read from until now: it may be anything.
    fn doubt_own_writes(&mut self) {
        for (_, client) in &mut self.clients {
            let pool = &self.snapshot.pools[usize::from(client.pool)];
            if pool.config.max_lag.is_none() {
                client.recent = None;
            } else if client.recent.is_none() {
                let mut recent = Recent::default();
                for &shard in &pool.shards {
                    recent.note(shard, client.slots.last());
                }
                recent.settle(&client.slots, boot_nanos);
                client.recent = Some(Box::new(recent));
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

    /// Every shard knows its server before the first one gives up connections, and all have done that
    /// before anything that waits goes on: it may need any of them.
    fn take_routes(&mut self, before: &Snapshot, reconfigured: bool) {
        let had_left = |shard: usize| before.routes.get(shard).is_some_and(|route| route.leaving);
        let changes: Vec<Change> = (0..self.shards.len())
            .map(|shard| self.take_route(shard, had_left(shard)))
            .collect();
        for (shard, change) in changes.iter().enumerate() {
            self.leave_server(shard, change);
            self.take_readers(shard);
        }
        for (shard, change) in changes.iter().enumerate() {
            self.go_on(shard, change, reconfigured);
        }
    }

    fn take_route(&mut self, shard: usize, had_left: bool) -> Change {
        let route = &self.snapshot.routes[shard];
        let fixed = self.snapshot.pool_of(shard).config.is_fixed();
        let state = &mut self.shards[shard];
        let change = Change {
            moved: state.endpoint != route.endpoint,
            was_fixed: state.fixed,
            turn: match (had_left, route.leaving) {
                (false, false) => Turn::Stays,
                (false, true) => Turn::Leaves,
                (true, false) => Turn::ComesBack,
                (true, true) => Turn::HasLeft,
            },
        };
        if change.moved {
            state.endpoint.clone_from(&route.endpoint);
        }
        state.fixed = fixed;
        change
    }

    /// Gives up the connections to a server that is not the shard's any more.
    fn leave_server(&mut self, shard: usize, change: &Change) {
        if change.moved {
            self.doubt_writes(shard);
        }
        if change.winds_down(self.shards[shard].fixed) {
            // Nobody has failed over: the old server answers what it has been sent.
            self.finish_backends(shard);
            self.shards[shard].lanes.clear();
        } else if change.moved {
            self.leave_master(shard);
        }
        if change.turn == Turn::Leaves {
            self.refuse_held(shard);
        }
    }

    /// Connects the shard where it is to be connected by itself, and looks again at what waits: after a
    /// reload at all of it, for its keys may be another shard's now.
    fn go_on(&mut self, shard: usize, change: &Change, reconfigured: bool) {
        let state = &self.shards[shard];
        let fixed = state.fixed;
        let nowhere = fixed && state.endpoint.is_none();
        let stays = !self.snapshot.routes[shard].leaving;
        let came_back = change.turn == Turn::ComesBack;
        if stays && fixed && (change.moved || came_back) {
            self.preconnect(shard);
        } else if stays && !fixed && (change.was_fixed || came_back) {
            let first = self.snapshot.pool_of(shard).config.lane(0);
            self.want_lane(shard, first);
        }
        // What came before the first snapshot learns here that there is no server.
        if reconfigured || nowhere || change.winds_down(fixed) {
            self.release(shard);
        }
    }

    /// Takes over what other workers or the clock have changed about ejected servers.
    pub(super) fn follow_ejections(&mut self) {
        if !self.any_ejector {
            return;
        }
        let mut changed = false;
        for (pool, state) in self.snapshot.pools.iter().zip(&mut self.pools) {
            let Some(ejector) = &pool.ejector else {
                continue;
            };
            ejector.take_back(self.now.nanos);
            let version = ejector.version();
            if version != state.ejections {
                state.ejections = version;
                state.router = ejector.router();
                changed = true;
            }
        }
        if changed {
            self.tend_all_subscribers();
        }
    }
}
