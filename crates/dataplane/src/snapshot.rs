//! The immutable routing state: pools with their rings, and for every shard its master and lease.
//!
//! A snapshot is swapped whole between two rounds of a worker and has one epoch. The only thing in
//! it that changes is the lease of a route, a deadline that the control plane extends or ends many
//! times a second: it is an atomic inside the snapshot it was given for, so that a worker that has
//! not yet taken a newer snapshot can never use a lease that belongs to another master.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::hash::{HashKind, HashTag};
use crate::ring::{Distribution, Ring};

/// Nanoseconds of `CLOCK_BOOTTIME`.
pub type Nanos = u64;

/// A lease that never ends, for pools that need none.
pub const NO_LEASE_NEEDED: Nanos = i64::MAX as Nanos;

/// Databases that a client may select; bounds the lanes of a shard.
pub const DATABASES: u16 = 16;

/// What a pool is made of; never changes while a plane runs.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    pub name: String,
    /// `host:port` with a numeric host.
    pub listen: String,
    /// Name and weight of each shard, in ring order.
    pub shards: Vec<(String, u32)>,
    pub hash: HashKind,
    pub distribution: Distribution,
    pub hash_tag: Option<HashTag>,
    /// What clients must send with AUTH.
    pub password: Option<String>,
    /// What Shoal sends to the masters.
    pub backend_password: Option<String>,
    /// How long a request may be held while its shard has no master.
    pub hold_timeout: Duration,
    /// Bytes that held requests may take in the whole process.
    pub hold_bytes: usize,
    /// How long a request may wait for its answer, counted from its write; zero is off.
    pub timeout: Duration,
    /// Clients of the pool in the whole process; zero is no limit.
    pub client_connections: usize,
    /// Unanswered requests that one client may have while others are active.
    pub max_inflight: usize,
}

/// A pool as the workers see it.
pub(crate) struct Pool {
    pub(crate) config: PoolConfig,
    pub(crate) ring: Ring,
    /// Where the pool's shards stand in `Snapshot::routes`.
    pub(crate) shards: Range<usize>,
}

impl Pool {
    /// The index in `Snapshot::routes` of the shard that owns `key`.
    pub(crate) fn shard_of(&self, key: &[u8]) -> usize {
        if self.shards.len() == 1 {
            return self.shards.start;
        }
        let tagged = match &self.config.hash_tag {
            Some(tag) => tag.part(key),
            None => key,
        };
        self.shards.start + self.ring.shard(self.config.hash.hash(tagged))
    }
}

/// The right to write to a route's master, as a deadline.
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

/// Where a shard's requests go.
pub(crate) struct Route {
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) lease: Lease,
}

/// One state of the whole plane.
pub(crate) struct Snapshot {
    pub(crate) epoch: u64,
    pub(crate) pools: Arc<[Pool]>,
    pub(crate) routes: Vec<Route>,
}

impl Snapshot {
    /// The state before the control plane has said anything: every request is held.
    pub(crate) fn initial(pools: Arc<[Pool]>) -> Self {
        let shards = pools.iter().map(|pool| pool.shards.len()).sum();
        let routes = (0..shards)
            .map(|_| Route {
                endpoint: None,
                lease: Lease::new(0),
            })
            .collect();
        Self {
            epoch: 0,
            pools,
            routes,
        }
    }

    /// The pool and the name of a shard.
    pub(crate) fn shard_name(&self, shard: usize) -> &str {
        self.pools
            .iter()
            .find(|pool| pool.shards.contains(&shard))
            .map_or("?", |pool| &pool.config.shards[shard - pool.shards.start].0)
    }

    pub(crate) fn pool_of(&self, shard: usize) -> &Pool {
        self.pools
            .iter()
            .find(|pool| pool.shards.contains(&shard))
            .expect("every shard belongs to a pool")
    }
}

/// Builds the rings of the pools and lays their shards out one behind the other.
pub(crate) fn build_pools(configs: Vec<PoolConfig>) -> Arc<[Pool]> {
    let mut next = 0;
    configs
        .into_iter()
        .map(|config| {
            let ring = Ring::build(config.distribution, &config.shards);
            let shards = next..next + config.shards.len();
            next = shards.end;
            Pool {
                config,
                ring,
                shards,
            }
        })
        .collect()
}
