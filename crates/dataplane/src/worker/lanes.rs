//! Connections to servers: opened when first needed, kept open, and lost.
//!
//! When one is lost, every request on it is judged by how far it came: what was not wholly written
//! cannot have been executed and is held; a read is held to be sent again; a write that was written and
//! not answered is INDOUBT.
//!
//! A shard that is followed is connected again by itself, for what it holds waits for that. One whose
//! server is fixed is connected when a request needs it, and if that fails, whatever waits is answered
//! with the reason: there will be no other server. `losses` has what follows from a loss.

use std::os::fd::{AsFd, OwnedFd};

use socket2::SockRef;

use super::Worker;
use super::losses::Loss;
use super::shard::{Lane, LaneState};
use crate::backend::{Backend, Phase, Pin};
use crate::lane::LaneKey;
use crate::pool::Servers;
use crate::reactor::{Handle, Token};
use crate::socket;

impl Worker {
    /// Makes sure that a connection for this lane exists or is on its way; if it could not even be begun
    /// and will not be tried again, says why.
    pub(super) fn want_lane(&mut self, shard: usize, key: LaneKey) -> Option<String> {
        if self.shards[shard].lane_mut(key).is_none() {
            let retry_ms = self.now.millis;
            let state = LaneState::Down { retry_ms };
            self.shards[shard].lanes.push(Lane { key, state });
            self.open_due_lanes(shard);
        }
        let gone = self.shards[shard].lane_mut(key).is_none();
        gone.then(|| self.shards[shard].last_loss.clone())
    }

    /// Connects the servers of a pool that asks for it before there is a request.
    pub(super) fn preconnect(&mut self, shard: usize) {
        let config = &self.snapshot.pool_of(shard).config;
        if let Servers::Fixed {
            preconnect: true, ..
        } = config.servers
        {
            let lane = config.lane(0);
            self.want_lane(shard, lane);
        }
    }

    /// Connects the lanes whose time has come.
    pub(super) fn open_due_lanes(&mut self, shard: usize) {
        let Some(endpoint) = self.shards[shard].endpoint.clone() else {
            return;
        };
        let due: Vec<LaneKey> = self.shards[shard]
            .lanes
            .iter()
            .filter(|lane| matches!(lane.state, LaneState::Down { retry_ms } if self.due(retry_ms)))
            .map(|lane| lane.key)
            .collect();
        let attempt = self.now.nanos;
        for key in due {
            self.shards[shard].counters.attempts.add(1);
            match socket::connect(&endpoint) {
                Ok(socket) => self.opening(shard, key, socket),
                Err(error) => {
                    self.lane_failed(shard, key, &Loss::io("connect", &error), attempt);
                }
            }
        }
    }

    fn opening(&mut self, shard: usize, key: LaneKey, socket: OwnedFd) {
        match self.add_backend(shard, key, Pin::Shared, socket) {
            Ok(handle) => {
                if let Some(lane) = self.shards[shard].lane_mut(key) {
                    lane.state = LaneState::Opening(handle);
                }
            }
            Err(error) => {
                let attempt = self.now.nanos;
                self.lane_failed(shard, key, &Loss::io("watch", &error), attempt);
            }
        }
    }

    /// Watches a socket that connects.
    pub(super) fn add_backend(
        &mut self,
        shard: usize,
        key: LaneKey,
        pin: Pin,
        socket: OwnedFd,
    ) -> std::io::Result<Handle> {
        let index = self.backends.vacant_key();
        let handle = self.new_handle(index);
        let mut backend = Backend::new(handle, socket, shard, key, self.now.millis);
        backend.begun = self.now.nanos;
        backend.pin = pin;
        let (watched, token) = (backend.socket.as_fd(), Token::Backend(handle));
        self.reactor.add(watched, token, backend.interest)?;
        self.backends.insert(backend);
        Ok(handle)
    }

