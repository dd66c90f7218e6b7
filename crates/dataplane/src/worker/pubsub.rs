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
//! confirmed everything. `subscriptions` says what is to be said to whom, `ears` has the connections. Called by `local`,
//! `dispatch` and `replies`.

use rustix::io::Errno;

use super::Worker;
use super::dispatch::{Request, Step, refusal_code};
use super::ears::asked_by;
use super::losses::{Loss, strerror};
use crate::backend::Backend;
use crate::client::Gate;
use crate::command::{LocalCommand, RouteKind, Topic};
use crate::inflight::{Owner, Slot};
use crate::lane::Protocol;
use crate::push::{Heard, hear, push_mark};
use crate::reactor::Handle;
use crate::route::write_argument;
use crate::subscriptions::{Subscriptions, Wanted};

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
        self.close_idle_ears(handle);
        self.tell(&moves, Owner::Nobody);
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
        let command = self.snapshot.pools[pool].config.command(request.arg(0))?;
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
        self.answered(shard, true);
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
        client.push_message(push_mark(protocol), &frame[1..]);
        self.touch_client(handle);
    }

    /// Answers what was asked once all ears concerned have confirmed everything.
    pub(super) fn conclude(&mut self, handle: Handle) {
        let Some(subscriptions) = self.subscriptions(handle) else {
            return;
        };
        if subscriptions.asking.is_none() || self.awaited(subscriptions).is_some() {
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
    pub(super) fn refuse_asked(&mut self, handle: Handle, line: &[u8]) {
        let Some(client) = self.client(handle) else {
            return;
        };
        let subscriptions = client.subscriptions.as_mut();
        let Some((sequence, moves)) = subscriptions.and_then(|it| it.give_up()) else {
            return;
        };
        client.deliver(sequence, line);
        self.close_idle_ears(handle);
        self.tell(&moves, Owner::Nobody);
        self.forget_if_empty(handle);
        self.delivered(handle);
    }

    pub(super) fn subscriptions(&self, handle: Handle) -> Option<&Subscriptions> {
        let client = self.clients.get(handle.index as usize);
        let client = client.filter(|client| client.handle == handle);
        client.and_then(|client| client.subscriptions.as_deref())
    }
}
