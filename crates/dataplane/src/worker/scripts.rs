//! EVALSHA for servers that do not have the script: after a failover, on another shard, after a flush.
//!
//! The first EVALSHA of a script on a connection is sent as EVAL with the text, if that has passed through the
//! proxy: so nobody sees NOSCRIPT, and nothing overtakes, however much is pipelined behind. Later ones go as they
//! are. A server that dropped the script since then answers NOSCRIPT; EVAL is sent in its place if nothing of the
//! client is behind it on that connection. Otherwise, and for a text that the proxy never saw, the client gets
//! NOSCRIPT and sends the script itself, as clients do.
//!
//! A request that was held is spelled out anew for the connection on which it goes on; so is a transaction.

use std::borrow::Cow;
use std::collections::HashSet;

use super::Worker;
use super::dispatch::{Request, Step};
use crate::backend::{Phase, Pin};
use crate::command::{self, Access, Command, RouteKind, ScriptGiven};
use crate::inflight::{Owner, Pending, WHOLE};
use crate::reactor::Handle;
use crate::resp::{self, Limits, RequestScan, RequestStatus};
use crate::route::{argument, write_argument};
use crate::scripts::{Digest, digest_of, parse_digest};
use crate::transaction::{self, Transaction};

/// The servers' words; a script that makes up its own has been executed.
const NOSCRIPT: [&[u8]; 2] = [
    b"-NOSCRIPT No matching script. Please use EVAL.\r\n",
    b"-NOSCRIPT No matching script.\r\n",
];
/// How often the use of a script that a connection has is noted in the pool's memory.
const NOTE_MS: u32 = 1000;

impl Worker {
    /// Sends a script, or what names one, to its shard.
    pub(super) fn forward_script(
        &mut self,
        handle: Handle,
        shard: usize,
        command: &Command,
        given: ScriptGiven,
        request: Request<'_>,
    ) -> Step {
        let pool = self.shards[shard].pool;
        let replica = self.replica_for(handle, shard, command);
        let way = replica.or_else(|| self.open_way(handle, shard, command.access));
        let frame = match (way, given) {
            (None, _) | (_, ScriptGiven::Name) => None,
            (Some(on), ScriptGiven::Whole) => {
                self.note_whole(on, pool, request.arg(1));
                None
            }
            (Some(on), ScriptGiven::Digest) => self.spelled_out(on, pool, request),
        };
        let frame = frame.as_deref().unwrap_or(request.frame);
        self.forward(handle, shard, command, frame)
    }

    /// The connection on which a request of this client will leave if it is sent now.
    fn open_way(&mut self, handle: Handle, shard: usize, access: Access) -> Option<Handle> {
        let client = self.client(handle)?;
        if access == Access::Write && client.reads_elsewhere() {
            return None;
        }
        let lane = client.lane;
        let open = access == Access::Read || self.lease_holds(shard);
        let ready = self.shards[shard].ready(lane).filter(|_| open)?;
        (!self.is_behind(handle, shard)).then_some(ready)
    }

    /// A script is sent whole on this connection.
    fn note_whole(&mut self, on: Handle, pool: usize, text: &[u8]) {
        let millis = self.now.millis;
        let scripts = &self.snapshot.pools[pool].face.scripts;
        let Some(backend) = self.backends.get_mut(on.index as usize) else {
            return;
        };
        let digest = digest_of(text);
        let sent = backend.scripts.since(scripts.flushes());
        let noted = sent.get(&digest);
        if noted.is_none_or(|&noted| millis.wrapping_sub(noted) >= NOTE_MS) {
            scripts.remember(digest, text, false);
            sent.insert(digest, millis);
        }
    }

    /// An EVALSHA with the text of its script, if that is known and this connection has not been sent it.
    fn spelled_out(&mut self, on: Handle, pool: usize, request: Request<'_>) -> Option<Vec<u8>> {
        let millis = self.now.millis;
        let digest = parse_digest(request.arg(1))?;
        let scripts = &self.snapshot.pools[pool].face.scripts;
        let backend = self.backends.get_mut(on.index as usize)?;
        let sent = backend.scripts.since(scripts.flushes());
        if let Some(noted) = sent.get_mut(&digest) {
            if millis.wrapping_sub(*noted) >= NOTE_MS {
                *noted = millis;
                scripts.find(&digest);
            }
            return None;
        }
        let text = scripts.find(&digest)?;
        sent.insert(digest, millis);
        Some(with_text(request, &text))
    }

