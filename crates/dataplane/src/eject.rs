//! Ejection: a server that fails leaves the ring for a while, as Twemproxy does it.
//!
//! ```text
//!            failure                 failures reach the limit
//!   live ─────────────────► counted ────────────────────────► ejected
//!    ▲ ▲       any reply       │                                 │
//!    │ └───────────────────────┘                                 │
//!    └───────────────────────────────────────────────────────────┘
//!                           retry_timeout
//! ```
//! The state is one for all workers, who learn of a change by its version, looked at once a round.
//! While a server is ejected its keys belong to the others: only pools of which the configuration asks
//! for it (`auto_eject_hosts`) have an ejector.
//!
//! One incident is one failure. Twemproxy counts each connection that is lost, and has one to a server;
//! here each worker has its own, and all of them end together when a server restarts or closes what is
//! idle. So nothing is counted of a connection or an attempt that was begun before a failure was last
//! counted, nor of a connection that was made to send again what another had lost. All else counts each
//! time, as with Twemproxy. With several `server_connections` Twemproxy counts each of them; here they
//! too are one incident.

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
    /// When a failure was last counted, by place.
    counted: Box<[Option<Nanos>]>,
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
                counted: ids.iter().map(|_| None).collect(),
                router,
            }),
            ids,
        }
    }

    /// Goes on where the ejector of the same pool before a reload was, if servers leave by the same rule.
    pub(crate) fn after(self, before: &Self) -> Self {
        if self.rule != before.rule {
            return self;
        }
        let (old, mut state) = (before.state(), self.state());
        for (place, &id) in self.ids.iter().enumerate() {
            if let Some(was) = before.place(id) {
                state.until[place] = old.until[was];
                state.counted[place] = old.counted[was];
                let failures = before.failures[was].load(Ordering::Relaxed);
                self.failures[place].store(failures, Ordering::Relaxed);
            }
        }
        self.rebuild(&mut state);
        drop(state);
        self
    }

    /// Notes that something failed at a shard's server that was begun at this time; true if that ejects it.
    pub(crate) fn failed(&self, shard: usize, begun: Nanos, now: Nanos) -> bool {
        let Some(place) = self.place(shard) else {
            return false;
        };
        // Under the lock, so that no two workers count the same incident or eject for it.
        let mut state = self.state();
        let is_known = |counted| begun <= counted;
        if state.until[place] > now || state.counted[place].is_some_and(is_known) {
            return false;
        }
        state.counted[place] = Some(now);
        if self.failures[place].fetch_add(1, Ordering::Relaxed) + 1 < self.rule.failures {
            return false;
        }
        self.failures[place].store(0, Ordering::Relaxed);
        state.until[place] = now + self.rule.retry.as_nanos() as Nanos;
        self.rebuild(&mut state);
        true
    }

    /// The shard has another server, which has not failed.
    pub(crate) fn forgive(&self, shard: usize) {
        let Some(place) = self.place(shard) else {
            return;
        };
        let mut state = self.state();
        self.failures[place].store(0, Ordering::Relaxed);
        state.counted[place] = None;
        if state.until[place] > 0 {
            state.until[place] = 0;
            self.rebuild(&mut state);
        }
    }

    fn place(&self, shard: usize) -> Option<usize> {
        self.ids.iter().position(|&id| id == shard)
    }

    /// Notes a reply of a shard's server.
    pub(crate) fn answered(&self, shard: usize) {
        if let Some(place) = self.place(shard)
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

    const SECOND: u64 = 1_000_000_000;
    const RETRY: u64 = 2 * SECOND;

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
        let keys = (0..200).map(|n| format!("{n} of the keys"));
        let router = ejector.router();
        keys.map(|key| router.shard_of(key.as_bytes())).collect()
    }

    fn attempt(ejector: &Ejector, shard: usize, now: u64) -> bool {
        ejector.failed(shard, now, now)
    }

    #[test]
    fn an_ejected_server_owns_nothing_until_its_time_is_over() {
        let ejector = ejector(&["a", "b", "c"], 2);
        let before = owners(&ejector);
        assert!(!attempt(&ejector, 11, 4));
        assert_eq!(owners(&ejector), before);
        assert!(attempt(&ejector, 11, 5));
        assert!(!owners(&ejector).contains(&Some(11)));
        ejector.take_back(5 + RETRY - 1);
        assert!(!owners(&ejector).contains(&Some(11)));
        ejector.take_back(5 + RETRY);
        assert_eq!(owners(&ejector), before);
    }

    #[test]
    fn connections_that_end_together_are_one_failure() {
        let ejector = ejector(&["a", "b"], 2);
        let end = 60 * SECOND;
        for worker in 0..8 {
            assert!(!ejector.failed(10, SECOND + worker, end + worker));
        }
        let later = end + 10 * SECOND;
        assert!(!ejector.failed(10, SECOND, later), "it was there then");
        assert!(!attempt(&ejector, 10, end), "begun when that was known");
        assert!(ejector.failed(10, end + 1, later));
    }

    #[test]
    fn each_attempt_that_begins_later_is_one_failure() {
        let ejector = ejector(&["a", "b"], 3);
        assert!(!attempt(&ejector, 10, 1));
        assert!(!attempt(&ejector, 10, 2));
        assert!(attempt(&ejector, 10, 3));
        let late = || attempt(&ejector, 10, 4);
        assert!(!late() && !late() && !late(), "it is ejected already");
    }

    #[test]
    fn another_server_of_a_shard_begins_anew() {
        let ejector = ejector(&["a", "b"], 2);
        let before = owners(&ejector);
        attempt(&ejector, 10, 1);
        attempt(&ejector, 10, 2);
        assert!(!owners(&ejector).contains(&Some(10)));
        ejector.forgive(10);
        assert_eq!(owners(&ejector), before);
        assert!(!attempt(&ejector, 10, 3));
    }

    #[test]
    fn a_reload_does_not_forget_what_has_failed() {
        let before = ejector(&["a", "b"], 2);
        attempt(&before, 10, 1);
        attempt(&before, 10, 2);
        attempt(&before, 11, 3);
        let next = ejector(&["a", "b", "c"], 2).after(&before);
        assert!(!owners(&next).contains(&Some(10)) && owners(&next).contains(&Some(11)));
        assert!(attempt(&next, 11, 4));
        let other_rule = ejector(&["a", "b"], 3).after(&before);
        assert!(owners(&other_rule).contains(&Some(10)));
    }

    #[test]
    fn keys_of_the_other_servers_stay_where_they_are() {
        let ejector = ejector(&["a", "b", "c"], 1);
        let before = owners(&ejector);
        attempt(&ejector, 11, 1);
        for (was, is) in before.iter().zip(owners(&ejector)) {
            assert!(*was == is || *was == Some(11));
        }
    }

    #[test]
    fn a_good_reply_between_two_failures_makes_them_single_ones() {
        let ejector = ejector(&["a", "b"], 2);
        let before = owners(&ejector);
        attempt(&ejector, 10, 2);
        ejector.answered(10);
        attempt(&ejector, 10, 3);
        assert_eq!(owners(&ejector), before);
    }

    #[test]
    fn when_all_are_ejected_no_key_has_an_owner() {
        let ejector = ejector(&["a", "b"], 1);
        attempt(&ejector, 10, 4);
        attempt(&ejector, 11, 5);
        assert_eq!(ejector.router().shard_of(b"key"), None);
    }
}
