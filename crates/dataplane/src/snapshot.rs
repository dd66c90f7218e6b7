//! The immutable routing state: pools with their rings, and for every shard its server and lease.
//!
//! A snapshot is swapped whole between two rounds of a worker and has one epoch. The only thing in
//! it that changes is the lease of a route, a deadline that the control plane extends or ends many
//! times a second. It is one for all snapshots in which the route has the same endpoint, so that what is
//! said of it holds at once, and ends for ever where the endpoint becomes another: a worker that has not
//! yet taken a newer snapshot can never use a lease that belongs to another master.
//!
//! Pools and shards have ids that stay theirs over all snapshots, because workers keep what they know
//! of them by id. What a reload removes keeps its place, marked as leaving, and gets it back when its
//! name comes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::endpoint::Endpoint;
use crate::pool::{Pool, PoolConfig, PoolFace};
use crate::readers::Readers;
use crate::stats::ShardCounters;

/// Nanoseconds of `CLOCK_BOOTTIME`.
pub type Nanos = u64;

pub(crate) const NANOS_A_MILLI: Nanos = 1_000_000;

/// A lease that never ends, for pools that need none.
pub const NO_LEASE_NEEDED: Nanos = i64::MAX as Nanos;

/// Databases that a client may select; bounds the lanes of a shard.
pub const DATABASES: u16 = 16;

/// The right to write to a route's server, as a deadline.
pub(crate) struct Lease(AtomicU64);

impl Lease {
    pub(crate) fn new(until: Nanos) -> Self {
        Self(AtomicU64::new(until))
    }

    pub(crate) fn until(&self) -> Nanos {
        self.0.load(Ordering::Acquire)
    }

    /// Sets the deadline and returns the old one.
    pub(crate) fn set(&self, until: Nanos) -> Nanos {
        self.0.swap(until, Ordering::AcqRel)
    }
}

/// What is known of a shard by its name, for as long as the process lives.
pub(crate) struct ShardFace {
    pub(crate) name: String,
    pub(crate) pool: usize,
    /// By worker.
    pub(crate) counters: Box<[Arc<ShardCounters>]>,
    /// When it was last ejected, microseconds of the wall clock; zero is never.
    pub(crate) ejected_at: AtomicU64,
    /// Why the connection was last lost or not made, by worker; empty while it is up.
    pub(crate) errors: Box<[Mutex<String>]>,
}

/// Where a shard's requests go.
pub(crate) struct Route {
    pub(crate) face: Arc<ShardFace>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) lease: Arc<Lease>,
    /// The endpoint's replicas that reads may go to.
    pub(crate) readers: Arc<Readers>,
    /// No key belongs to it any more.
    pub(crate) leaving: bool,
}

/// Where a shard's requests go, and until when writes may.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    pub endpoint: Option<Endpoint>,
    /// `CLOCK_BOOTTIME`; 0 is no lease.
    pub lease_until: Nanos,
}

/// Until when a replica may be read from, by connections that were there when it was asked.
#[derive(Debug, Clone)]
pub struct ReadLeaseSpec {
    pub replica: Endpoint,
    /// Before the replica was asked how far it is; `CLOCK_BOOTTIME`, as the deadline.
    pub sampled: Nanos,
    pub until: Nanos,
}

/// One state of the whole plane.
pub(crate) struct Snapshot {
    pub(crate) epoch: u64,
    /// By id.
    pub(crate) pools: Vec<Arc<Pool>>,
    /// By the shards' ids.
    pub(crate) routes: Vec<Route>,
    /// The ids of the configured pools, in the order of the configuration.
    pub(crate) order: Vec<usize>,
    workers: usize,
}

impl Snapshot {
    /// The state before the control plane has said anything: every request is held.
    pub(crate) fn initial(configs: Vec<PoolConfig>, workers: usize) -> Self {
        let nothing = Self {
            epoch: 0,
            pools: Vec::new(),
            routes: Vec::new(),
            order: Vec::new(),
            workers,
        };
        nothing.reconfigured(0, configs)
    }

