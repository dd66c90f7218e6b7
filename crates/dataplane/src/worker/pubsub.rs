//! SUBSCRIBE and UNSUBSCRIBE of all kinds, and the messages that come of them.
//!
//! ```text
//!  SUBSCRIBE a b ──► names taken ──► each ear opened, told ──► all confirmed ──► the client is answered
//!                                        ▲                           │
//!                     lost, or the ring has changed ◄────────────────┘ messages are passed on
//! ```
//! A client that subscribes has a connection of its own, an ear, to each shard that it needs: so counts are one
//! Redis's, and one that does not read hurts nobody else. While its SUBSCRIBE is unanswered nothing more of it is
//! taken; what it is told then is that every shard concerned has confirmed. An ear that is lost is opened again at
//! the shard's master of that time and told everything anew, and the client sees nothing of it, but what was
//! published meanwhile: messages are delivered at most once, as by any Redis.
//!
//! Each name is a request of its own there, with one confirmation: so an ear with nothing unanswered has
//! confirmed everything. `subscriptions` says what is to be said to whom. Called by `local`, `replies`, `lanes` and
//! `pinned`, and each millisecond by the worker for what is to be opened.

use std::sync::Arc;

use rustix::io::Errno;

use super::Worker;
use super::dispatch::{Request, Step, refusal_code};
use super::hold::Over;
use super::losses::{Loss, strerror};
use super::pinned::Own;
use crate::backend::{Backend, Phase, Pin};
use crate::client::Gate;
use crate::command::{self, Access, LocalCommand, RouteKind, Topic};
use crate::inflight::{Owner, Slot, WHOLE};
use crate::lane::{LaneKey, Protocol};
use crate::reactor::Handle;
use crate::route::write_argument;
use crate::subscriptions::{Ear, Heard, Move, Subscriptions, Wanted, hear, push_mark};

/// Bytes of unsent messages above which a subscriber is closed: it does not read. Redis's own limit.
const MOST_UNSENT: usize = 32 << 20;

impl Worker {
    /// Subscribes to channels or patterns; answered once their shards have confirmed.
    pub(super) fn subscribe(&mut self, handle: Handle, topic: Topic, request: Request<'_>) -> Step {
        let now = self.now.nanos;
        let Some(client) = self.clients.get_mut(handle.index as usize) else {
            return Step::Taken;
        };
        if !client.slots.is_empty() {
            client.gate = Gate::Full { resume_at: 0 };
            return Step::Kept;
        }
        let router = &self.pools[usize::from(client.pool)].router;
        if router.shards().is_empty() {
            return self.cannot_forward(handle, &strerror(Errno::CONNREFUSED));
        }
        let new = || Box::new(Subscriptions::new(router.clone()));
        let subscriptions = client.subscriptions.get_or_insert_with(new);
        let names = (1..request.args.len()).map(|at| request.arg(at));
        let moves = match subscriptions.ask(topic, names, client.lane.protocol) {
            Ok(moves) => moves,
            Err(line) => {
                self.forget_if_empty(handle);
                return self.answer(handle, line.as_bytes());
            }
        };
        client.gate = Gate::Full { resume_at: 0 };
        let sequence = client.slots.push(Slot::Waiting);
        if let Some(asking) = &mut subscriptions.asking {
            (asking.sequence, asking.since) = (sequence, now);
        }
        self.tell(&moves, asked_by(handle, sequence));
        self.tend_subscriber(handle);
        self.conclude(handle);
        Step::Taken
    }

    /// Ends subscriptions, all of this kind if none are named; answered at once.
    pub(super) fn unsubscribe(
        &mut self,
        handle: Handle,
        topic: Topic,
        request: Request<'_>,
    ) -> Step {
        let Some(client) = self.clients.get_mut(handle.index as usize) else {
            return Step::Taken;
        };
        let protocol = client.lane.protocol;
        let nothing = || {
            Box::new(Subscriptions::new(
                self.pools[usize::from(client.pool)].router.clone(),
            ))
        };
        let subscriptions = client.subscriptions.get_or_insert_with(nothing);
        let names: Vec<Box<[u8]>> = match request.args.len() {
            1 => subscriptions.all(topic),
            count => (1..count).map(|at| request.arg(at).into()).collect(),
        };
        let mut reply = Vec::new();
        if names.is_empty() {
            subscriptions.confirm_end(&mut reply, protocol, topic, None);
        }
        let mut moves = Vec::new();
        for name in names {
            moves.extend(subscriptions.remove(topic, &name));
            subscriptions.confirm_end(&mut reply, protocol, topic, Some(&name));
        }
        self.tell(&moves, Owner::Nobody);
        self.close_idle_ears(handle);
        self.forget_if_empty(handle);
        self.answer(handle, &reply)
    }

