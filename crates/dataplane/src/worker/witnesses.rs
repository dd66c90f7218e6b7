//! The connections on which servers tell of every key that changes: one to each shard of a pool, while the pool has
//! clients that track.
//!
//! ```text
//!  opened ──► asked its ROLE ──► CLIENT TRACKING ON BCAST ──► armed ──(a push)──► changed
//!     ▲                                                        │  PING when it is quiet
//!     └──────────────── lost: everything has changed ◄─────────┘
//! ```
//! BCAST, and not the server's own memory of who has read what: so the connections that clients share stay as they
//! are, a read costs its server nothing more, and nothing is to be armed anew when one of those is lost. What it costs
//! is that a server says each written key once to each worker. Called by `tracking` and by what opens and loses
//! connections.

use std::sync::Arc;

use super::Worker;
use super::hold::Over;
use super::losses::Loss;
use super::pinned::Own;
use crate::backend::{Backend, Phase, Pin};
use crate::command::Access;
use crate::inflight::Owner;
use crate::lane::{LaneKey, Protocol};
use crate::reactor::Handle;
use crate::resp;
use crate::tracking::{Witness, hear_change};

const TELL: &[u8] = b"*4\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n$5\r\nBCAST\r\n";
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// A witness that says nothing for so long is asked whether it is there, and given up when it says nothing then.
const QUIET_MS: u32 = 1000;
const SILENT_MS: u32 = 3000;

impl Worker {
    /// What is due for witnesses: another ring to be followed, connections to be opened, what was asked too long ago.
    pub(super) fn tend_trackers(&mut self) {
        for pool in 0..self.pools.len() {
            if self.pools[pool].tracker.is_some() {
                self.follow_ring_of_tracker(pool);
                self.tend_tracker(pool);
                self.expire_tracking(pool);
            }
        }
    }

    /// Some witness is to be opened.
    pub(super) fn has_unarmed_witness(&self) -> bool {
        let mut trackers = self.pools.iter().filter_map(|pool| pool.tracker.as_ref());
        trackers.any(|tracker| !tracker.is_armed())
    }

    pub(super) fn tend_tracker(&mut self, pool: usize) {
        let Some(tracker) = &self.pools[pool].tracker else {
            return;
        };
        let (mut shut, mut open) = (Vec::new(), Vec::new());
        for witness in &tracker.witnesses {
            match witness.backend {
                Some(backend) => open.push(backend),
                None if witness.retry_ms.is_none_or(|at| self.due(at)) => shut.push(witness.shard),
                _ => {}
            }
        }
        for backend in open {
            self.keep_alive(backend);
        }
        for shard in shut {
            if !self.snapshot.routes[shard].leaving {
                self.open_witness(pool, shard);
            }
        }
    }

    /// Finds out whether a quiet witness is there: what it would tell may have been lost with it.
    fn keep_alive(&mut self, handle: Handle) {
        let millis = self.now.millis;
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if backend.phase != Phase::Ready {
            return;
        }
        let quiet = millis.wrapping_sub(backend.heard_ms);
        if quiet >= SILENT_MS && backend.has_inflight() {
            let text = format!("no answer for {:.1} s", f64::from(quiet) / 1e3);
            self.lose_backend(handle, &Loss::Silent(text));
        } else if quiet >= QUIET_MS && !backend.has_inflight() {
            backend.push(Owner::Nobody, Access::Read, PING, millis);
            self.touch_backend(handle);
        }
    }

    fn open_witness(&mut self, pool: usize, shard: usize) {
        let lane = LaneKey {
            protocol: Protocol::Resp3,
            ..LaneKey::default()
        };
        let own = self.pin(None, shard, lane, Pin::Witness);
        let (opened, failed) = match own {
            Own::Ready(backend) | Own::Opening(backend) => (Some(backend), false),
            Own::Later => return,
            Own::Never(_) => (None, true),
        };
        let retry_ms = failed.then(|| self.shards[shard].next_retry(self.now.millis));
        if let Some(witness) = self.witness_mut(shard) {
            witness.backend = opened;
            witness.retry_ms = retry_ms;
        }
        match own {
            Own::Ready(backend) => self.witness_opened(backend),
            Own::Never(reason) => self.refuse_tracking(pool, &format!("-ERR {reason}\r\n")),
            _ => {}
        }
    }

    /// The connection can be used: it is to tell.
    pub(super) fn witness_opened(&mut self, handle: Handle) {
        let millis = self.now.millis;
        if let Some(backend) = self.backend(handle) {
            backend.heard_ms = millis;
            backend.push(Owner::Nobody, Access::Read, TELL, millis);
            self.touch_backend(handle);
        }
    }