    /// What was held, as it goes out on this connection.
    pub(super) fn equipped<'f>(
        &mut self,
        on: Handle,
        pool: usize,
        frame: &'f [u8],
    ) -> Cow<'f, [u8]> {
        if self.snapshot.pools[pool].face.scripts.is_empty() {
            return Cow::Borrowed(frame);
        }
        let spelled = if transaction::is_transaction(frame) {
            transaction::rewritten(frame, |frame, args| {
                self.spelled_out_if_named(on, pool, Request { frame, args })
            })
        } else {
            let mut args = Vec::new();
            let request = whole_request(frame, &mut args);
            request.and_then(|request| self.spelled_out_if_named(on, pool, request))
        };
        spelled.map_or(Cow::Borrowed(frame), Cow::Owned)
    }

    fn spelled_out_if_named(
        &mut self,
        on: Handle,
        pool: usize,
        request: Request<'_>,
    ) -> Option<Vec<u8>> {
        names_script(request)
            .then(|| self.spelled_out(on, pool, request))
            .flatten()
    }

    /// Spells out the scripts of a transaction for the connection that it will go on.
    pub(super) fn equip(&mut self, handle: Handle, pool: usize, transaction: &mut Transaction) {
        let shard = transaction.shard.or_else(|| self.pools[pool].router.any());
        let watches = self.client(handle).is_some_and(|it| it.watch.is_some());
        let frames = if watches {
            // It may be answered null, and then its server has not got the scripts.
            let scripts = &self.snapshot.pools[pool].face.scripts;
            let mut spelled: HashSet<Digest> = HashSet::new();
            transaction::rewritten(transaction.whole(), |frame, args| {
                let request = Request { frame, args };
                let digest = parse_digest(request.arg(1)).filter(|_| names_script(request))?;
                let text = scripts.find(&digest)?;
                spelled.insert(digest).then(|| with_text(request, &text))
            })
        } else {
            let on = shard.and_then(|shard| self.open_way(handle, shard, transaction.access));
            let Some(on) = on else { return };
            transaction::rewritten(transaction.whole(), |frame, args| {
                self.spelled_out_if_named(on, pool, Request { frame, args })
            })
        };
        if let Some(frames) = frames {
            transaction.replace(frames);
        }
    }

    /// A request with a script is queued.
    pub(super) fn note_queued(
        &mut self,
        handle: Handle,
        pool: usize,
        given: ScriptGiven,
        request: Request<'_>,
    ) {
        match given {
            ScriptGiven::Whole => {
                let text = request.arg(1);
                let scripts = &self.snapshot.pools[pool].face.scripts;
                scripts.remember(digest_of(text), text, false);
            }
            ScriptGiven::Digest => {
                if let Some(client) = self.client(handle)
                    && let Some(transaction) = &mut client.transaction
                {
                    transaction.names_scripts = true;
                }
            }
            ScriptGiven::Name => {}
        }
    }

    /// Remembers what SCRIPT LOAD loads; forgets all at SCRIPT FLUSH.
    pub(super) fn note_script_command(&self, pool: usize, command: &Command, request: Request<'_>) {
        let scripts = &self.snapshot.pools[pool].face.scripts;
        match command.name {
            "script|load" => scripts.remember(digest_of(request.arg(2)), request.arg(2), true),
            "script|flush" => scripts.flush(),
            _ => {}
        }
    }

    /// Sends EVAL in place of an EVALSHA that was answered NOSCRIPT; false if that must be passed on.
    pub(super) fn mend_noscript(&mut self, handle: Handle, reply: &[u8]) -> bool {
        if !NOSCRIPT.contains(&reply) {
            return false;
        }
        let Some((pool, frame)) = self.mended(handle) else {
            return false;
        };
        let Some(backend) = self.backend(handle) else {
            return false;
        };
        let (shard, lane) = (backend.shard, backend.lane);
        let of_master = backend.pin == Pin::Shared;
        let Some(pending) = backend.pop() else {
            return false;
        };
        self.answered(shard, of_master);
        let sendable = pending.access == Access::Read || self.lease_holds(shard);
        if !sendable {
            self.hold(shard, lane, pending, frame.into());
            return true;
        }
        self.note_sent(handle, pool, &frame);
        self.send(handle, pending.owner, pending.access, &frame);
        if let Some(backend) = self.backend(handle) {
            backend.note_held(pending.held_ms);
        }
        true
    }

    /// The EVAL for the EVALSHA that is next to be answered here, with its pool; none if it is not known, or if
    /// something of its client was sent behind it and has overtaken it by now.
    fn mended(&mut self, handle: Handle) -> Option<(usize, Vec<u8>)> {
        let backend = self.backends.get_mut(handle.index as usize)?;
        let mut args = Vec::new();
        let request = whole_request(backend.front_bytes(), &mut args)?;
        let digest = parse_digest(request.arg(1)).filter(|_| names_script(request))?;
        let pool = self.shards[backend.shard].pool;
        let text = self.snapshot.pools[pool].face.scripts.find(&digest);
        let frame = text.map(|text| with_text(request, &text));
        backend.scripts.forget(&digest);
        let &Pending { owner, .. } = backend.front()?;
        let Owner::Client {
            client,
            part: WHOLE,
            ..
        } = owner
        else {
            return None;
        };
        let usable = !backend.pin.is_own() && backend.phase == Phase::Ready;
        let alone = usable && !backend.has_more_of(client);
        self.client(client)?;
        frame.filter(|_| alone).map(|frame| (pool, frame))
    }

    /// A mended EVAL goes out on this connection.
    fn note_sent(&mut self, on: Handle, pool: usize, frame: &[u8]) {
        let mut args = Vec::new();
        if let Some(request) = whole_request(frame, &mut args) {
            self.note_whole(on, pool, request.arg(1));
        }
    }

    /// What EXEC answered: unless all of it was executed, scripts that it spelled out may not be there.
    pub(super) fn note_executed(&mut self, handle: Handle, answer: &[u8]) {
        let Some(backend) = self.backend(handle) else {
            return;
        };
        if backend.scripts.is_empty() {
            return;
        }
        let executed = answer.starts_with(b"*") && !answer.starts_with(b"*-");
        if !executed || memchr::memmem::find(answer, b"\n-NOSCRIPT ").is_some() {
            backend.scripts.forget_all();
        }
    }
}

