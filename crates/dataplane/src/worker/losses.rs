//! What follows when a connection to a server is lost, was not made, or does not answer in time.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::Worker;
use super::shard::LaneState;
use crate::backend::{Late, Phase, Pin, Progress};
use crate::coalesce::Outcome;
use crate::command::Access;
use crate::inflight::{Owner, Pending};
use crate::lane::LaneKey;
use crate::reactor::Handle;
use crate::snapshot::{NANOS_A_MILLI, Nanos};

/// How long connecting, and how long the greeting, may take where another server may follow.
const OPEN_TIMEOUT_MS: u32 = 1000;
/// How long the last replies of a connection that is not needed any more are waited for.
const ENDING_MS: u32 = 10_000;

/// A fixed server that lets requests expire and says nothing for so many timeouts, and no less than so
/// many milliseconds, gets a new connection: what is unanswered on the old one does not grow for ever.
const DEAD_TIMEOUTS: u32 = 10;
const DEAD_MS: u32 = 10_000;

/// Why a connection is given up.
pub(super) enum Loss {
    /// The server closed it.
    Closed,
    /// A system call failed.
    Broken(&'static str, Errno),
    /// It took too long.
    Silent(String),
    /// The server is not what it should be, or is not needed.
    Ours(&'static str),
    /// The server said or did what it should not.
    Unfit(String),
    /// The server answers, but not to this proxy: it refused the password or the database.
    Refused(String),
}

impl Loss {
    pub(super) fn io(doing: &'static str, error: &std::io::Error) -> Self {
        let number = error.raw_os_error().map(Errno::from_raw_os_error);
        Self::Broken(doing, number.unwrap_or(Errno::IO))
    }

    fn text(&self) -> String {
        match self {
            Self::Closed => "closed by the server".to_owned(),
            Self::Broken(doing, error) => format!("{doing}: {error}"),
            Self::Silent(text) | Self::Unfit(text) | Self::Refused(text) => text.clone(),
            Self::Ours(text) => (*text).to_owned(),
        }
    }

    /// What a client is told whose request could not be sent because of it: the kernel's words, as
    /// Twemproxy passes them on.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Closed => strerror(Errno::CONNRESET),
            Self::Broken(_, error) => strerror(*error),
            Self::Silent(_) => strerror(Errno::TIMEDOUT),
            Self::Ours(_) | Self::Unfit(_) | Self::Refused(_) => self.text(),
        }
    }
}

/// The kernel's words for an error, without its number.
pub(super) fn strerror(error: Errno) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// A connection that could not be made, while what waited for it is answered.
pub(super) struct Failing {
    shard: usize,
    lane: LaneKey,
    reason: String,
}

