//! Refusals: replies that say that a request was not executed, and would be by a master that serves.
//!
//! READONLY, LOADING and their like mean that a request was refused before it was executed. No client
//! sees them: the connection is retired, the request is held, and what follows on that connection for
//! the same client is not taken at face value, since it may have overtaken what was refused.

use super::Worker;
use super::losses::Loss;
use super::shard::{Held, LaneState};
use crate::backend::Phase;
use crate::coalesce::Outcome;
use crate::command::Access;
use crate::inflight::{Owner, Pending};
use crate::reactor::Handle;
use crate::resp;

impl Worker {
    /// A reply on a connection of which a request was refused.
    pub(super) fn take_after_refusal(
        &mut self,
        handle: Handle,
        pending: Pending,
        frame: &[u8],
        reply: &[u8],
        refusal: bool,
    ) {
        self.retire(handle);
        let Some(backend) = self.backend(handle) else {
            return;
        };
        let (shard, lane) = (backend.shard, backend.lane);
        if let Owner::Client { client, .. } = pending.owner {
            let behind = !refusal && backend.refused.contains(&client);
            if refusal {
                backend.refused.insert(client);
                self.shards[shard].counters.refusals.add(1);
            }
            if refusal || behind && pending.access == Access::Read {
                self.hold(shard, lane, pending, frame.into());
            } else {
                if behind {
                    self.doubt_held_writes(shard, client);
                }
                let outcome = Outcome::Reply(reply.into());
                self.settle(shard, pending.owner, pending.access, outcome);
            }
        }
        let over = self
            .backend(handle)
            .is_some_and(|backend| !backend.has_inflight());
        if over {
            self.lose_backend(
                handle,
                &Loss::Ours("refused a request: not a master that serves"),
            );
        }
    }

    /// Takes nothing new on a connection that refused a request; what it has not written is held. One that
    /// is ending takes nothing new already, and says nothing about the server that the lane has now.
    fn retire(&mut self, handle: Handle) {
        let millis = self.now.millis;
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if matches!(backend.phase, Phase::Retired | Phase::Ending) {
            return;
        }
        backend.phase = Phase::Retired;
        let (shard, lane) = (backend.shard, backend.lane);
        let unwritten = backend.take_unwritten();
        backend.since_ms = millis;
        self.shards[shard].suspect = true;
        if let Some(lane) = self.shards[shard].lane_mut(lane) {
            lane.state = LaneState::Retiring(handle);
        }
        for (pending, frame) in unwritten {
            self.hold(shard, lane, pending, frame);
        }
    }

    /// A later write of this client was executed: an earlier one that was refused must not be sent
    /// again as if nothing had happened.
    fn doubt_held_writes(&mut self, shard: usize, client: Handle) {
        let is_its_write = |held: &Held| {
            held.access == Access::Write
                && matches!(held.owner, Owner::Client { client: of, .. } if of == client)
        };
        let (doubtful, rest): (Vec<Held>, Vec<Held>) = std::mem::take(&mut self.shards[shard].held)
            .into_iter()
            .partition(is_its_write);
        self.shards[shard].held = rest.into();
        let pool = self.shards[shard].pool;
        for held in doubtful {
            self.no_longer_held(pool, &held);
            self.settle(shard, held.owner, held.access, Outcome::Unknown);
        }
    }
}

/// The answer of a replica to ROLE.
pub(super) fn is_replica(reply: &[u8]) -> bool {
    let first = memchr::memchr(b'\n', reply).map_or(&[][..], |end| &reply[end + 1..]);
    reply[0] == b'*' && first.starts_with(b"$5\r\nslave\r\n")
}

/// What a master that was demoted says to those that wait; one whose stream is gone is sent away with another text.
const DEMOTED: &[u8] = b"-UNBLOCKED force unblock";

/// Errors that say that a request was not executed, and would be by another or later master.
pub(super) fn is_refusal(reply: &[u8]) -> bool {
    reply.starts_with(DEMOTED)
        || matches!(
            resp::error_code(reply),
            Some(b"READONLY" | b"LOADING" | b"MASTERDOWN" | b"NOREPLICAS")
        )
}

/// Errors of a node of a Redis Cluster, which has only some of the keys and names another node for the others.
pub(super) fn is_redirection(reply: &[u8]) -> bool {
    matches!(
        resp::error_code(reply),
        Some(b"MOVED" | b"ASK" | b"CLUSTERDOWN" | b"TRYAGAIN")
    )
}

/// What a client is told of that: it can do nothing about it, and would go where the proxy is not.
pub(super) fn redirected(shard: &str, reply: &[u8]) -> Vec<u8> {
    let said = String::from_utf8_lossy(reply.trim_ascii_end());
    let said = said.trim_start_matches('-');
    format!(
        "-ERR shard \"{shard}\" is a node of a Redis Cluster, which Shoal does not serve; it said: {said}\r\n"
    )
    .into_bytes()
}
