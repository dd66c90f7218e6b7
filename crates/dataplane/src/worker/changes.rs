//! Tells clients that track what has changed, or those whom they want told in their place.
//!
//! The rule: **an invalidation too many is harmless, one too few is a lie.** Changes and replies come on different
//! connections and race, so a change that is told while something of the client is unanswered is told a second time
//! behind that: a reply that left the server before the change never comes after the last word on its key. Everything
//! has changed when a witness is lost and when it is back, so when a shard has another master, and when the ring is
//! another one. Called by `witnesses`, `tracking`, `flush` and `renew`.

use std::collections::HashMap;

use super::{Note, Worker};
use crate::inflight::Owner;
use crate::lane::Protocol;
use crate::reactor::Handle;
use crate::tracking::{Change, KeyList, Target, keys_of};

/// Bytes of unsent replies above which a client is told nothing more but, once it has read them, that everything has
/// changed.
const MOST_UNSENT: usize = 1 << 20;

impl Worker {
    /// A server has told that something has changed: whoever has it, or wishes to know, is told.
    pub(super) fn changed(&mut self, pool: usize, change: &Change) {
        let Change::Keys(array) = change else {
            return self.invalidate_all(pool);
        };
        let Some(tracker) = &mut self.pools[pool].tracker else {
            return;
        };
        let mut told: HashMap<Handle, KeyList> = HashMap::new();
        for key in keys_of(array) {
            for reader in tracker.table.forget(key) {
                told.entry(reader).or_default().push(key);
            }
        }
        let mut whole = Vec::new();
        for &handle in &tracker.clients {
            let client = self.clients.get(handle.index as usize);
            let tracking = client.and_then(|it| it.tracking.as_ref());
            let Some(tracking) = tracking.filter(|it| it.is_broadcast()) else {
                continue;
            };
            if tracking.wishes(b"") {
                whole.push(handle);
                continue;
            }
            for key in keys_of(array).filter(|key| tracking.wishes(key)) {
                told.entry(handle).or_default().push(key);
            }
        }
        for (reader, keys) in told {
            self.invalidate(reader, &keys.change());
        }
        for reader in whole {
            self.invalidate(reader, change);
        }
    }

    /// Whatever has been read may not be so any more.
    pub(super) fn invalidate_all(&mut self, pool: usize) {
        let Some(tracker) = &mut self.pools[pool].tracker else {
            return;
        };
        tracker.table.clear();
        for reader in tracker.clients.clone() {
            self.invalidate(reader, &Change::Everything);
        }
    }

    /// Tells a client that tracks, or whom it wants told, of a change; and again behind what is unanswered now.
    pub(super) fn invalidate(&mut self, reader: Handle, change: &Change) {
        self.tell_change(reader, change);
        let Some(client) = self.client(reader) else {
            return;
        };
        let (waits, last) = (!client.slots.is_empty(), client.slots.last());
        if waits
            && let Some(tracking) = &mut client.tracking
            && tracking.mode.is_some()
        {
            tracking.tell_after(last, change.clone());
        }
    }

    fn tell_change(&mut self, reader: Handle, change: &Change) {
        let tracking = self.client(reader).and_then(|it| it.tracking.as_ref());
        let Some(tracking) = tracking.filter(|it| it.mode.is_some()) else {
            return;
        };
        let redirect = tracking.redirect;
        match redirect {
            None => {
                self.push_change(reader, change, false);
            }
            Some(target) if target.worker == self.number => {
                self.told_for(target, (self.number, reader), change);
            }
            Some(target) => {
                let (reader, change) = ((self.number, reader), change.clone());
                let note = Note::Changed {
                    target,
                    reader,
                    change,
                };
                self.peers[target.worker].note(note);
            }
        }
    }

    /// Tells a client in the place of another, `reader` of that worker; if it is gone, that one learns of it.
    pub(super) fn told_for(&mut self, target: Target, reader: (usize, Handle), change: &Change) {
        let found = self.client(target.client);
        if found.is_some_and(|client| client.number == target.number) {
            return self.push_change(target.client, change, true);
        }
        if reader.0 == self.number {
            self.redirection_broken(reader.1, target);
        } else {
            let reader_there = reader.1;
            self.peers[reader.0].note(Note::Broken {
                reader: reader_there,
                target,
            });
        }
    }

    /// Who was to be told in the place of this client is gone.
    pub(super) fn redirection_broken(&mut self, reader: Handle, target: Target) {
        let Some(client) = self.client(reader) else {
            return;
        };
        let Some(tracking) = &mut client.tracking else {
            return;
        };
        if tracking.redirect != Some(target) {
            return;
        }
        tracking.broken = true;
        if client.lane.protocol == Protocol::Resp3 {
            let rest = format!(
                "2\r\n$21\r\ntracking-redir-broken\r\n:{}\r\n",
                target.number
            );
            client.push_message(b'>', rest.as_bytes());
            self.touch_client(reader);
        }
    }

    /// Sends a client the message, if it can be sent one: RESP2 has a place for it only where another client wants it
    /// told and it is subscribed.
    fn push_change(&mut self, handle: Handle, change: &Change, redirected: bool) {
        let midway = self.is_midway(handle);
        let Some(client) = self.client(handle).filter(|it| !it.closing) else {
            return;
        };
        let protocol = client.lane.protocol;
        let subscribes = client.subscriptions.is_some();
        if protocol == Protocol::Resp2 && !(redirected && subscribes) {
            return;
        }
        if midway || client.output.len() > MOST_UNSENT {
            client.tracking.get_or_insert_default().owed = true;
            return;
        }
        let message = change.message(protocol);
        match &mut client.subscriptions {
            Some(subscriptions)
                if protocol == Protocol::Resp2 && subscriptions.asking.is_some() =>
            {
                subscriptions.keep(protocol, &message);
            }
            _ => client.push_message(message[0], &message[1..]),
        }
        self.touch_client(handle);
    }

    /// A long reply has been passed on in part: from before anybody wanted it told of changes.
    fn is_midway(&self, handle: Handle) -> bool {
        let is_of =
            |owner: Owner| matches!(owner, Owner::Client { client, .. } if client == handle);
        let mut streams = self.backends.iter().filter(|(_, it)| it.stream.is_some());
        streams.any(|(_, it)| it.front().is_some_and(|front| is_of(front.owner)))
    }

    /// Something of a client that tracks was answered or sent: tells what was to be told behind that.
    pub(super) fn tell_again(&mut self, handle: Handle) {
        while let Some(client) = self.client(handle)
            && let Some(tracking) = &mut client.tracking
            && let Some(change) = tracking.due(|sequence| client.slots.is_past(sequence))
        {
            self.tell_change(handle, &change);
        }
        let owed = self.client(handle).is_some_and(|client| {
            let tracking = client.tracking.as_ref();
            client.output.len() <= MOST_UNSENT && tracking.is_some_and(|it| it.owed)
        });
        if owed
            && !self.is_midway(handle)
            && let Some(tracking) = self.client(handle).and_then(|it| it.tracking.as_mut())
        {
            tracking.owed = false;
            self.push_change(handle, &Change::Everything, true);
        }
    }
}
