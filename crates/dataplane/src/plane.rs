//! The data plane as the control plane sees it: start it, give it snapshots, extend leases, read counters.
//!
//! Nothing here is on the path of a request. A snapshot is whole: every shard of every pool, with one
//! epoch that only grows; each worker takes it between two rounds and then shows that epoch.

use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::endpoint::Endpoint;
use crate::error::PlaneError;
use crate::pool::{Pool, PoolConfig};
use crate::reactor::Waker;
use crate::snapshot::{Nanos, ReadLeaseSpec, RouteSpec, Snapshot};
use crate::socket::{self, failed};
use crate::stats::{PoolTotals, ShardTotals, WorkerStats};
use crate::worker::{Mailbox, Setup, Worker, boot_nanos};

/// The state and the counters of one shard, over all workers.
#[derive(Debug, Clone)]
pub struct ShardStats {
    pub name: String,
    pub endpoint: Option<Endpoint>,
    /// The sentinels do not say where it is: the configuration does.
    pub fixed: bool,
    pub totals: ShardTotals,
    /// When it was last ejected, microseconds of the wall clock; 0 is never.
    pub ejected_at: u64,
    /// Why the connection to the server was last lost or not made; empty while it is up.
    pub last_error: String,
}

/// The counters of one pool, over all workers.
#[derive(Debug, Clone)]
pub struct PoolStats {
    pub name: String,
    pub totals: PoolTotals,
    /// How often a server was ejected.
    pub ejections: u64,
    pub shards: Vec<ShardStats>,
}

