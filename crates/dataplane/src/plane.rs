//! The data plane as the control plane sees it: start it, give it snapshots, extend leases, read counters.
//!
//! Nothing here is on the path of a request. A snapshot is whole: every shard of every pool, with one
//! epoch that only grows; each worker takes it between two rounds and then shows that epoch.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::PlaneError;
use crate::reactor::Waker;
use crate::snapshot::{Lease, Nanos, Pool, PoolConfig, Route, Snapshot, build_pools};
use crate::stats::{PoolTotals, ShardTotals, WorkerStats};
use crate::worker::{Listener, Mailbox, Setup, Worker, boot_nanos};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Where a shard's requests go, and until when writes may.
#[derive(Debug, Clone, Copy)]
pub struct RouteSpec {
    pub endpoint: Option<SocketAddr>,
    /// `CLOCK_BOOTTIME`; 0 is no lease.
    pub lease_until: Nanos,
}

/// The state and the counters of one shard, over all workers.
#[derive(Debug, Clone)]
pub struct ShardStats {
    pub name: String,
    pub endpoint: Option<SocketAddr>,
    pub totals: ShardTotals,
    /// Why the connection to the master was last lost or not made; empty while it is up.
    pub last_error: String,
}

/// The counters of one pool, over all workers.
#[derive(Debug, Clone)]
pub struct PoolStats {
    pub name: String,
    pub totals: PoolTotals,
    pub shards: Vec<ShardStats>,
}

/// Workers, and the state they serve.
pub struct Plane {
    pools: Arc<[Pool]>,
    current: Mutex<Arc<Snapshot>>,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    workers: usize,
}

impl Plane {
    /// Checks the configuration and builds the rings; nothing is bound yet.
    pub fn new(configs: Vec<PoolConfig>, workers: usize) -> Result<Self, PlaneError> {
        check(&configs, workers)?;
        let pools = build_pools(configs);
        let shards = pools.iter().map(|pool| pool.shards.len()).sum();
        let mailboxes = (0..workers)
            .map(|_| {
                let waker = Waker::new().map_err(|source| failed("eventfd", source))?;
                let stats = WorkerStats::new(shards, pools.len());
                Ok(Arc::new(Mailbox::new(Arc::new(waker), stats)))
            })
            .collect::<Result<_, PlaneError>>()?;
        Ok(Self {
            current: Mutex::new(Arc::new(Snapshot::initial(pools.clone()))),
            pools,
            mailboxes,
            threads: Mutex::default(),
            workers,
        })
    }

    /// Binds every pool and starts the workers; until a snapshot comes, requests are held.
    pub fn start(&self) -> Result<(), PlaneError> {
        let mut listeners: Vec<Vec<Listener>> = (0..self.workers).map(|_| Vec::new()).collect();
        for (index, pool) in self.pools.iter().enumerate() {
            let address = pool.config.listen.parse::<SocketAddr>().map_err(|_| {
                PlaneError::Config(format!("listen \"{}\" is not IP:PORT", pool.config.listen))
            })?;
            // SO_REUSEPORT would share the port with whoever has it: a plain bind finds that out.
            drop(bind(address, false)?);
            for listeners in &mut listeners {
                listeners.push(Listener {
                    socket: bind(address, true)?,
                    pool: index as u16,
                });
            }
        }
        let clients: Arc<[AtomicUsize]> = self.pools.iter().map(|_| AtomicUsize::new(0)).collect();
        let next_client_id = Arc::new(AtomicU64::new(1));
        let mut threads = self.threads();
        for (index, (mailbox, listeners)) in self.mailboxes.iter().zip(listeners).enumerate() {
            let worker = Worker::new(Setup {
                mailbox: mailbox.clone(),
                snapshot: self.current().clone(),
                listeners,
                clients: clients.clone(),
                next_client_id: next_client_id.clone(),
                workers: self.workers,
            })
            .map_err(|source| failed("epoll", source))?;
            mailbox.stats.last_round.set(boot_nanos());
            let thread = std::thread::Builder::new()
                .name(format!("shoal-worker-{index}"))
                // A worker whose poller fails ends; its age then grows and the proxy is unhealthy.
                .spawn(move || drop(worker.run()))
                .map_err(|source| failed("thread", source))?;
            threads.push(thread);
        }
        Ok(())
    }

    /// Makes the routes (of every shard of every pool, in order) the state to serve.
    ///
    /// What this says of leases holds at once, also for workers that have not taken the new snapshot
    /// yet; a shard whose endpoint changes loses its old one.
    pub fn apply(&self, epoch: u64, routes: &[RouteSpec]) -> Result<(), PlaneError> {
        let mut current = self.current();
        if epoch <= current.epoch {
            return Err(PlaneError::Snapshot(format!(
                "epoch {epoch} is not above {}",
                current.epoch
            )));
        }
        if routes.len() != current.routes.len() {
            return Err(PlaneError::Snapshot(format!(
                "{} routes for {} shards",
                routes.len(),
                current.routes.len()
            )));
        }
        for (old, new) in current.routes.iter().zip(routes) {
            let same = old.endpoint == new.endpoint;
            old.lease.set(if same { new.lease_until } else { 0 });
        }
        let snapshot = Arc::new(Snapshot {
            epoch,
            pools: self.pools.clone(),
            routes: routes
                .iter()
                .map(|route| Route {
                    endpoint: route.endpoint,
                    lease: Lease::new(route.lease_until),
                })
                .collect(),
        });
        *current = snapshot.clone();
        for mailbox in &self.mailboxes {
            mailbox.post(snapshot.clone());
        }
        Ok(())
    }