    /// A whole frame has come from a witness.
    pub(super) fn witnessed(&mut self, handle: Handle, frame: &[u8]) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let shard = backend.shard;
        let pool = self.shards[shard].pool;
        if frame[0] == b'>' {
            if let Some(change) = hear_change(frame) {
                self.changed(pool, &change);
            }
            return;
        }
        if self.backend(handle).and_then(Backend::pop).is_none() {
            let loss = Loss::Unfit("a reply that nobody had asked for".to_owned());
            return self.lose_backend(handle, &loss);
        }
        self.answered(shard, true);
        if self.witness_mut(shard).is_none_or(|witness| witness.armed) {
            return; // any answer to PING shows that it is there
        }
        match resp::error_code(frame) {
            None => {
                if let Some(witness) = self.witness_mut(shard) {
                    witness.armed = true;
                }
                self.invalidate_all(pool);
                self.conclude_tracking(pool);
            }
            Some(b"BUSY" | b"MISCONF" | b"LOADING" | b"MASTERDOWN") => {
                self.lose_backend(handle, &Loss::Ours("its server cannot tell of changes now"));
            }
            Some(_) => self.witness_refused(handle, pool, frame),
        }
    }

    /// The server does not tell of changes. Who asks learns why; who has tracked until now would be told nothing more
    /// by the master of now, and is closed.
    fn witness_refused(&mut self, handle: Handle, pool: usize, line: &[u8]) {
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        self.refuse_tracking(pool, &format!("{text}\r\n"));
        self.lose_backend(handle, &Loss::Refused(text));
        let tracker = self.pools[pool].tracker.as_ref();
        for client in tracker.map_or(Vec::new(), |it| it.clients.clone()) {
            self.client_lost(client);
        }
    }

    /// A witness was lost: what it would have told is not known. It is opened again.
    pub(super) fn lose_witness(&mut self, backend: &Backend, loss: &Loss) {
        let shard = backend.shard;
        let (made, retry_ms) = self.note_listener_lost(backend, loss);
        self.witness_gone(backend, retry_ms);
        if self.shards[shard].fixed && !made {
            let line = format!("-ERR {}\r\n", loss.reason());
            self.refuse_tracking(self.shards[shard].pool, &line);
        }
    }

    /// A shard has no such witness any more.
    pub(super) fn witness_gone(&mut self, backend: &Backend, retry_ms: Option<u32>) {
        let shard = backend.shard;
        let Some(witness) = self.witness_mut(shard) else {
            return;
        };
        if witness.backend != Some(backend.handle) {
            return;
        }
        let armed = std::mem::take(&mut witness.armed);
        witness.backend = None;
        witness.retry_ms = retry_ms;
        if armed {
            self.invalidate_all(self.shards[shard].pool);
        }
    }

    /// The shard has another server: what was tried in vain at the one before is tried at once.
    pub(super) fn retry_witness(&mut self, shard: usize) {
        if let Some(witness) = self.witness_mut(shard) {
            witness.retry_ms = None;
        }
    }

    fn follow_ring_of_tracker(&mut self, pool: usize) {
        let state = &mut self.pools[pool];
        let Some(tracker) = &mut state.tracker else {
            return;
        };
        if Arc::ptr_eq(&state.router, &tracker.router) {
            return;
        }
        tracker.router = state.router.clone();
        for left in tracker.take_shards() {
            self.close_witness(&left);
        }
        self.invalidate_all(pool);
        self.conclude_tracking(pool);
    }

    fn expire_tracking(&mut self, pool: usize) {
        let limit = self.hold_nanos(pool);
        let Some(tracker) = &self.pools[pool].tracker else {
            return;
        };
        let Some(first) = tracker.asking.first() else {
            return;
        };
        let held = self.now.nanos.saturating_sub(first.since);
        let mut witnesses = tracker.witnesses.iter();
        let awaited = witnesses.find(|witness| !witness.armed);
        if held >= limit
            && let Some(&Witness { shard, .. }) = awaited
        {
            let line = self.masterdown(shard, &Over::Time(held));
            self.refuse_tracking(pool, &format!("{line}\r\n"));
        }
    }

    /// Gives the witnesses back if nobody tracks any more.
    pub(super) fn close_idle_tracker(&mut self, pool: usize) {
        let idle = self.pools[pool].tracker.take_if(|it| it.is_idle());
        for witness in idle.iter().flat_map(|tracker| &tracker.witnesses) {
            self.close_witness(witness);
        }
    }

    fn close_witness(&mut self, witness: &Witness) {
        if let Some(handle) = witness.backend
            && self.backend(handle).is_some()
        {
            self.backends.remove(handle.index as usize);
        }
    }

    fn witness_mut(&mut self, shard: usize) -> Option<&mut Witness> {
        let pool = self.shards[shard].pool;
        let tracker = self.pools[pool].tracker.as_mut()?;
        tracker.witness_mut(shard)
    }
}