/// Workers, and the state they serve.
pub struct Plane {
    current: Mutex<Arc<Snapshot>>,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Plane {
    /// Checks the configuration and builds the rings; nothing is bound yet.
    pub fn new(configs: Vec<PoolConfig>, workers: usize) -> Result<Self, PlaneError> {
        check(&configs)?;
        if workers == 0 {
            let error = "there must be at least one worker".to_owned();
            return Err(PlaneError::Config(error));
        }
        let mailboxes = (0..workers)
            .map(|_| {
                let waker = Waker::new().map_err(|source| failed("eventfd".into(), source))?;
                let stats = WorkerStats::default();
                Ok(Arc::new(Mailbox::new(Arc::new(waker), stats)))
            })
            .collect::<Result<_, PlaneError>>()?;
        Ok(Self {
            current: Mutex::new(Arc::new(Snapshot::initial(configs, workers))),
            mailboxes,
            threads: Mutex::default(),
        })
    }

    /// Binds every pool and starts the workers; until a snapshot comes, requests are held.
    pub fn start(&self) -> Result<(), PlaneError> {
        let current = self.current();
        self.post(&current, self.bind(&current, |_| true)?);
        let next_client_id = Arc::new(AtomicU64::new(1));
        let peers: Arc<[_]> = self.mailboxes.clone().into();
        let mut threads = self.threads();
        for (number, mailbox) in self.mailboxes.iter().enumerate() {
            let worker = Worker::new(Setup {
                mailbox: mailbox.clone(),
                number,
                peers: peers.clone(),
                next_client_id: next_client_id.clone(),
            })
            .map_err(|source| failed("epoll".into(), source))?;
            mailbox.stats.last_round.set(boot_nanos());
            let thread = std::thread::Builder::new()
                .name(format!("shoal-worker-{number}"))
                // A worker whose poller fails ends; its age then grows and the proxy is unhealthy.
                .spawn(move || drop(worker.run()))
                .map_err(|source| failed("thread".into(), source))?;
            threads.push(thread);
        }
        Ok(())
    }

    /// The listeners, by worker, of those pools for which `wanted` says so.
    fn bind(
        &self,
        snapshot: &Snapshot,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Vec<Vec<(usize, OwnedFd)>>, PlaneError> {
        let mut listeners: Vec<Vec<_>> = self.mailboxes.iter().map(|_| Vec::new()).collect();
        for &id in snapshot.order.iter().filter(|&&id| wanted(id)) {
            let bound = socket::listen(&snapshot.pools[id].config, self.workers())?;
            for (listeners, socket) in listeners.iter_mut().zip(bound) {
                listeners.push((id, socket));
            }
        }
        Ok(listeners)
    }

    fn post(&self, snapshot: &Arc<Snapshot>, listeners: Vec<Vec<(usize, OwnedFd)>>) {
        for (mailbox, listeners) in self.mailboxes.iter().zip(listeners) {
            mailbox.post(snapshot.clone(), listeners);
        }
    }

    /// Makes the routes (of every shard of every pool, in order) the state to serve.
    ///
    /// What this says of leases holds at once, also for workers that have not taken the new snapshot
    /// yet; a shard whose endpoint changes loses its old one.
    pub fn apply(&self, epoch: u64, routes: &[RouteSpec]) -> Result<(), PlaneError> {
        let mut current = self.current();
        fits(&current, epoch, current.shard_ids().count(), routes.len())?;
        let next = current.routed(epoch, routes);
        let listeners = self.mailboxes.iter().map(|_| Vec::new()).collect();
        self.replace(&mut current, next, routes, listeners);
        Ok(())
    }

    /// Makes these pools with these routes the state to serve. Pools are known by their names, shards by
    /// their names in their pools: what stays keeps its clients, connections and counters. A pool that
    /// listens elsewhere does so before this returns; if that fails, nothing has changed.
    pub fn reload(
        &self,
        configs: Vec<PoolConfig>,
        epoch: u64,
        routes: &[RouteSpec],
    ) -> Result<(), PlaneError> {
        check(&configs)?;
        let mut current = self.current();
        let pools = current.reconfigured(epoch, configs);
        fits(&current, epoch, pools.shard_ids().count(), routes.len())?;
        let listeners = self.bind(&pools, |id| match current.pools.get(id) {
            Some(before) => before.leaving || before.config.listen != pools.pools[id].config.listen,
            None => true,
        })?;
        let next = pools.routed(epoch, routes);
        self.replace(&mut current, next, routes, listeners);
        Ok(())
    }

    fn replace(
        &self,
        current: &mut Arc<Snapshot>,
        next: Snapshot,
        routes: &[RouteSpec],
        listeners: Vec<Vec<(usize, OwnedFd)>>,
    ) {
        next.give_leases(current, routes);
        let before = std::mem::replace(current, Arc::new(next));
        self.post(current, listeners);
        for (id, (old, new)) in before.routes.iter().zip(&current.routes).enumerate() {
            if old.endpoint != new.endpoint
                && let Some(ejector) = &current.pool_of(id).ejector
            {
                ejector.forgive(id);
            }
        }
    }

    /// The epoch that every worker has reached; what it counts of its shards is of that time or later.
    pub fn acked_epoch(&self) -> u64 {
        let epochs = self
            .mailboxes
            .iter()
            .map(|mailbox| mailbox.stats.epoch.load(Acquire));
        epochs.min().unwrap_or(0)
    }

    /// Sets the deadline of a shard's lease, also for workers that have not taken the current snapshot yet
    /// and know the same endpoint; 0 ends it.
    pub fn renew(&self, shard: usize, lease_until: Nanos) -> Result<(), PlaneError> {
        let current = self.current();
        let route = current
            .routes
            .get(shard)
            .ok_or_else(|| PlaneError::Snapshot(format!("there is no shard {shard}")))?;
        let before = route.lease.set(lease_until);
        let now = boot_nanos();
        if before <= now && now < lease_until {
            // What is held may go out: nobody else would tell a worker that sleeps.
            for mailbox in &self.mailboxes {
                mailbox.waker.wake();
            }
        }
        Ok(())
    }

    /// Lets reads of a shard go to these replicas of its master, each once it has a lease: the next epoch of the same
    /// state.
    pub fn read_from(
        &self,
        epoch: u64,
        shard: usize,
        replicas: &[Endpoint],
    ) -> Result<(), PlaneError> {
        let mut current = self.current();
        let routes = current.shard_ids().count();
        fits(&current, epoch, routes, routes)?;
        let next = current.read_from(epoch, shard, replicas);
        let listeners = self.mailboxes.iter().map(|_| Vec::new()).collect();
        self.replace(&mut current, next, &[], listeners);
        Ok(())
    }

    /// Sets the leases of a shard's replicas, and whether its master takes a share of the reads while there are any.
    /// Of who is no replica of the current snapshot, nothing is noted.
    pub fn renew_reads(&self, shard: usize, with_master: bool, leases: &[ReadLeaseSpec]) {
        let current = self.current();
        let readers = &current.routes[shard].readers;
        readers.share_with_master(with_master);
        for spec in leases {
            if let Some(reader) = readers.find(&spec.replica) {
                reader.lease.set(spec.sampled, spec.until);
            }
        }
    }

    /// The id of a shard, for [`Self::renew`] and its like.
    pub fn shard_id(&self, pool: &str, shard: &str) -> Option<usize> {
        let current = self.current();
        let named = |id: &&usize| current.pools[**id].config.name == pool;
        let pool = &current.pools[*current.order.iter().find(named)?];
        let mut ids = pool.shards.iter().copied();
        ids.find(|&id| current.shard_name(id) == shard)
    }

    /// How long ago each worker finished a round.
    pub fn worker_ages(&self) -> Vec<Duration> {
        let now = boot_nanos();
        self.mailboxes
            .iter()
            .map(|mailbox| mailbox.stats.last_round.get())
            .map(|last| Duration::from_nanos(now.saturating_sub(last)))
            .collect()
    }

    pub fn workers(&self) -> usize {
        self.mailboxes.len()
    }

    /// Counters of every pool and shard, added up over the workers.
    pub fn stats(&self) -> Vec<PoolStats> {
        let current = self.current().clone();
        let pools = current.order.iter().map(|&id| &current.pools[id]);
        pools.map(|pool| pool_stats(&current, pool)).collect()
    }

    /// Stops listening, lets what is unanswered finish for up to `drain`, and ends the workers.
    /// Returns whether all of them ended in time.
    #[expect(
        clippy::disallowed_methods,
        reason = "the control plane's thread waits for the workers; no worker sleeps"
    )]
    pub fn stop(&self, drain: Duration) -> bool {
        for mailbox in &self.mailboxes {
            mailbox.stop();
        }
        let deadline = Instant::now() + drain;
        let mut threads = self.threads();
        while Instant::now() < deadline && !threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let ended = threads.iter().all(JoinHandle::is_finished);
        for thread in threads.drain(..).filter(JoinHandle::is_finished) {
            // A worker that panicked has aborted the process: there is nothing to learn here.
            let _ = thread.join();
        }
        ended
    }

