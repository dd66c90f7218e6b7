//! One shard as one worker sees it: its master, its connections, and what waits for them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::replicas::Replica;
use crate::command::Access;
use crate::endpoint::Endpoint;
use crate::inflight::Owner;
use crate::lane::LaneKey;
use crate::reactor::Handle;
use crate::snapshot::{Nanos, ShardFace};
use crate::stats::ShardCounters;

/// First and longest pause before a connection is tried again, milliseconds.
const BACKOFF_MS: (u32, u32) = (10, 250);

/// A shared connection of the shard, or the plan to have one.
pub(crate) struct Lane {
    pub(crate) key: LaneKey,
    pub(crate) state: LaneState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LaneState {
    /// No connection; one is made once the worker's clock passes this time.
    Down {
        retry_ms: u32,
    },
    Opening(Handle),
    Ready(Handle),
    /// Refused a request; a new connection is made once everything on this one is answered, so that
    /// nothing overtakes it.
    Retiring(Handle),
}

/// A request that has its slot and waits for a master.
pub(crate) struct Held {
    pub(crate) owner: Owner,
    pub(crate) access: Access,
    pub(crate) replies: u32,
    pub(crate) lane: LaneKey,
    pub(crate) since: Nanos,
    pub(crate) frame: Box<[u8]>,
}

/// A shard.
pub(crate) struct Shard {
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) pool: usize,
    pub(crate) endpoint: Option<Endpoint>,
    /// Its pool's servers are fixed: connections are opened when a request needs one, and no other
    /// time.
    pub(crate) fixed: bool,
    pub(crate) lanes: Vec<Lane>,
    /// In the order in which they were first sent or asked for.
    pub(crate) held: VecDeque<Held>,
    /// Clients whose next request waits for this shard, in the order of their arrival.
    pub(crate) parked: VecDeque<Handle>,
    /// The lease was valid when it was last looked at.
    pub(crate) leased: bool,
    /// A request was refused: before the next one is sent, the master is asked what it is.
    pub(crate) suspect: bool,
    /// When the server was last found not to answer in time.
    pub(crate) silent_ms: Option<u32>,
    /// Why a connection to a fixed server could not be made the last time.
    pub(crate) last_loss: String,
    /// When a pinned connection is tried again after one that could not be made.
    pub(crate) pin_retry_ms: Option<u32>,
    /// Connections that were a client's own and are kept for the next one; some may be no more.
    pub(crate) spares: Vec<Handle>,
    /// Of its master, those that reads may go to.
    pub(super) replicas: Vec<Replica>,
    backoff_ms: u32,
}

impl Shard {
    /// A shard of which nothing is open yet.
    pub(crate) fn new(face: &ShardFace, worker: usize) -> Self {
        Self {
            counters: face.counters[worker].clone(),
            pool: face.pool,
            endpoint: None,
            fixed: false,
            lanes: Vec::new(),
            held: VecDeque::new(),
            parked: VecDeque::new(),
            leased: false,
            suspect: false,
            silent_ms: None,
            last_loss: String::new(),
            pin_retry_ms: None,
            spares: Vec::new(),
            replicas: Vec::new(),
            backoff_ms: 0,
        }
    }

    /// Something here has a deadline.
    pub(crate) fn is_unsettled(&self) -> bool {
        let ready = |lane: &Lane| matches!(lane.state, LaneState::Ready(_));
        self.has_waiting() || self.endpoint.is_some() && !self.lanes.iter().all(ready)
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.held.is_empty() || !self.parked.is_empty()
    }

    /// Some connection can take requests.
    pub(crate) fn is_connected(&self) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| matches!(lane.state, LaneState::Ready(_)))
    }

    /// The connection that may take requests of this lane now.
    pub(crate) fn ready(&self, key: LaneKey) -> Option<Handle> {
        self.lanes.iter().find_map(|lane| match lane.state {
            LaneState::Ready(backend) if lane.key == key => Some(backend),
            _ => None,
        })
    }

    /// Whether this connection is the one that the lane has now.
    pub(crate) fn serves_lane(&self, key: LaneKey, backend: Handle) -> bool {
        self.lanes.iter().any(|lane| {
            lane.key == key
                && matches!(lane.state,
                    LaneState::Opening(at) | LaneState::Ready(at) | LaneState::Retiring(at)
                        if at == backend)
        })
    }

    pub(crate) fn lane_mut(&mut self, key: LaneKey) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.key == key)
    }

    /// When the next attempt to connect is due after one that failed.
    pub(crate) fn next_retry(&mut self, now_ms: u32) -> u32 {
        self.backoff_ms = (self.backoff_ms * 2).clamp(BACKOFF_MS.0, BACKOFF_MS.1);
        now_ms.wrapping_add(self.backoff_ms)
    }

    /// The master answered: the next failure is retried soon again.
    pub(crate) fn answered(&mut self) {
        self.backoff_ms = 0;
    }
}