    /// The epoch that every worker has reached.
    pub fn acked_epoch(&self) -> u64 {
        let epochs = self
            .mailboxes
            .iter()
            .map(|mailbox| mailbox.stats.epoch.get());
        epochs.min().unwrap_or(0)
    }

    /// Sets the deadline of a shard's lease in the current snapshot; 0 ends it.
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

    /// The place of a shard in the routes.
    pub fn shard_index(&self, pool: &str, shard: &str) -> Option<usize> {
        let pool = self.pools.iter().find(|each| each.config.name == pool)?;
        let mut names = pool.config.shards.iter();
        let at = names.position(|(name, _)| name == shard)?;
        Some(pool.shards.start + at)
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
        self.workers
    }

    /// Counters of every pool and shard, added up over the workers.
    pub fn stats(&self) -> Vec<PoolStats> {
        let current = self.current().clone();
        self.pools
            .iter()
            .enumerate()
            .map(|(index, pool)| {
                let mut totals = PoolTotals::default();
                for mailbox in &self.mailboxes {
                    mailbox.stats.pools[index].add_to(&mut totals);
                }
                let names = pool.config.shards.iter().map(|(name, _)| name);
                let shards = pool.shards.clone().zip(names);
                PoolStats {
                    name: pool.config.name.clone(),
                    totals,
                    shards: shards
                        .map(|(shard, name)| self.shard_stats(&current, shard, name))
                        .collect(),
                }
            })
            .collect()
    }

    fn shard_stats(&self, current: &Snapshot, shard: usize, name: &str) -> ShardStats {
        let mut totals = ShardTotals::default();
        let mut last_error = String::new();
        for mailbox in &self.mailboxes {
            mailbox.stats.shards[shard].add_to(&mut totals);
            if let Ok(error) = mailbox.stats.errors[shard].lock()
                && !error.is_empty()
            {
                last_error.clone_from(&error);
            }
        }
        ShardStats {
            name: name.to_owned(),
            endpoint: current.routes[shard].endpoint,
            totals,
            last_error,
        }
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

    fn current(&self) -> std::sync::MutexGuard<'_, Arc<Snapshot>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(configs: &[PoolConfig], workers: usize) -> Result<(), PlaneError> {
    if workers == 0 {
        return Err(PlaneError::Config(
            "there must be at least one worker".into(),
        ));
    }
    for config in configs {
        if config.shards.is_empty() {
            let name = &config.name;
            return Err(PlaneError::Config(format!("pool \"{name}\" has no shards")));
        }
        if config.shards.iter().all(|&(_, weight)| weight == 0) {
            let name = &config.name;
            let error = format!("pool \"{name}\": no shard has a weight");
            return Err(PlaneError::Config(error));
        }
        if config.max_inflight == 0 {
            let name = &config.name;
            let error = format!("pool \"{name}\": max_inflight must be at least 1");
            return Err(PlaneError::Config(error));
        }
    }
    Ok(())
}

fn failed(doing: &str, source: std::io::Error) -> PlaneError {
    PlaneError::Io {
        doing: doing.to_owned(),
        source,
    }
}

fn bind(address: SocketAddr, shared: bool) -> Result<TcpListener, PlaneError> {
    let listen = || -> std::io::Result<TcpListener> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => PlaneError::PortInUse {
            listen: address.to_string(),
        },
        _ => failed(&format!("listen on {address}"), source),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Plane, PoolConfig, RouteSpec};
    use crate::hash::HashKind;
    use crate::ring::Distribution;
    use crate::snapshot::NO_LEASE_NEEDED;

    fn config(weight: u32) -> PoolConfig {
        PoolConfig {
            name: "p".into(),
            listen: "127.0.0.1:0".into(),
            shards: vec![("a".into(), weight)],
            hash: HashKind::Fnv1a64,
            distribution: Distribution::Ketama,
            hash_tag: None,
            password: None,
            backend_password: None,
            hold_timeout: Duration::ZERO,
            hold_bytes: 0,
            timeout: Duration::ZERO,
            client_connections: 0,
            max_inflight: 1,
        }
    }

    #[test]
    fn a_lease_that_a_snapshot_ends_has_ended_in_the_one_before() {
        let plane = Plane::new(vec![config(1)], 1).expect("a valid configuration");
        let mut route = RouteSpec {
            endpoint: Some(([127, 0, 0, 1], 1).into()),
            lease_until: NO_LEASE_NEEDED,
        };
        plane.apply(1, &[route]).expect("a first snapshot");
        let before = plane.current().clone();
        route.lease_until = 0;
        plane.apply(2, &[route]).expect("a second snapshot");
        assert_eq!(before.routes[0].lease.until(), 0);
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