    fn current(&self) -> MutexGuard<'_, Arc<Snapshot>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pool_stats(current: &Snapshot, pool: &Pool) -> PoolStats {
    let mut totals = PoolTotals::default();
    for counters in &pool.face.counters {
        counters.add_to(&mut totals);
    }
    let shards = pool.shards.iter();
    PoolStats {
        name: pool.config.name.clone(),
        totals,
        ejections: pool.face.ejections.load(Relaxed),
        shards: shards.map(|&id| shard_stats(current, id)).collect(),
    }
}

fn shard_stats(current: &Snapshot, id: usize) -> ShardStats {
    let route = &current.routes[id];
    let mut totals = ShardTotals::default();
    for counters in &route.face.counters {
        counters.add_to(&mut totals);
    }
    let errors = route.face.errors.iter();
    let last_error = errors
        .filter_map(|error| error.lock().ok())
        .rfind(|error| !error.is_empty())
        .map_or_else(String::new, |error| error.clone());
    ShardStats {
        name: route.face.name.clone(),
        endpoint: route.endpoint.clone(),
        fixed: current.pool_of(id).config.is_fixed(),
        totals,
        ejected_at: route.face.ejected_at.load(Relaxed),
        last_error,
    }
}

fn check(configs: &[PoolConfig]) -> Result<(), PlaneError> {
    for (at, config) in configs.iter().enumerate() {
        config.check()?;
        if configs[..at].iter().any(|other| other.name == config.name) {
            let error = format!("there are two pools \"{}\"", config.name);
            return Err(PlaneError::Config(error));
        }
    }
    Ok(())
}

