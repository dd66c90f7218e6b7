//! The connections of subscribers, their ears: opened when one is needed, told what to subscribe to, opened again when
//! they are lost.
//!
//! Whatever is to be done for a subscriber by the clock is done here, once a millisecond while there is anything: an
//! ear to be opened, a ring that has changed, a SUBSCRIBE that has waited too long. A subscriber with all its ears
//! open costs nothing. Called by `pubsub`, by what opens and loses connections (`lanes`, `pinned`), and by the worker.

use std::sync::Arc;

use super::Worker;
use super::hold::Over;
use super::losses::Loss;
use super::pinned::Own;
use crate::backend::{Backend, Phase, Pin};
use crate::command::Access;
use crate::inflight::{Owner, WHOLE};
use crate::lane::LaneKey;
use crate::reactor::Handle;
use crate::route::write_argument;
use crate::subscriptions::{Ear, Move, Subscriptions};

impl Worker {
    /// Says to the ears that are open what is to be subscribed to and what not; one that is not yet will be told
    /// everything.
    pub(super) fn tell(&mut self, moves: &[Move], owner: Owner) {
        let millis = self.now.millis;
        for Move { ear, word, name } in moves {
            if let Some(ear) = *ear
                && let Some(backend) = self.backend(ear)
                && backend.phase == Phase::Ready
            {
                backend.push(owner, Access::Read, &request_of(word, name), millis);
                self.touch_backend(ear);
            }
        }
    }

    /// An ear can be used: everything that belongs on it is subscribed to.
    pub(super) fn ear_opened(&mut self, ear: Handle, handle: Handle) {
        let millis = self.now.millis;
        let client = self.clients.get(handle.index as usize);
        let client = client.filter(|client| client.handle == handle);
        let subscriptions = client.and_then(|client| client.subscriptions.as_ref());
        let Some(subscriptions) = subscriptions else {
            return self.close_ear(ear);
        };
        let Some(backend) = self.backends.get_mut(ear.index as usize) else {
            return;
        };
        let asked = subscriptions.asking.as_ref();
        let asked = asked.map(|asking| asked_by(handle, asking.sequence));
        for (topic, name, told) in subscriptions.on(backend.shard) {
            let frame = request_of(topic.subscribe(), name);
            let owner = asked.filter(|_| !told).unwrap_or(Owner::Nobody);
            backend.push(owner, Access::Read, &frame, millis);
        }
        self.touch_backend(ear);
    }

    /// An ear was lost: it is opened again. Where there will be no other server, what is asked there is refused.
    pub(super) fn lose_ear(&mut self, backend: &Backend, handle: Handle, loss: &Loss) {
        let shard = backend.shard;
        let (made, retry_ms) = self.note_listener_lost(backend, loss);
        let subscriptions = self.client(handle).and_then(|it| it.subscriptions.as_mut());
        if let Some(ear) = subscriptions.and_then(|it| it.ear_mut(shard))
            && ear.backend == Some(backend.handle)
        {
            ear.backend = None;
            ear.retry_ms = retry_ms;
        }
        if self.shards[shard].fixed && !made {
            self.cannot_ask(handle, shard, &loss.reason());
        }
        self.want_tending(handle);
    }

    /// Refuses what is asked if it needs this shard, where there is no server.
    fn cannot_ask(&mut self, handle: Handle, shard: usize, reason: &str) {
        let Some(client) = self.client(handle) else {
            return;
        };
        let pool = usize::from(client.pool);
        let subscriptions = client.subscriptions.as_ref();
        if subscriptions.is_some_and(|it| it.asks(shard)) {
            self.pools[pool].counters.errors.add(1);
            self.refuse_asked(handle, format!("-ERR {reason}\r\n").as_bytes());
        }
    }

    pub(super) fn close_ears(&mut self, subscriptions: &Subscriptions) {
        for ear in subscriptions.ears.iter().filter_map(|ear| ear.backend) {
            self.close_ear(ear);
        }
    }

    fn close_ear(&mut self, ear: Handle) {
        if self.backend(ear).is_some() {
            self.backends.remove(ear.index as usize);
        }
    }

    pub(super) fn close_idle_ears(&mut self, handle: Handle) {
        let subscriptions = self.client(handle).and_then(|it| it.subscriptions.as_mut());
        for ear in subscriptions.map_or(Vec::new(), |it| it.idle_ears()) {
            self.close_ear(ear);
        }
    }

    /// Something is to be done for this subscriber by the clock.
    pub(super) fn want_tending(&mut self, handle: Handle) {
        if let Some(client) = self.client(handle)
            && let Some(subscriptions) = &mut client.subscriptions
            && !subscriptions.tended
        {
            subscriptions.tended = true;
            self.tending.push(handle);
        }
    }

    /// The shard has another server: what was tried in vain at the one before is tried at once.
    pub(super) fn retry_ears(&mut self, shard: usize) {
        for (_, client) in &mut self.clients {
            let subscriptions = client.subscriptions.as_mut();
            if let Some(ear) = subscriptions.and_then(|it| it.ear_mut(shard)) {
                ear.retry_ms = None;
            }
        }
    }

    /// A ring has changed.
    pub(super) fn tend_all_subscribers(&mut self) {
        let all = self.clients.iter().map(|(_, client)| client);
        let subscribers = all.filter(|client| client.subscriptions.is_some());
        let subscribers: Vec<Handle> = subscribers.map(|client| client.handle).collect();
        for handle in subscribers {
            self.want_tending(handle);
        }
    }