/// The request that a frame is.
fn whole_request<'f>(frame: &'f [u8], args: &'f mut Vec<resp::Span>) -> Option<Request<'f>> {
    let mut scan = RequestScan::default();
    match resp::scan_request(frame, &Limits::default(), &mut scan, args) {
        Ok(RequestStatus::Complete { .. }) => Some(Request { frame, args }),
        _ => None,
    }
}

/// It names a script by its digest.
fn names_script(request: Request<'_>) -> bool {
    let command = command::lookup(argument(request.frame, request.args, 0));
    command.is_some_and(|it| it.route == RouteKind::Script(ScriptGiven::Digest))
}

/// The same request with the script's text in place of its digest.
fn with_text(request: Request<'_>, text: &[u8]) -> Vec<u8> {
    let reads = request.arg(0).len() > "EVALSHA".len();
    let rest = request.args.get(1).map_or(0, |&(_, end)| end as usize + 2);
    let rest = &request.frame[rest..];
    let mut frame = Vec::with_capacity(text.len() + rest.len() + 64);
    frame.extend_from_slice(format!("*{}\r\n", request.args.len()).as_bytes());
    write_argument(&mut frame, if reads { b"EVAL_RO" } else { b"EVAL" });
    write_argument(&mut frame, text);
    frame.extend_from_slice(rest);
    frame
}
