//! Who may answer reads in place of a shard's master, and until when.
//!
//! **The rule: a read that is sent to a replica misses no write that was acknowledged longer ago than the pool's
//! `max_lag`.** It rests on a lease for each replica, which the control plane gives from samples of its replication
//! offset and its master's (`shoal.reads`), and on two looks of the worker:
//!
//! ```text
//!  connected ──────► sampled ──────────────────► sent ─────► until
//!            the same run of the server:    not before it    the lease, looked at right before
//!            it still has what it had       was sampled      the bytes leave
//! ```
//! 1. Nothing is sent when the lease has ended.
//! 2. A lease counts only for connections that were there before its sample was asked for. A server that was started
//!    anew meanwhile, perhaps with the data of last week, has lost those.
//!
//! Read by `worker`, written by `plane`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::endpoint::Endpoint;
use crate::snapshot::Nanos;

/// The right to read from one replica.
#[derive(Default)]
pub(crate) struct ReadLease {
    sampled: AtomicU64,
    until: AtomicU64,
}

impl ReadLease {
    /// The replica was asked at `sampled`, and may be read from until then; 0 ends it.
    ///
    /// The deadline is stored first: whoever sees the newer sample sees its deadline, or a later one.
    pub(crate) fn set(&self, sampled: Nanos, until: Nanos) {
        self.until.store(until, Ordering::Release);
        self.sampled.store(sampled, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.until.store(0, Ordering::Release);
    }

    pub(crate) fn holds(&self, now: Nanos) -> bool {
        now < self.until.load(Ordering::Acquire)
    }

    /// Whether a connection that was made at `connected` may be sent a read now.
    pub(crate) fn covers(&self, connected: Nanos, now: Nanos) -> bool {
        let sampled = self.sampled.load(Ordering::Acquire);
        connected < sampled && self.holds(now)
    }
}

/// A replica with its lease, which stays the same from snapshot to snapshot.
#[derive(Clone)]
pub(crate) struct Reader {
    pub(crate) endpoint: Endpoint,
    pub(crate) lease: Arc<ReadLease>,
}

/// Those that reads of one shard may go to, beside or instead of its master.
#[derive(Default)]
pub(crate) struct Readers {
    /// The master takes its share even while there is a replica.
    with_master: AtomicBool,
    pub(crate) replicas: Box<[Reader]>,
}

impl Readers {
    /// These replicas; who was one before keeps its lease.
    pub(crate) fn after(&self, endpoints: &[Endpoint]) -> Self {
        let reader = |endpoint: &Endpoint| {
            self.find(endpoint).cloned().unwrap_or_else(|| Reader {
                endpoint: endpoint.clone(),
                lease: Arc::default(),
            })
        };
        Self {
            with_master: AtomicBool::new(self.with_master()),
            replicas: endpoints.iter().map(reader).collect(),
        }
    }

    pub(crate) fn find(&self, endpoint: &Endpoint) -> Option<&Reader> {
        self.replicas.iter().find(|it| it.endpoint == *endpoint)
    }

    pub(crate) fn with_master(&self) -> bool {
        self.with_master.load(Ordering::Relaxed)
    }

    pub(crate) fn share_with_master(&self, shares: bool) {
        self.with_master.store(shares, Ordering::Relaxed);
    }

    /// Ends the leases of those that are not among `next`.
    pub(crate) fn end_all_but(&self, next: &Self) {
        for reader in &self.replicas {
            let stays = |other: &Reader| Arc::ptr_eq(&reader.lease, &other.lease);
            if !next.replicas.iter().any(stays) {
                reader.lease.end();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, ReadLease, Readers};

    #[test]
    fn a_lease_is_for_connections_that_were_there_before_its_sample() {
        let lease = ReadLease::default();
        assert!(!lease.covers(0, 0), "nobody has given it");
        lease.set(100, 200);
        assert!(lease.covers(99, 199));
        assert!(!lease.covers(100, 199), "made since the sample");
        assert!(!lease.covers(99, 200), "it is over");
        lease.end();
        assert!(!lease.covers(99, 101));
    }

    #[test]
    fn who_stays_keeps_its_lease_and_who_leaves_loses_it() {
        let endpoints: Vec<Endpoint> = ["127.0.0.1:1", "127.0.0.1:2"]
            .iter()
            .map(|text| text.parse().expect("an endpoint"))
            .collect();
        let first = Readers::default().after(&endpoints);
        for reader in &first.replicas {
            reader.lease.set(1, 9);
        }
        let next = first.after(&endpoints[1..]);
        first.end_all_but(&next);
        assert!(!first.replicas[0].lease.holds(5));
        assert!(next.replicas[0].lease.holds(5));
    }
}