    /// These pools in place of the ones there are. Shards that stay keep their route and its lease.
    pub(crate) fn reconfigured(&self, epoch: u64, configs: Vec<PoolConfig>) -> Self {
        let mut next = Self {
            epoch,
            pools: self
                .pools
                .iter()
                .map(|pool| Arc::new(pool.left()))
                .collect(),
            routes: self.routes.iter().map(Route::left).collect(),
            order: Vec::new(),
            workers: self.workers,
        };
        for config in configs {
            next.place(config, &self.pools);
        }
        for (id, before) in self.routes.iter().enumerate() {
            let max_lag = next.pool_of(id).config.max_lag;
            let same = max_lag.is_some() && max_lag == self.pools[before.face.pool].config.max_lag;
            if next.routes[id].leaving || !same {
                // What is said of leases is for another rule, or for nobody.
                next.routes[id].readers = Arc::default();
            }
        }
        next
    }

    fn place(&mut self, config: PoolConfig, before: &[Arc<Pool>]) {
        let named = |pool: &Arc<Pool>| pool.config.name == config.name;
        let id = before.iter().position(named).unwrap_or(self.pools.len());
        let shards = config.shards.iter();
        let shards = shards.map(|(name, _)| self.place_shard(id, name)).collect();
        if let Some(before) = before.get(id) {
            self.pools[id] = Pool::in_place(before, config, shards);
        } else {
            let face = Arc::new(PoolFace::new(self.workers));
            self.pools.push(Arc::new(Pool::new(config, face, shards)));
        }
        self.order.push(id);
    }

    fn place_shard(&mut self, pool: usize, name: &str) -> usize {
        let known = |route: &Route| route.face.pool == pool && route.face.name == name;
        if let Some(id) = self.routes.iter().position(known) {
            self.routes[id].leaving = false;
            return id;
        }
        self.routes.push(Route {
            face: Arc::new(ShardFace {
                name: name.to_owned(),
                pool,
                counters: (0..self.workers).map(|_| Arc::default()).collect(),
                ejected_at: AtomicU64::new(0),
                errors: (0..self.workers).map(|_| Mutex::default()).collect(),
            }),
            endpoint: None,
            lease: Arc::new(Lease::new(0)),
            readers: Arc::default(),
            leaving: false,
        });
        self.routes.len() - 1
    }

    /// The same pools with these routes, which are those of every shard of every pool, in order. A route
    /// that goes where it went keeps its lease, to be given by [`Self::give_leases`].
    pub(crate) fn routed(&self, epoch: u64, specs: &[RouteSpec]) -> Self {
        let mut next = self.again(epoch);
        for (id, spec) in self.shard_ids().zip(specs) {
            let route = &mut next.routes[id];
            if route.endpoint != spec.endpoint {
                route.endpoint.clone_from(&spec.endpoint);
                route.lease = Arc::new(Lease::new(spec.lease_until));
                route.readers = Arc::default();
            }
        }
        next
    }

    /// The same state in which reads of one shard go to these replicas of its master, once they have leases.
    pub(crate) fn read_from(&self, epoch: u64, shard: usize, replicas: &[Endpoint]) -> Self {
        let mut next = self.again(epoch);
        let route = &mut next.routes[shard];
        route.readers = Arc::new(route.readers.after(replicas));
        next
    }

    fn again(&self, epoch: u64) -> Self {
        Self {
            epoch,
            pools: self.pools.clone(),
            routes: self.routes.iter().map(Route::again).collect(),
            order: self.order.clone(),
            workers: self.workers,
        }
    }

    /// Takes the place of `before`: what these routes say of leases holds from now on, there too.
    pub(crate) fn give_leases(&self, before: &Self, specs: &[RouteSpec]) {
        for (id, (old, new)) in before.routes.iter().zip(&self.routes).enumerate() {
            let follows = !before.pool_of(id).config.is_fixed();
            if !Arc::ptr_eq(&old.lease, &new.lease) || new.leaving && follows {
                old.lease.set(0);
            }
            old.readers.end_all_but(&new.readers);
        }
        for (id, spec) in self.shard_ids().zip(specs) {
            self.routes[id].lease.set(spec.lease_until);
        }
    }