    /// The socket of a backend that connects has become writable or failed.
    pub(super) fn connected(&mut self, handle: Handle) {
        let (nanos, millis) = (self.now.nanos, self.now.millis);
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let shard = backend.shard;
        match SockRef::from(&backend.socket).take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => {
                return self.lose_backend(handle, &Loss::io("connect", &error));
            }
        }
        let password = self.snapshot.pool_of(shard).config.backend_password.clone();
        let (suspect, fixed) = (self.shards[shard].suspect, self.shards[shard].fixed);
        let Some(backend) = self.backend(handle) else {
            return;
        };
        // Nothing on it would show that it is a replica's: a client would only watch in vain.
        let suspect = match backend.pin {
            Pin::Replica(_) => false,
            pin => suspect || pin.is_own() && !fixed,
        };
        backend.phase = Phase::Greeting;
        backend.begun = nanos;
        backend.since_ms = millis;
        if backend.greet(password.as_deref(), suspect, millis) {
            self.touch_backend(handle);
        } else {
            self.greeted(handle);
        }
        self.watch_backend(handle);
    }

    /// The connection can be used: what waited for it goes out.
    pub(super) fn greeted(&mut self, handle: Handle) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        backend.phase = Phase::Ready;
        let (shard, key) = (backend.shard, backend.lane);
        let pin = backend.pin;
        if let Pin::Replica(id) = pin {
            return self.replica_greeted(shard, id, key, handle);
        }
        if pin != Pin::Shared {
            self.shards[shard].pin_retry_ms = None;
        } else if let Some(lane) = self.shards[shard].lane_mut(key) {
            lane.state = LaneState::Ready(handle);
        }
        self.shards[shard].suspect = false;
        self.shards[shard].leased = self.lease_holds(shard);
        self.note_loss(shard, String::new());
        match pin {
            Pin::Subscriber(client) => self.ear_opened(handle, client),
            Pin::Witness => self.witness_opened(handle),
            _ => {}
        }
        self.release(shard);
    }

    /// The shard's master has changed: its connections are given up and new ones are made.
    pub(super) fn leave_master(&mut self, shard: usize) {
        let old: Vec<Handle> = self
            .backends
            .iter()
            .filter(|(_, backend)| backend.shard == shard)
            .map(|(_, backend)| backend.handle)
            .collect();
        for backend in old {
            self.lose_backend(backend, &Loss::Ours("its shard has a new master"));
        }
        self.shards[shard].answered();
        self.shards[shard].pin_retry_ms = None;
        self.retry_ears(shard);
        self.retry_witness(shard);
        self.shards[shard].suspect = false;
        let retry_ms = self.now.millis;
        for lane in &mut self.shards[shard].lanes {
            lane.state = LaneState::Down { retry_ms };
        }
        let first = self.snapshot.pool_of(shard).config.lane(0);
        self.want_lane(shard, first);
        self.open_due_lanes(shard);
    }

    /// Closes a shard's connections, those that still wait for replies once these have come. What has not
    /// begun to leave was not meant for their server any more: it is held.
    pub(super) fn finish_backends(&mut self, shard: usize) {
        let millis = self.now.millis;
        let (mut idle, mut ending) = (Vec::new(), Vec::new());
        let mut subscribers = Vec::new();
        let mut unwritten = Vec::new();
        for (_, backend) in &mut self.backends {
            if backend.shard != shard || backend.phase == Phase::Ending {
                continue;
            }
            let open = matches!(
                backend.phase,
                Phase::Ready | Phase::Leaving | Phase::Retired
            );
            if open && !backend.pin.is_own() {
                unwritten.push((backend.lane, backend.take_unwritten()));
            }
            if let Pin::Subscriber(client) = backend.pin {
                subscribers.push(client);
                idle.push(backend.handle);
            } else if backend.pin == Pin::Witness {
                idle.push(backend.handle);
            } else if open && backend.has_inflight() {
                backend.phase = Phase::Ending;
                backend.since_ms = millis;
                ending.push(backend.handle);
            } else {
                idle.push(backend.handle);
            }
        }
        for handle in ending {
            self.touch_backend(handle); // half a write is found out when it is to go on
        }
        for handle in idle {
            let backend = self.backends.remove(handle.index as usize);
            if backend.pin == Pin::Witness {
                self.witness_gone(&backend, None);
            }
        }
        for client in subscribers {
            self.want_tending(client);
        }
        self.retry_ears(shard);
        self.retry_witness(shard);
        for (lane, requests) in unwritten {
            for (pending, frame) in requests {
                self.hold(shard, lane, pending, frame);
            }
        }
    }

    /// Tells the reactor what a backend is watched for, if that has changed.
    pub(super) fn watch_backend(&mut self, handle: Handle) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let wanted = backend.wanted();
        if backend.interest == wanted {
            return;
        }
        backend.interest = wanted;
        if let Some(backend) = self.backends.get(handle.index as usize) {
            let token = Token::Backend(handle);
            // A socket that cannot be watched any more reports its failure at the next write.
            let _ = self.reactor.modify(&backend.socket, token, wanted);
        }
    }
}
