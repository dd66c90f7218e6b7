//! Connections to masters: opened when first needed, kept open, and lost.
//!
//! When one is lost, every request on it is judged by how far it came: what was not wholly written
//! cannot have been executed and is held; a read is held to be sent again; a write that was written and
//! not answered is INDOUBT.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::Worker;
use super::shard::{Lane, LaneState};
use crate::backend::{Backend, Phase, Progress};
use crate::coalesce::Outcome;
use crate::command::Access;
use crate::inflight::Owner;
use crate::lane::LaneKey;
use crate::reactor::{Handle, Token};

/// How long connecting, and how long the greeting, may take.
const OPEN_TIMEOUT_MS: u32 = 1000;
/// A peer that has vanished without a word is noticed after about twice this.
const KEEPALIVE: Duration = Duration::from_secs(10);

impl Worker {
    /// Makes sure that a connection for this lane exists or is on its way.
    pub(super) fn want_lane(&mut self, shard: usize, key: LaneKey) {
        if self.shards[shard].lane_mut(key).is_none() {
            let retry_ms = self.now.millis;
            let state = LaneState::Down { retry_ms };
            self.shards[shard].lanes.push(Lane { key, state });
            self.open_due_lanes(shard);
        }
    }

    /// Connects the lanes whose time has come.
    pub(super) fn open_due_lanes(&mut self, shard: usize) {
        let Some(endpoint) = self.shards[shard].endpoint else {
            return;
        };
        for index in 0..self.shards[shard].lanes.len() {
            let lane = &self.shards[shard].lanes[index];
            let LaneState::Down { retry_ms } = lane.state else {
                continue;
            };
            if !self.due(retry_ms) {
                continue;
            }
            let key = lane.key;
            match connect(endpoint) {
                Ok(socket) => self.opening(shard, key, socket),
                Err(error) => self.lane_failed(shard, key, &error.to_string()),
            }
        }
    }

    fn opening(&mut self, shard: usize, key: LaneKey, socket: std::net::TcpStream) {
        let index = self.backends.vacant_key();
        let handle = self.new_handle(index);
        let backend = Backend::new(handle, socket, shard, key, self.now.millis);
        let token = Token::Backend(handle);
        if let Err(error) = self
            .reactor
            .add(backend.socket.as_fd(), token, backend.interest)
        {
            return self.lane_failed(shard, key, &error.to_string());
        }
        self.backends.insert(backend);
        if let Some(lane) = self.shards[shard].lane_mut(key) {
            lane.state = LaneState::Opening(handle);
        }
    }

    /// The socket of a backend that connects has become writable or failed.
    pub(super) fn connected(&mut self, handle: Handle) {
        let millis = self.now.millis;
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let shard = backend.shard;
        match backend.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => {
                return self.lose_backend(handle, &format!("connect: {error}"));
            }
        }
        let password = self.snapshot.pool_of(shard).config.backend_password.clone();
        let suspect = self.shards[shard].suspect;
        let Some(backend) = self.backend(handle) else {
            return;
        };
        backend.phase = Phase::Greeting;
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
        if let Some(lane) = self.shards[shard].lane_mut(key) {
            lane.state = LaneState::Ready(handle);
        }
        self.shards[shard].suspect = false;
        self.shards[shard].leased = self.lease_holds(shard);
        self.mailbox.stats.note_error(shard, "");
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
            self.lose_backend(backend, "its shard has a new master");
        }
        self.shards[shard].answered();
        self.shards[shard].suspect = false;
        let retry_ms = self.now.millis;
        for lane in &mut self.shards[shard].lanes {
            lane.state = LaneState::Down { retry_ms };
        }
        self.want_lane(shard, LaneKey::default());
        self.open_due_lanes(shard);
    }

    /// Gives a connection up and decides what becomes of each request on it.
    pub(super) fn lose_backend(&mut self, handle: Handle, why: &str) {
        if self.backend(handle).is_none() {
            return;
        }
        let backend = self.backends.remove(handle.index as usize);
        let (shard, key) = (backend.shard, backend.lane);
        self.lane_failed(shard, key, why);
        let half_sent = backend.stream.is_some();
        let mut requests = backend.dissolve().into_iter();
        if half_sent && let Some((front, ..)) = requests.next() {
            // Half a reply is with the client: nothing that could follow would make it whole.
            if let Owner::Client { client, .. } = front.owner {
                self.close_client(client);
            }
        }
        for (pending, progress, frame) in requests {
            if !matches!(pending.owner, Owner::Client { .. }) {
                continue;
            }
            if progress == Progress::Written && pending.access == Access::Write {
                self.settle(shard, pending.owner, pending.access, Outcome::Unknown);
            } else {
                self.hold(shard, key, pending, frame);
            }
        }
    }

    /// Plans the next attempt to connect a lane.
    pub(super) fn lane_failed(&mut self, shard: usize, key: LaneKey, why: &str) {
        let retry_ms = self.shards[shard].next_retry(self.now.millis);
        if let Some(lane) = self.shards[shard].lane_mut(key) {
            lane.state = LaneState::Down { retry_ms };
        }
        let counters = &self.mailbox.stats.shards[shard];
        counters.connection_errors.add(1);
        self.mailbox.stats.note_error(shard, why);
    }

    /// Gives up connections that take too long to open, and requests that take too long to be answered.
    pub(super) fn expire_backends(&mut self) {
        let millis = self.now.millis;
        let slow: Vec<Handle> = self
            .backends
            .iter()
            .filter(|(_, backend)| {
                backend.phase != Phase::Ready
                    && millis.wrapping_sub(backend.since_ms) >= OPEN_TIMEOUT_MS
            })
            .map(|(_, backend)| backend.handle)
            .collect();
        for backend in slow {
            self.lose_backend(backend, "no answer for 1 s");
        }
        if !self.has_request_deadlines() {
            return;
        }
        for index in 0..self.backends.capacity() {
            let Some(backend) = self.backends.get(index) else {
                continue;
            };
            let shard = backend.shard;
            let timeout = self.snapshot.pool_of(shard).config.timeout.as_millis() as u32;
            // A reply that is half passed on can no longer be replaced by an error.
            if timeout == 0 || backend.stream.is_some() {
                continue;
            }
            while let Some(late) = self
                .backends
                .get_mut(index)
                .and_then(|backend| backend.expire(millis, timeout))
            {
                self.mailbox.stats.shards[shard].timeouts.add(1);
                self.settle_late(shard, late.owner, late.access, timeout);
            }
        }
    }

    /// Some pool has a `timeout` and something unanswered.
    pub(super) fn has_request_deadlines(&self) -> bool {
        let any = self
            .snapshot
            .pools
            .iter()
            .any(|pool| !pool.config.timeout.is_zero());
        any && self
            .backends
            .iter()
            .any(|(_, backend)| backend.has_inflight())
    }

    fn settle_late(&mut self, shard: usize, owner: Owner, access: Access, timeout: u32) {
        let outcome = if access == Access::Write {
            Outcome::Unknown
        } else {
            let name = self.snapshot.shard_name(shard);
            Outcome::NotSent(format!(
                "-ERR shard \"{name}\" did not answer within {timeout} ms"
            ))
        };
        self.settle(shard, owner, access, outcome);
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

/// Begins to connect without waiting.
fn connect(endpoint: SocketAddr) -> std::io::Result<std::net::TcpStream> {
    let socket = Socket::new(
        Domain::for_address(endpoint),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 4)
        .with_retries(4);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    match socket.connect(&SockAddr::from(endpoint)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
