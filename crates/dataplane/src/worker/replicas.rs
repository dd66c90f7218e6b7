//! Reads on replicas: who of them gets a client's read, their connections, and what becomes of a read that is lost.
//!
//! A client's reads of a shard go to one replica for as long as that may be read from, so that they do not step back
//! in time; to which one is drawn from the client's number, evenly, and who leaves moves no other client. Whatever
//! speaks against that (no lease, no connection yet, an own write that may not be there) sends the read to the
//! master, as does every failure: a read can be repeated. Called by `dispatch`, by what loses
//! connections, and once a round.
//!
//! ```text
//!  a lease ──(first read)──► connecting ──► connected, and sampled since ──► reads
//!                                │                   │ lost, refused, silent behind its lease
//!                                └───────────────────┴──► what it was sent: to the master; again after a pause
//! ```

use std::sync::Arc;

use super::Worker;
use super::dispatch::Step;
use super::losses::Loss;
use super::refusals::is_refusal;
use super::shard::{Lane, LaneState};
use crate::backend::{Backend, Phase, Pin};
use crate::command::{Access, Command};
use crate::endpoint::Endpoint;
use crate::hash::HashKind;
use crate::inflight::{Owner, Slot, WHOLE};
use crate::lane::LaneKey;
use crate::reactor::Handle;
use crate::readers::{ReadLease, Readers};
use crate::recent::Recent;
use crate::resp;
use crate::snapshot::Nanos;
use crate::socket;

/// Pause after a connection that was lost or refused, milliseconds.
const PAUSE_MS: u32 = 250;
/// A replica that says nothing for so long and has no lease any more is not waited for.
const PATIENCE_MS: u32 = 100;

/// A replica as one worker sees it.
pub(super) struct Replica {
    id: u32,
    endpoint: Endpoint,
    lease: Arc<ReadLease>,
    /// What draws clients to it.
    seed: u64,
    lanes: Vec<Lane>,
}

impl Replica {
    fn new(id: u32, endpoint: &Endpoint, lease: &Arc<ReadLease>) -> Self {
        let seed = u64::from(HashKind::Fnv1a64.hash(endpoint.to_string().as_bytes()));
        Self {
            id,
            endpoint: endpoint.clone(),
            lease: lease.clone(),
            seed,
            lanes: Vec::new(),
        }
    }

    fn lane(&self, key: LaneKey) -> Option<LaneState> {
        let found = self.lanes.iter().find(|lane| lane.key == key);
        found.map(|lane| lane.state)
    }

    fn set_lane(&mut self, key: LaneKey, state: LaneState) {
        match self.lanes.iter_mut().find(|lane| lane.key == key) {
            Some(lane) => lane.state = state,
            None => self.lanes.push(Lane { key, state }),
        }
    }
}