    /// Ends everything that the client is subscribed to, without a word.
    pub(super) fn unsubscribe_all(&mut self, handle: Handle) {
        if let Some(client) = self.client(handle)
            && let Some(subscriptions) = client.subscriptions.take()
        {
            self.close_ears(&subscriptions);
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

    fn close_idle_ears(&mut self, handle: Handle) {
        let subscriptions = self.client(handle).and_then(|it| it.subscriptions.as_mut());
        for ear in subscriptions.map_or(Vec::new(), |it| it.idle_ears()) {
            self.close_ear(ear);
        }
    }

    /// A client without subscriptions is like any other.
    fn forget_if_empty(&mut self, handle: Handle) {
        if let Some(client) = self.client(handle) {
            client.subscriptions.take_if(|it| it.is_empty());
        }
    }

    /// Why a request is refused to a client that is subscribed; in RESP3, where messages cannot be taken for
    /// replies, none is. What is no request at all is told so in the usual way.
    pub(super) fn refused_to_subscriber(
        &self,
        pool: usize,
        protocol: Protocol,
        request: Request<'_>,
    ) -> Option<String> {
        if protocol == Protocol::Resp3 {
            return None;
        }
        let command = command::lookup(request.arg(0))?;
        let allowed = matches!(
            command.route,
            RouteKind::Local(
                LocalCommand::Subscribe(_)
                    | LocalCommand::Unsubscribe(_)
                    | LocalCommand::Ping
                    | LocalCommand::Quit
                    | LocalCommand::Reset
            )
        );
        if allowed || !command.arity_ok(request.args.len()) {
            return None;
        }
        let row = self.resolve(pool, command, request).ok()?;
        let code = refusal_code(row);
        Some(format!(
            "{code}Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
             this context\r\n",
            row.name
        ))
    }

    /// What PING is answered where a reply must look like a message.
    pub(super) fn pong(&mut self, handle: Handle, words: &[u8]) -> Step {
        let mut reply = b"*2\r\n$4\r\npong\r\n".to_vec();
        write_argument(&mut reply, words);
        self.answer(handle, &reply)
    }

    /// Says to the ears that are open what is to be subscribed to and what not; one that is not yet will be told
    /// everything.
    fn tell(&mut self, moves: &[Move], owner: Owner) {
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
        let Some(subscriptions) = client.and_then(|client| client.subscriptions.as_ref()) else {
            return;
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

    /// A whole frame has come on an ear.
    pub(super) fn heard(&mut self, ear: Handle, handle: Handle, frame: &[u8]) {
        match hear(frame) {
            Heard::Message(topic, name) => self.pass_message(handle, topic, name, frame),
            Heard::Push => {}
            Heard::Confirmation => {
                let popped = self.backend(ear).and_then(Backend::pop);
                if popped.is_none() {
                    let loss = Loss::Unfit("a confirmation that nobody had asked for".to_owned());
                    return self.lose_backend(ear, &loss);
                }
                self.confirmed(ear, handle);
            }
            Heard::Error => self.heard_error(ear, handle, frame),
            Heard::Stray => {
                let loss = Loss::Unfit("no message, on a connection that subscribes".to_owned());
                self.lose_backend(ear, &loss);
            }
        }
    }

    fn heard_error(&mut self, ear: Handle, handle: Handle, line: &[u8]) {
        let Some(pending) = self.backend(ear).and_then(Backend::pop) else {
            let loss = Loss::Unfit("an error that answers nothing".to_owned());
            return self.lose_backend(ear, &loss);
        };
        let asking = self.subscriptions(handle).and_then(|it| it.asking.as_ref());
        let asked = asking.map(|asking| asking.sequence);
        match pending.owner {
            Owner::Client { sequence, .. } if asked == Some(sequence) => {
                self.refuse_asked(handle, line);
            }
            // Of a SUBSCRIBE that was refused for another of its names.
            Owner::Client { .. } => {}
            // It had this before, and the master of now refuses it: it would wait in vain.
            _ => self.close_client(handle),
        }
    }

    fn confirmed(&mut self, ear: Handle, handle: Handle) {
        let Some(backend) = self.backend(ear) else {
            return;
        };
        let (shard, more) = (backend.shard, backend.has_inflight());
        self.shards[shard].answered();
        if !more {
            self.conclude(handle);
        }
    }

    /// Passes a message on, in the client's protocol.
    fn pass_message(&mut self, handle: Handle, topic: Topic, name: &[u8], frame: &[u8]) {
        let Some(client) = self.client(handle).filter(|client| !client.closing) else {
            return;
        };
        let protocol = client.lane.protocol;
        let Some(subscriptions) = &mut client.subscriptions else {
            return;
        };
        match subscriptions.wants(topic, name) {
            Wanted::No => return,
            Wanted::Later => return subscriptions.keep(protocol, frame),
            Wanted::Now => {}
        }
        let unsent = client.output.len();
        subscriptions.backlog = frame.len()
            + if unsent == 0 {
                0
            } else {
                subscriptions.backlog
            };
        // Its own long replies are not what it does not read.
        if subscriptions.backlog.min(unsent) > MOST_UNSENT {
            let pool = usize::from(client.pool);
            self.pools[pool].counters.overflowed.add(1);
            return self.close_client(handle);
        }
        client.output.push(&[push_mark(protocol)]);
        client.output.push(&frame[1..]);
        self.touch_client(handle);
    }

    /// Answers what was asked once all ears concerned have confirmed everything.
    fn conclude(&mut self, handle: Handle) {
        let Some(subscriptions) = self.subscriptions(handle) else {
            return;
        };
        if subscriptions.asking.is_none()
            || subscriptions.asked_ears().any(|ear| !self.is_quiet(ear))
        {
            return;
        }
        if let Some(client) = self.client(handle)
            && let Some(subscriptions) = &mut client.subscriptions
            && let Some((sequence, reply, early)) = subscriptions.told()
        {
            client.deliver(sequence, &reply);
            client.output.push(&early);
            self.delivered(handle);
        }
    }

    /// Answers what was asked with an error; all of it is taken back.
    fn refuse_asked(&mut self, handle: Handle, line: &[u8]) {
        let Some(client) = self.client(handle) else {
            return;
        };
        let subscriptions = client.subscriptions.as_mut();
        let Some((sequence, moves)) = subscriptions.and_then(|it| it.give_up()) else {
            return;
        };
        client.deliver(sequence, line);
        self.tell(&moves, Owner::Nobody);
        self.close_idle_ears(handle);
        self.forget_if_empty(handle);
        self.delivered(handle);
    }

    /// An ear was lost: it is opened again. Where there will be no other server, what is asked there is refused.
    pub(super) fn lose_ear(&mut self, backend: &Backend, handle: Handle, loss: &Loss) {
        let shard = backend.shard;
        self.note_failure(shard, loss, backend.begun);
        let made = !matches!(backend.phase, Phase::Connecting | Phase::Greeting);
        let retry_ms = (!made).then(|| self.shards[shard].next_retry(self.now.millis));
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
        if subscriptions.is_some_and(|it| it.asked_ears().any(|ear| ear.shard == shard)) {
            self.pools[pool].counters.errors.add(1);
            self.refuse_asked(handle, format!("-ERR {reason}\r\n").as_bytes());
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
        self.tell(&moves, Owner::Nobody);
        self.close_idle_ears(handle);
        self.conclude(handle);
    }

    /// Opens the ears that are due, and refuses what has been asked for too long.
    fn tend_subscriber(&mut self, handle: Handle) {
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
        let missing = subscriptions.asked_ears().find(|ear| !self.is_quiet(ear));
        let missing = missing.map(|ear| ear.shard);
        if held >= limit
            && let Some(shard) = missing
        {
            let line = self.masterdown(shard, &Over::Time(held));
            self.refuse_asked(handle, format!("{line}\r\n").as_bytes());
        }
    }

    fn subscriptions(&self, handle: Handle) -> Option<&Subscriptions> {
        let client = self.clients.get(handle.index as usize);
        let client = client.filter(|client| client.handle == handle);
        client.and_then(|client| client.subscriptions.as_deref())
    }

    /// The connection of an ear, if it has one.
    fn ear(&self, ear: &Ear) -> Option<&Backend> {
        let handle = ear.backend?;
        let backend = self.backends.get(handle.index as usize);
        backend.filter(|backend| backend.handle == handle)
    }

    /// The ear has confirmed everything that it was told.
    fn is_quiet(&self, ear: &Ear) -> bool {
        self.ear(ear)
            .is_some_and(|backend| backend.phase == Phase::Ready && !backend.has_inflight())
    }
}

/// Whose an answer is: that of a SUBSCRIBE that has this slot.
fn asked_by(client: Handle, sequence: u32) -> Owner {
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