/// Refuses a snapshot that is no later one, or whose routes are not those of its pools.
fn fits(current: &Snapshot, epoch: u64, shards: usize, count: usize) -> Result<(), PlaneError> {
    let before = current.epoch;
    if epoch <= before {
        let error = format!("epoch {epoch} is not above {before}");
        return Err(PlaneError::Snapshot(error));
    }
    if count != shards {
        let error = format!("{count} routes for {shards} shards");
        return Err(PlaneError::Snapshot(error));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Plane, PoolConfig, RouteSpec};
    use crate::snapshot::NO_LEASE_NEEDED;

    fn config(weight: u32) -> PoolConfig {
        PoolConfig::new("p", "127.0.0.1:0", vec![("a".into(), weight)])
    }

    #[test]
    fn a_lease_that_a_snapshot_ends_has_ended_in_the_one_before() {
        let plane = Plane::new(vec![config(1)], 1).expect("a valid configuration");
        let mut route = RouteSpec {
            endpoint: "127.0.0.1:1".parse().ok(),
            lease_until: NO_LEASE_NEEDED,
        };
        plane.apply(1, &[route.clone()]).expect("a first snapshot");
        let before = plane.current().clone();
        route.lease_until = 0;
        plane.apply(2, &[route]).expect("a second snapshot");
        assert_eq!(before.routes[0].lease.until(), 0);
    }

    #[test]
    fn a_lease_is_one_for_as_long_as_the_endpoint_stays() {
        let plane = Plane::new(vec![config(1)], 1).expect("a valid configuration");
        let route = |port: u16, lease_until| RouteSpec {
            endpoint: format!("127.0.0.1:{port}").parse().ok(),
            lease_until,
        };
        plane.apply(1, &[route(1, 5)]).expect("a first snapshot");
        let first = plane.current().clone();
        plane.apply(2, &[route(1, 6)]).expect("a second snapshot");
        assert_eq!(first.routes[0].lease.until(), 6);
        plane.renew(0, 0).expect("there is a shard 0");
        assert_eq!(
            first.routes[0].lease.until(),
            0,
            "a worker may be there still"
        );
        plane.renew(0, 7).expect("there is a shard 0");
        plane.apply(3, &[route(2, 8)]).expect("another server");
        plane.apply(4, &[route(1, 9)]).expect("the first one again");
        plane.renew(0, NO_LEASE_NEEDED).expect("there is a shard 0");
        assert_eq!(first.routes[0].lease.until(), 0, "that lease is over");
    }

    #[test]
    fn a_shard_that_leaves_loses_its_lease() {
        let plane = Plane::new(vec![config(1)], 1).expect("a valid configuration");
        let route = [RouteSpec {
            endpoint: "127.0.0.1:1".parse().ok(),
            lease_until: NO_LEASE_NEEDED,
        }];
        plane.apply(1, &route).expect("a first snapshot");
        let before = plane.current().clone();
        let other = PoolConfig::new("p", "127.0.0.1:0", vec![("b".into(), 1)]);
        plane.reload(vec![other], 2, &route).expect("a reload");
        let after = plane.current().clone();
        let leases = [&before.routes[0], &after.routes[0], &after.routes[1]];
        let untils = leases.map(|route| route.lease.until());
        assert_eq!(untils, [0, 0, NO_LEASE_NEEDED]);
    }

    #[test]
    fn a_ring_without_any_weight_is_refused_and_no_panic() {
        let refused = Plane::new(vec![config(0)], 1).err().map(|e| e.to_string());
        assert_eq!(
            refused.as_deref(),
            Some("pool \"p\": no shard has a weight")
        );
    }
}