/// How strongly a client is drawn to a server.
fn draw(client: u64, seed: u64) -> u64 {
    let mixed = (client ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ mixed >> 32
}

impl Worker {
    /// The connection to a replica on which this read of a client's may go now; else it goes to the master.
    pub(super) fn replica_for(
        &mut self,
        handle: Handle,
        shard: usize,
        command: &Command,
    ) -> Option<Handle> {
        if self.shards[shard].replicas.is_empty() || !command.may_read_a_replica() {
            return None;
        }
        let now = self.now.nanos;
        let max_lag = self.snapshot.pool_of(shard).config.max_lag?.as_nanos() as Nanos;
        let client = self.client(handle)?;
        let own = |recent: &mut Box<Recent>| !recent.is_everywhere(shard, now, max_lag);
        // What is read while keys are watched must be as new as they are, and what is cached as new as the word
        // that it has changed, which is the master's.
        let tracks = client.tracking.as_ref().is_some_and(|it| it.mode.is_some());
        let compares = client.watch.is_some() || tracks;
        if client.held > 0 || compares || client.recent.as_mut().is_none_or(own) {
            return None;
        }
        let (lane, number) = (client.lane, client.number);
        let at = self.drawn(shard, lane, number)?;
        match self.shards[shard].replicas[at].lane(lane) {
            Some(LaneState::Ready(ready)) => {
                let connected = self.backend(ready)?.begun;
                let covered = self.shards[shard].replicas[at].lease.covers(connected, now);
                covered.then_some(ready)
            }
            Some(LaneState::Opening(_) | LaneState::Retiring(_)) => None,
            Some(LaneState::Down { .. }) | None => {
                self.open_replica(shard, at, lane);
                None
            }
        }
    }

    /// Which of those that may be read from a client is drawn to; none if that is the master.
    fn drawn(&self, shard: usize, lane: LaneKey, number: u64) -> Option<usize> {
        let replicas = self.shards[shard].replicas.iter().enumerate();
        let usable = replicas.filter(|(_, replica)| {
            let pauses = matches!(
                replica.lane(lane),
                Some(LaneState::Down { retry_ms }) if !self.due(retry_ms)
            );
            !pauses && replica.lease.holds(self.now.nanos)
        });
        let (strength, at) = usable
            .map(|(at, replica)| (draw(number, replica.seed), at))
            .max()?;
        let readers = &self.snapshot.routes[shard].readers;
        let to_master = readers.with_master() && draw(number, 0) > strength;
        (!to_master).then_some(at)
    }

    /// Sends a client's read to a replica.
    pub(super) fn read_at(
        &mut self,
        handle: Handle,
        shard: usize,
        replica: Handle,
        frame: &[u8],
    ) -> Step {
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let sequence = client.slots.push(Slot::Waiting);
        client.read_elsewhere = Some(sequence);
        let owner = Owner::Client {
            client: handle,
            sequence,
            part: WHOLE,
        };
        self.shards[shard].counters.replica_reads.add(1);
        self.send(replica, owner, Access::Read, frame);
        Step::Taken
    }

    fn open_replica(&mut self, shard: usize, at: usize, lane: LaneKey) {
        let replica = &self.shards[shard].replicas[at];
        let (endpoint, pin) = (replica.endpoint.clone(), Pin::Replica(replica.id));
        let opened = socket::connect(&endpoint).ok();
        let opened = opened.and_then(|socket| self.add_backend(shard, lane, pin, socket).ok());
        let retry_ms = self.now.millis.wrapping_add(PAUSE_MS);
        let state = opened.map_or(LaneState::Down { retry_ms }, LaneState::Opening);
        self.shards[shard].replicas[at].set_lane(lane, state);
    }

    /// The connection can be used, once its replica has been sampled.
    pub(super) fn replica_greeted(&mut self, shard: usize, id: u32, lane: LaneKey, handle: Handle) {
        if let Some(replica) = self.replica_mut(shard, id) {
            replica.set_lane(lane, LaneState::Ready(handle));
        }
    }

    fn replica_mut(&mut self, shard: usize, id: u32) -> Option<&mut Replica> {
        let mut replicas = self.shards[shard].replicas.iter_mut();
        replicas.find(|replica| replica.id == id)
    }

    /// The lease holds at this very moment, for what this connection is about to be sent.
    pub(super) fn may_read(&mut self, handle: Handle, id: u32) -> bool {
        let Some(backend) = self.backend(handle) else {
            return false;
        };
        let (shard, connected, phase) = (backend.shard, backend.begun, backend.phase);
        let covers = |replica: &mut Replica| replica.lease.covers(connected, super::boot_nanos());
        phase != Phase::Ready || self.replica_mut(shard, id).is_some_and(covers)
    }

    /// A connection to a replica is no more: all that it has not answered goes to the master, in its order.
    pub(super) fn lose_replica(&mut self, backend: Backend, id: u32) {
        let (shard, key, half_sent) = (backend.shard, backend.lane, backend.stream.is_some());
        let retry_ms = self.now.millis.wrapping_add(PAUSE_MS);
        if let Some(replica) = self.replica_mut(shard, id)
            && matches!(replica.lane(key), Some(LaneState::Opening(at) | LaneState::Ready(at)) if at == backend.handle)
        {
            replica.set_lane(key, LaneState::Down { retry_ms });
        }
        let mut requests = backend.dissolve().into_iter();
        if half_sent
            && let Some((front, ..)) = requests.next()
            && let Owner::Client { client, .. } = front.owner
        {
            self.close_client(client); // nothing that could follow would make its reply whole
        }
        for (pending, _, frame) in requests {
            if matches!(pending.owner, Owner::Client { .. }) {
                self.shards[shard].counters.replica_losses.add(1);
                self.hold(shard, key, pending, frame);
            }
        }
        if !self.repeating.contains(&shard) {
            self.repeating.push(shard);
        }
    }

    /// Sends what replicas have not answered to the masters. When a connection is lost is no moment for that: a new
    /// snapshot may be half taken over.
    pub(super) fn repeat_reads(&mut self) {
        for shard in std::mem::take(&mut self.repeating) {
            self.release(shard);
        }
    }

    /// Gives up replicas that do not answer: beyond the pool's `timeout`, or beyond their lease.
    pub(super) fn tend_replicas(&mut self) {
        if self.shards.iter().all(|shard| shard.replicas.is_empty()) {
            return;
        }
        let (now, millis) = (self.now.nanos, self.now.millis);
        let is_over = |backend: &Backend, id: u32| {
            let mut replicas = self.shards[backend.shard].replicas.iter();
            !replicas.any(|replica| replica.id == id && replica.lease.holds(now))
        };
        let is_late = |backend: &Backend, waited_ms: u32| {
            let timeout = self.snapshot.pool_of(backend.shard).config.timeout;
            !timeout.is_zero() && waited_ms >= timeout.as_millis() as u32
        };
        let silent: Vec<Handle> = self
            .backends
            .iter()
            .map(|(_, backend)| backend)
            .filter(|backend| match (backend.pin, backend.waited_ms(millis)) {
                (Pin::Replica(id), Some(waited)) if backend.phase == Phase::Ready => {
                    // One that sends a long reply says something as long as it goes on.
                    let silent = millis.wrapping_sub(backend.heard_ms);
                    let waited = if backend.stream.is_some() {
                        silent
                    } else {
                        waited
                    };
                    waited >= PATIENCE_MS && is_over(backend, id) || is_late(backend, waited)
                }
                _ => false,
            })
            .map(|backend| backend.handle)
            .collect();
        for handle in silent {
            self.lose_backend(handle, &Loss::Ours("its replica does not answer"));
        }
    }

    /// Takes over who may be read from now. What was sent to others goes to the master.
    pub(super) fn take_readers(&mut self, shard: usize) {
        let readers: Arc<Readers> = self.snapshot.routes[shard].readers.clone();
        let mut before = std::mem::take(&mut self.shards[shard].replicas);
        for reader in &readers.replicas {
            let same = |it: &Replica| Arc::ptr_eq(&it.lease, &reader.lease);
            let replica = if let Some(at) = before.iter().position(same) {
                before.swap_remove(at)
            } else {
                self.next_id = self.next_id.wrapping_add(1);
                Replica::new(self.next_id, &reader.endpoint, &reader.lease)
            };
            self.shards[shard].replicas.push(replica);
        }
        for gone in before {
            for lane in gone.lanes {
                if let LaneState::Opening(handle) | LaneState::Ready(handle) = lane.state
                    && self
                        .backend(handle)
                        .is_some_and(|it| it.phase != Phase::Ending)
                {
                    self.lose_backend(handle, &Loss::Ours("its replica is not read from any more"));
                }
            }
        }
    }
}

/// An error that says that this replica cannot answer now, and its master might.
pub(super) fn cannot_answer(reply: &[u8]) -> bool {
    is_refusal(reply) || resp::error_code(reply) == Some(b"BUSY")
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn clients_are_shared_evenly_and_stay_when_another_server_leaves() {
        let seeds = [1_u64, 2, 3, 0];
        let choose = |client: u64, among: &[u64]| {
            let best = among.iter().max_by_key(|&&seed| draw(client, seed));
            best.copied().unwrap_or_default()
        };
        let mut counts = [0_u32; 4];
        for client in 0..4000 {
            let chosen = choose(client, &seeds);
            counts[seeds.iter().position(|&it| it == chosen).unwrap_or(0)] += 1;
            if chosen != 2 {
                assert_eq!(choose(client, &[1, 3, 0]), chosen);
            }
        }
        assert!(
            counts.iter().all(|&count| (900..1100).contains(&count)),
            "{counts:?}"
        );
    }
}
