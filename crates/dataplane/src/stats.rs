//! What the workers count, and how it is read from outside.
//!
//! Every counter has one writer, its worker, and is read by the control plane; so an update is a
//! plain load and store, without a locked instruction.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writer.
#[derive(Default, Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Declares the counters of a thing once: the fields, their sum over workers, and their names.
macro_rules! counters {
    ($(#[$meta:meta])* $name:ident, $totals:ident { $($(#[$doc:meta])* $field:ident,)* }) => {
        $(#[$meta])*
        #[derive(Default, Debug)]
        pub(crate) struct $name { $($(#[$doc])* pub(crate) $field: Counter,)* }

        $(#[$meta])*
        #[derive(Default, Debug, Clone, PartialEq, Eq)]
        pub struct $totals { $($(#[$doc])* pub $field: u64,)* }

        impl $name {
            /// Adds these counters to `totals`.
            pub(crate) fn add_to(&self, totals: &mut $totals) {
                $(totals.$field += self.$field.get();)*
            }
        }

        impl $totals {
            /// Each counter with its name.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field),)*]
            }
        }
    };
}

counters! {
    /// What happened on one shard.
    ShardCounters, ShardTotals {
        /// Requests written or queued for the shard's master.
        requests,
        request_bytes,
        /// Replies delivered.
        responses,
        response_bytes,
        /// Writes answered INDOUBT.
        indoubt,
        /// Of the requests, reads sent to a replica.
        replica_reads,
        /// Reads that a replica did not answer, and that went to the master then.
        replica_losses,
        /// Requests answered MASTERDOWN.
        masterdown,
        /// Requests that waited for a master.
        held,
        /// Replies READONLY, LOADING and the like that no client was shown.
        refusals,
        /// Requests that the master did not answer in time.
        timeouts,
        /// Connections to the master that were lost or could not be made.
        connection_errors,
        /// Of these, closed by the server.
        closed,
        /// Of these, broken or refused.
        broken,
        /// Of these, not open in time; and times that a server that is open answered nothing in time.
        timed_out,
        /// Connections that were begun.
        attempts,
        /// Connections open now.
        connections,
        /// Requests not yet written to the server now.
        queued,
        queued_bytes,
        /// Requests written to the server and not answered now.
        unanswered,
        unanswered_bytes,
        /// Requests waiting for a master now.
        held_requests,
        /// Bytes they take now.
        held_bytes,
        /// Workers whose connection to the master is up now.
        connected,
        /// Workers that would send a write to the master now.
        serving,
        /// Workers that may send a write now, or await the answer to one that does not block.
        writing,
    }
}

counters! {
    /// What happened on the client side of one pool.
    PoolCounters, PoolTotals {
        /// Clients connected now.
        clients,
        accepted,
        /// Connections refused because of `client_connections`.
        refused,
        /// Clients closed after a protocol error.
        protocol_errors,
        /// Clients closed because they did not read their replies.
        overflowed,
        /// Clients that left.
        left,
        /// Clients lost to an error of their connection or of their protocol.
        lost,
        /// Requests answered with an error of the proxy's own, because of their server.
        errors,
        /// Parts of requests that went to several shards.
        fragments,
    }
}

/// What one worker publishes of itself.
#[derive(Default)]
pub(crate) struct WorkerStats {
    /// The epoch of the snapshot in use since before this worker last showed how things stand.
    pub(crate) epoch: AtomicU64,
    /// When the last round ended, nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) last_round: Counter,
    pub(crate) rounds: Counter,
}
