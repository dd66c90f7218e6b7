//! Ejection: a server that fails leaves the ring for a while, as Twemproxy does it.
//!
//! ```text
//!            failure, fewer than the limit          any good reply
//!          ┌───────────┐                        ┌────────────────────┐
//!   live ──┴► counted ─┴─ the limit is reached ─► ejected            │
//!     ▲                                             │ retry_timeout  │
//!     └─────────────────────────────────────────────┴────────────────┘
//! ```
//! The state is one for all workers, who learn of a change by its version, looked at once a round.
//! While a server is ejected its keys belong to the others: only pools of which the configuration asks
//! for it (`auto_eject_hosts`) have an ejector.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::pool::{PoolConfig, Router};
use crate::snapshot::Nanos;

/// When a server leaves the ring, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectRule {
    /// Failures in a row.
    pub failures: u32,
    pub retry: Duration,
}

/// The servers of one pool: which of them are ejected, and the ring over the rest.
pub(crate) struct Ejector {
    rule: EjectRule,
    config: PoolConfig,
    /// The shards' ids by place.
    ids: Box<[usize]>,
    /// Failures in a row, by place.
    failures: Box<[AtomicU32]>,
    version: AtomicU64,
    /// When the next ejected server is taken back; `Nanos::MAX` if none is ejected.
    next_return: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// By place; zero is live.
    until: Box<[Nanos]>,
    router: Arc<Router>,
}

impl Ejector {
    pub(crate) fn new(rule: EjectRule, config: PoolConfig, ids: Box<[usize]>) -> Self {
        let router = Arc::new(Router::new(&config, &ids, |_| true));
        Self {
            rule,
            config,
            failures: ids.iter().map(|_| AtomicU32::new(0)).collect(),
            version: AtomicU64::new(0),
            next_return: AtomicU64::new(Nanos::MAX),
            state: Mutex::new(State {
                until: ids.iter().map(|_| 0).collect(),
                router,
            }),
            ids,
        }
    }

    /// Notes that a connection to a shard's server was lost or not made; true if that ejects it.
    pub(crate) fn failed(&self, shard: usize, now: Nanos) -> bool {
        let Some(place) = self.ids.iter().position(|&id| id == shard) else {
            return false;
        };
        if self.failures[place].fetch_add(1, Ordering::Relaxed) + 1 < self.rule.failures {
            return false;
        }
        self.failures[place].store(0, Ordering::Relaxed);
        let mut state = self.state();
        state.until[place] = now + self.rule.retry.as_nanos() as Nanos;
        self.rebuild(&mut state);
        true
    }

    /// Notes a good reply of a shard's server.
    pub(crate) fn answered(&self, shard: usize) {
        if let Some(place) = self.ids.iter().position(|&id| id == shard)
            && self.failures[place].load(Ordering::Relaxed) != 0
        {
            self.failures[place].store(0, Ordering::Relaxed);
        }
    }

    /// Takes back the servers whose time is over.
    pub(crate) fn take_back(&self, now: Nanos) {
        if now < self.next_return.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        for until in &mut state.until {
            if *until <= now {
                *until = 0;
            }
        }
        self.rebuild(&mut state);
    }

    /// Changes whenever a server leaves or comes back.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The ring over the servers that are not ejected.
    pub(crate) fn router(&self) -> Arc<Router> {
        self.state().router.clone()
    }

    fn rebuild(&self, state: &mut State) {
        state.router = Arc::new(Router::new(&self.config, &self.ids, |place| {
            state.until[place] == 0
        }));
        let ejected = state.until.iter().filter(|&&until| until > 0);
        let next = ejected.min().copied().unwrap_or(Nanos::MAX);
        self.next_return.store(next, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{EjectRule, Ejector, PoolConfig};

    const RETRY: u64 = 2_000_000_000;

    fn ejector(shards: &[&str], failures: u32) -> Ejector {
        let shards: Vec<_> = shards.iter().map(|&name| (name.to_owned(), 1)).collect();
        let ids = (10..10 + shards.len()).collect();
        let rule = EjectRule {
            failures,
            retry: Duration::from_nanos(RETRY),
        };
        Ejector::new(rule, PoolConfig::new("p", "127.0.0.1:1", shards), ids)
    }

    fn owners(ejector: &Ejector) -> Vec<Option<usize>> {
        let keys = (0..200).map(|n| format!("key:{n}"));
        let router = ejector.router();
        keys.map(|key| router.shard_of(key.as_bytes())).collect()
    }

    #[test]
    fn an_ejected_server_owns_nothing_until_its_time_is_over() {
        let ejector = ejector(&["a", "b", "c"], 2);
        let before = owners(&ejector);
        assert!(!ejector.failed(11, 5));
        assert_eq!(owners(&ejector), before);
        assert!(ejector.failed(11, 5));
        assert!(!owners(&ejector).contains(&Some(11)));
        ejector.take_back(5 + RETRY - 1);
        assert!(!owners(&ejector).contains(&Some(11)));
        ejector.take_back(5 + RETRY);
        assert_eq!(owners(&ejector), before);
    }

    #[test]
    fn keys_of_the_other_servers_stay_where_they_are() {
        let ejector = ejector(&["a", "b", "c"], 1);
        let before = owners(&ejector);
        ejector.failed(11, 0);
        for (was, is) in before.iter().zip(owners(&ejector)) {
            assert!(*was == is || *was == Some(11));
        }
    }

    #[test]
    fn a_good_reply_between_two_failures_makes_them_single_ones() {
        let ejector = ejector(&["a", "b"], 2);
        let before = owners(&ejector);
        ejector.failed(10, 0);
        ejector.answered(10);
        ejector.failed(10, 0);
        assert_eq!(owners(&ejector), before);
    }

    #[test]
    fn when_all_are_ejected_no_key_has_an_owner() {
        let ejector = ejector(&["a", "b"], 1);
        ejector.failed(10, 0);
        ejector.failed(11, 0);
        assert_eq!(ejector.router().shard_of(b"key"), None);
    }
}