    /// What is due for subscribers: another ring to be followed, ears to be opened, what was asked too long ago.
    pub(super) fn tend_subscribers(&mut self) {
        for handle in std::mem::take(&mut self.tending) {
            if let Some(client) = self.client(handle)
                && let Some(subscriptions) = &mut client.subscriptions
            {
                subscriptions.tended = false;
                self.follow_ring_of(handle);
                self.tend_subscriber(handle);
            }
        }
    }

    /// Moves a client's subscriptions to where its pool's ring has them now.
    fn follow_ring_of(&mut self, handle: Handle) {
        let Some(client) = self.clients.get_mut(handle.index as usize) else {
            return;
        };
        let router = &self.pools[usize::from(client.pool)].router;
        let Some(subscriptions) = &mut client.subscriptions else {
            return;
        };
        if Arc::ptr_eq(router, &subscriptions.router) {
            return;
        }
        let moves = subscriptions.follow(router);
        self.close_idle_ears(handle);
        self.tell(&moves, Owner::Nobody);
        self.conclude(handle);
    }

    /// Opens the ears that are due, and refuses what has been asked for too long.
    pub(super) fn tend_subscriber(&mut self, handle: Handle) {
        let shut: Vec<usize> = self.subscriptions(handle).map_or(Vec::new(), |it| {
            let ears = it.ears.iter().filter(|ear| self.ear(ear).is_none());
            let due = ears.filter(|ear| ear.retry_ms.is_none_or(|at| self.due(at)));
            due.map(|ear| ear.shard).collect()
        });
        for shard in shut {
            if !self.snapshot.routes[shard].leaving {
                self.open_ear(handle, shard);
            }
        }
        self.expire_asked(handle);
        let unsettled = self.subscriptions(handle).is_some_and(|it| {
            it.asking.is_some() || it.ears.iter().any(|ear| self.ear(ear).is_none())
        });
        if unsettled {
            self.want_tending(handle);
        }
    }

    fn open_ear(&mut self, handle: Handle, shard: usize) {
        let Some(client) = self.client(handle) else {
            return;
        };
        // Opening another one may have been the end of what was asked.
        let subscriptions = client.subscriptions.as_mut();
        if subscriptions.and_then(|it| it.ear_mut(shard)).is_none() {
            return;
        }
        let lane = LaneKey {
            protocol: client.lane.protocol,
            ..LaneKey::default()
        };
        let own = self.pin(None, shard, lane, Pin::Subscriber(handle));
        let (opened, failed) = match own {
            Own::Ready(ear) | Own::Opening(ear) => (Some(ear), None),
            Own::Later => return,
            Own::Never(ref reason) => (None, Some(reason)),
        };
        let retry_ms = failed.map(|_| self.shards[shard].next_retry(self.now.millis));
        let subscriptions = self.client(handle).and_then(|it| it.subscriptions.as_mut());
        if let Some(ear) = subscriptions.and_then(|it| it.ear_mut(shard)) {
            ear.backend = opened;
            ear.retry_ms = retry_ms;
        }
        match own {
            Own::Ready(ear) => self.ear_opened(ear, handle),
            Own::Never(reason) => self.cannot_ask(handle, shard, &reason),
            _ => {}
        }
    }

    fn expire_asked(&mut self, handle: Handle) {
        let now = self.now.nanos;
        let Some(client) = self.clients.get(handle.index as usize) else {
            return;
        };
        let limit = self.hold_nanos(usize::from(client.pool));
        let Some(subscriptions) = &client.subscriptions else {
            return;
        };
        let Some(asking) = &subscriptions.asking else {
            return;
        };
        let held = now.saturating_sub(asking.since);
        if held >= limit
            && let Some(shard) = self.awaited(subscriptions)
        {
            let line = self.masterdown(shard, &Over::Time(held));
            self.refuse_asked(handle, format!("{line}\r\n").as_bytes());
        }
    }

    /// The connection of an ear, if it has one.
    fn ear(&self, ear: &Ear) -> Option<&Backend> {
        let handle = ear.backend?;
        let backend = self.backends.get(handle.index as usize);
        backend.filter(|backend| backend.handle == handle)
    }

    /// A shard that what is asked still waits for: its ear is not open, or has not confirmed everything.
    pub(super) fn awaited(&self, subscriptions: &Subscriptions) -> Option<usize> {
        let is_quiet = |ear: &Ear| {
            self.ear(ear)
                .is_some_and(|backend| backend.phase == Phase::Ready && !backend.has_inflight())
        };
        let mut ears = subscriptions.ears.iter();
        let ear = ears.find(|ear| !is_quiet(ear) && subscriptions.asks(ear.shard))?;
        Some(ear.shard)
    }
}

/// Whose an answer is: that of a SUBSCRIBE that has this slot.
pub(super) fn asked_by(client: Handle, sequence: u32) -> Owner {
    Owner::Client {
        client,
        sequence,
        part: WHOLE,
    }
}

/// A request for one name.
fn request_of(word: &str, name: &[u8]) -> Vec<u8> {
    let mut frame = b"*2\r\n".to_vec();
    write_argument(&mut frame, word.as_bytes());
    write_argument(&mut frame, name);
    frame
}