    /// The ids of every shard of every configured pool, in the order of the configuration.
    pub(crate) fn shard_ids(&self) -> impl Iterator<Item = usize> {
        let pools = self.order.iter().map(|&pool| &self.pools[pool]);
        pools.flat_map(|pool| pool.shards.iter().copied())
    }

    pub(crate) fn shard_name(&self, shard: usize) -> &str {
        &self.routes[shard].face.name
    }

    pub(crate) fn pool_of(&self, shard: usize) -> &Pool {
        &self.pools[self.routes[shard].face.pool]
    }
}

impl Route {
    fn again(&self) -> Self {
        Self {
            face: self.face.clone(),
            endpoint: self.endpoint.clone(),
            lease: self.lease.clone(),
            readers: self.readers.clone(),
            leaving: self.leaving,
        }
    }

    fn left(&self) -> Self {
        Self {
            leaving: true,
            ..self.again()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{PoolConfig, RouteSpec, Snapshot};

    fn pool(name: &str, shards: &[&str]) -> PoolConfig {
        let shards = shards.iter().map(|&shard| (shard.to_owned(), 1)).collect();
        PoolConfig::new(name, "127.0.0.1:0", shards)
    }

    fn ids(snapshot: &Snapshot) -> Vec<usize> {
        snapshot.shard_ids().collect()
    }

    #[test]
    fn what_stays_keeps_its_id_its_route_and_its_lease() {
        let first = Snapshot::initial(vec![pool("p", &["a", "b"])], 1);
        let specs = [7, 8].map(|lease_until| RouteSpec {
            endpoint: "127.0.0.1:6379".parse().ok(),
            lease_until,
        });
        let routed = first.routed(1, &specs);
        let next = routed.reconfigured(2, vec![pool("q", &["a"]), pool("p", &["c", "b"])]);
        assert_eq!(ids(&next), [2, 3, 1]);
        assert_eq!(next.routes[1].lease.until(), 8);
        assert!(next.routes[1].endpoint.is_some());
        assert!(next.routes[0].leaving);
        assert!(!next.routes[1].leaving);
    }

    #[test]
    fn readers_stay_for_as_long_as_their_master_and_their_rule() {
        let second = Some(Duration::from_secs(1));
        let reading = |max_lag: Option<Duration>| PoolConfig {
            max_lag,
            ..pool("p", &["a"])
        };
        let to = |port: u16| RouteSpec {
            endpoint: format!("127.0.0.1:{port}").parse().ok(),
            lease_until: 7,
        };
        let replica = "127.0.0.1:2".parse().expect("an endpoint");
        let routed = Snapshot::initial(vec![reading(second)], 1).routed(1, &[to(1)]);
        let read = routed.read_from(2, 0, &[replica]);
        let lease = &read.routes[0].readers.replicas[0].lease;
        lease.set(1, 9);
        let same = read
            .reconfigured(3, vec![reading(second)])
            .routed(3, &[to(1)]);
        same.give_leases(&read, &[]);
        assert!(Arc::ptr_eq(&same.routes[0].readers.replicas[0].lease, lease) && lease.holds(5));
        for next in [
            read.routed(3, &[to(3)]),
            read.reconfigured(3, vec![reading(None)]),
            read.reconfigured(3, vec![reading(Some(Duration::from_secs(2)))]),
            read.reconfigured(3, vec![pool("q", &["a"])]),
        ] {
            lease.set(1, 9);
            next.give_leases(&read, &[]);
            assert!(next.routes[0].readers.replicas.is_empty() && !lease.holds(5));
        }
    }

    #[test]
    fn what_comes_back_gets_its_place_back() {
        let first = Snapshot::initial(vec![pool("p", &["a"]), pool("q", &["a"])], 1);
        let without = first.reconfigured(1, vec![pool("p", &["a"])]);
        assert!(without.pools[1].leaving && without.routes[1].leaving);
        let again = without.reconfigured(2, vec![pool("q", &["a"])]);
        assert_eq!(ids(&again), [1]);
        assert_eq!((again.pools.len(), again.routes.len()), (2, 2));
    }
}