impl Worker {
    /// Gives a connection up and decides what becomes of each request on it.
    pub(super) fn lose_backend(&mut self, handle: Handle, loss: &Loss) {
        if self.backend(handle).is_none() {
            return;
        }
        let backend = self.backends.remove(handle.index as usize);
        let (shard, key) = (backend.shard, backend.lane);
        match backend.pin {
            Pin::Shared => {}
            Pin::Replica(id) => return self.lose_replica(backend, id),
            _ => return self.lose_pinned(backend, loss),
        }
        let fixed = self.shards[shard].fixed;
        let made = !matches!(backend.phase, Phase::Connecting | Phase::Greeting);
        if made && matches!(loss, Loss::Closed | Loss::Broken(..) | Loss::Silent(_)) {
            self.doubt_writes(shard); // it may come back as another run, with less
        }
        // What is sent again was lost before: it is the same incident.
        let begun = if backend.only_repeats() {
            0
        } else {
            backend.begun
        };
        if self.shards[shard].serves_lane(key, handle) {
            if fixed && made {
                self.shards[shard].lanes.retain(|lane| lane.key != key);
                self.note_failure(shard, loss, begun);
            } else {
                self.lane_failed(shard, key, loss, begun);
            }
        } else if backend.phase != Phase::Ending {
            // One that is ending says nothing about the server that the shard has now.
            self.note_failure(shard, loss, begun);
        }
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
            let written = progress == Progress::Written;
            if written && pending.access == Access::Write {
                self.settle(shard, pending.owner, pending.access, Outcome::Unknown);
            } else if written && fixed && pending.held_ms > 0 {
                // Sent twice and lost twice: a third time would be no better.
                let line = format!("-ERR {}", loss.reason());
                self.settle(shard, pending.owner, pending.access, Outcome::NotSent(line));
            } else {
                self.hold(shard, key, pending, frame);
            }
        }
        if fixed && made && !self.snapshot.routes[shard].leaving && self.shards[shard].has_waiting()
        {
            self.want_lane(shard, key);
        }
    }

    /// WAIT vouches no more for what was written to this shard until now.
    pub(super) fn doubt_writes(&mut self, shard: usize) {
        for (_, client) in &mut self.clients {
            client.writes.doubt(shard);
        }
    }

    /// Plans the next attempt to connect a lane, or answers what waits for it if there is none.
    pub(super) fn lane_failed(&mut self, shard: usize, key: LaneKey, loss: &Loss, begun: Nanos) {
        if self.shards[shard].fixed {
            self.shards[shard].lanes.retain(|lane| lane.key != key);
            self.shards[shard].last_loss = loss.reason();
            // Before the server may be ejected for it: what waited for it is not for another one.
            self.answer_waiting(shard, key, loss.reason());
            return self.note_failure(shard, loss, begun);
        }
        self.note_failure(shard, loss, begun);
        let retry_ms = self.shards[shard].next_retry(self.now.millis);
        if let Some(lane) = self.shards[shard].lane_mut(key) {
            lane.state = LaneState::Down { retry_ms };
        }
    }

    pub(super) fn note_failure(&mut self, shard: usize, loss: &Loss, begun: Nanos) {
        let counters = &self.shards[shard].counters;
        match loss {
            Loss::Closed => counters.closed.add(1),
            Loss::Broken(..) | Loss::Unfit(_) | Loss::Refused(_) => counters.broken.add(1),
            Loss::Silent(_) => counters.timed_out.add(1),
            Loss::Ours(_) => {}
        }
        counters.connection_errors.add(1);
        self.note_loss(shard, loss.text());
        // Who answers is there: its keys are not for another server.
        if !matches!(loss, Loss::Ours(_) | Loss::Refused(_)) {
            self.count_failure(shard, begun);
        }
    }

    /// Shows why a shard's connection was last lost; nothing while it is up.
    pub(super) fn note_loss(&self, shard: usize, text: String) {
        let errors = &self.snapshot.routes[shard].face.errors;
        if let Ok(mut last) = errors[self.number].lock() {
            *last = text;
        }
    }

    /// One more failure of a server that may be ejected for it.
    fn count_failure(&mut self, shard: usize, begun: Nanos) {
        if let Some(ejector) = &self.snapshot.pool_of(shard).ejector
            && ejector.failed(shard, begun, self.now.nanos)
        {
            let face = &self.snapshot.routes[shard].face;
            face.ejected_at
                .store(super::wall_micros(), Ordering::Relaxed);
            let pool = &self.snapshot.pools[face.pool];
            pool.face.ejections.fetch_add(1, Ordering::Relaxed);
            self.follow_ejections();
        }
    }

    /// Answers everything that waits for a connection that could not be made.
    pub(super) fn answer_waiting(&mut self, shard: usize, key: LaneKey, reason: String) {
        let (mine, others) = std::mem::take(&mut self.shards[shard].held)
            .into_iter()
            .partition(|held| held.lane == key);
        self.shards[shard].held = others;
        let pool = self.shards[shard].pool;
        for held in mine {
            let held: super::shard::Held = held;
            self.no_longer_held(pool, &held);
            let line = format!("-ERR {reason}");
            self.settle(shard, held.owner, held.access, Outcome::NotSent(line));
        }
        let parked = std::mem::take(&mut self.shards[shard].parked);
        let failing = Failing {
            shard,
            lane: key,
            reason,
        };
        let outer = self.failing.replace(failing);
        for handle in parked {
            if self.client(handle).is_some_and(|client| client.lane != key) {
                self.shards[shard].parked.push_back(handle);
            } else if self.unpark(handle, shard) {
                self.take_from_input(handle);
            }
        }
        self.failing = outer;
    }

    /// Why this lane cannot be connected, while what waited for it is being answered.
    pub(super) fn failing_reason(&self, shard: usize, lane: LaneKey) -> Option<String> {
        let failing = self.failing.as_ref()?;
        (failing.shard == shard && failing.lane == lane).then(|| failing.reason.clone())
    }

    /// Gives up connections that take too long to open or to end, and requests that take too long to be
    /// answered.
    pub(super) fn expire_backends(&mut self) {
        let millis = self.now.millis;
        let slow: Vec<(Handle, u32)> = self
            .backends
            .iter()
            .filter(|(_, backend)| !matches!(backend.phase, Phase::Ready | Phase::Leaving))
            .map(|(_, backend)| (backend, self.phase_limit(backend.shard, backend.phase)))
            .filter(|(backend, limit)| millis.wrapping_sub(backend.since_ms) >= *limit)
            .map(|(backend, limit)| (backend.handle, limit))
            .collect();
        for (backend, limit) in slow {
            let text = format!("no answer for {:.1} s", f64::from(limit) / 1e3);
            self.lose_backend(backend, &Loss::Silent(text));
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
            // A reply that is half passed on can no longer be replaced by an error; and who blocks or subscribes
            // waits for nothing in particular. Replicas are given up by `replicas`.
            let waits = matches!(
                backend.pin,
                Pin::Subscriber(_) | Pin::Witness | Pin::Blocked | Pin::Replica(_)
            );
            if timeout == 0 || backend.stream.is_some() || waits {
                continue;
            }
            let (handle, pinned) = (backend.handle, backend.pin != Pin::Shared);
            let late = match self.backends.get_mut(index) {
                Some(backend) => backend.expire(millis, timeout),
                None => continue,
            };
            // A WATCH that has expired may never have been sent: nothing may be built on it.
            let watch_lost = pinned && !late.is_empty();
            for late in late {
                self.shards[shard].counters.timeouts.add(1);
                self.note_silence(shard, late.pending.at_ms);
                self.settle_late(shard, &late, timeout);
            }
            if watch_lost {
                let text = format!("no answer for {:.1} s", f64::from(timeout) / 1e3);
                self.lose_backend(handle, &Loss::Silent(text));
                continue;
            }
            let silence = (timeout.saturating_mul(DEAD_TIMEOUTS)).max(DEAD_MS);
            if self.shards[shard].fixed
                && self
                    .backend(handle)
                    .is_some_and(|it| it.is_dead(millis, silence))
            {
                let text = format!("no answer for {:.1} s", f64::from(silence) / 1e3);
                self.lose_backend(handle, &Loss::Silent(text));
            }
        }
    }

    fn phase_limit(&self, shard: usize, phase: Phase) -> u32 {
        match phase {
            Phase::Ending => ENDING_MS,
            Phase::Connecting | Phase::Greeting if self.shards[shard].fixed => {
                (self.hold_nanos(self.shards[shard].pool) / NANOS_A_MILLI) as u32
            }
            _ => OPEN_TIMEOUT_MS,
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

    /// A request that was sent at this time was not answered in time. All that were under way together
    /// are one failure of the server, as they are where such a failure ends the connection.
    fn note_silence(&mut self, shard: usize, sent_ms: u32) {
        let since = self.shards[shard].silent_ms;
        if since.is_some_and(|since| sent_ms.wrapping_sub(since).cast_signed() < 0) {
            return;
        }
        self.shards[shard].silent_ms = Some(self.now.millis);
        self.shards[shard].counters.timed_out.add(1);
        // The clock of requests counts milliseconds: who asks again at once has asked within the same one.
        let waited = u64::from(self.now.millis.wrapping_sub(sent_ms).saturating_sub(1));
        let begun = self.now.nanos.saturating_sub(waited * NANOS_A_MILLI);
        self.count_failure(shard, begun);
    }

    fn settle_late(&mut self, shard: usize, late: &Late, timeout: u32) {
        let Pending { owner, access, .. } = late.pending;
        let fixed = self.shards[shard].fixed;
        let name = self.snapshot.shard_name(shard);
        let line = match (fixed, late.sent) {
            (true, _) => format!("-ERR {}", strerror(Errno::TIMEDOUT)),
            (_, true) => format!("-ERR shard \"{name}\" did not answer within {timeout} ms"),
            (_, false) => {
                format!("-ERR shard \"{name}\" did not take the request within {timeout} ms")
            }
        };
        let outcome = match (late.sent, access) {
            (false, _) => Outcome::NotSent(line),
            (_, Access::Write) if !fixed => Outcome::Unknown,
            _ => Outcome::Unanswered(line),
        };
        self.settle(shard, owner, access, outcome);
    }
}
