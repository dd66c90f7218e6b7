//! CLIENT TRACKING and CACHING: who is told of changes, and what was read.
//!
//! ```text
//!  client ── GET k ──► noted: k is the client's ──► shared connection ──► server ◄── SET k, of anybody
//!    ▲ reply ◄──────────────────────────────────── shared connection ◄──┘   │
//!    ▲ invalidate k ◄── at once, and again behind what is unanswered ◄── witness: every key that changes
//! ```
//! A server tells a worker's witness of every key that changes (`witnesses`); who has read it is noted here, before it
//! is read, and `changes` tells them. What is read while a witness is away is told to have changed right behind its
//! reply. Called by `requests`, `client_command`, `muster` and `witnesses`.

use super::Worker;
use super::dispatch::{Request, Step};
use super::local::{OK, SYNTAX};
use super::muster::{Act, Filter};
use crate::client::Gate;
use crate::command::{Access, Command, Keys, LocalCommand, RouteKind};
use crate::inflight::Slot;
use crate::pool::PoolConfig;
use crate::reactor::Handle;
use crate::tracking::{Asking, Change, Key, Mode, Target, Tracker, Wish};

/// Keys of the process that are remembered; Redis's own limit. Beyond that, one is said to have changed for each that
/// is new.
const MOST_KEYS: usize = 1_000_000;

const NOT_TRACKING: &[u8] =
    b"-ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
or OPTOUT mode enabled\r\n";
const NOT_OPT_IN: &[u8] =
    b"-ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.\r\n";
const NOT_OPT_OUT: &[u8] =
    b"-ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.\r\n";
const NO_TARGET: &str = "The client ID you want redirect to does not exist";

impl Worker {
    /// Begins to track, once everything before is answered, or ends it.
    pub(super) fn tracking(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        if !client.slots.is_empty() {
            client.gate = Gate::Full { resume_at: 0 };
            return Step::Kept;
        }
        let options = (3..request.args.len()).map(|at| request.arg(at));
        let wish = match Wish::parse(options) {
            Ok(wish) => wish,
            Err(error) => return self.answer(handle, format!("-ERR {error}\r\n").as_bytes()),
        };
        match request.arg(2).to_ascii_uppercase().as_slice() {
            b"OFF" => {
                self.stop_tracking(handle);
                return self.answer(handle, OK);
            }
            b"ON" => {}
            _ => return self.answer(handle, SYNTAX),
        }
        if let Some(number) = wish.redirect {
            let number = u64::try_from(number).unwrap_or(0);
            return self.muster(handle, Filter::from_number(number), Act::Aim(wish));
        }
        client_waits(self, handle, |worker, sequence| {
            worker.ask_to_track(handle, sequence, wish, None);
        })
    }

    /// The client whose messages another one is to be given was looked for.
    pub(super) fn aimed(
        &mut self,
        handle: Handle,
        sequence: u32,
        wish: &Wish,
        target: Option<Target>,
    ) {
        if target.is_some() {
            return self.ask_to_track(handle, sequence, wish.clone(), target);
        }
        self.answer_asking(handle, sequence, format!("-ERR {NO_TARGET}\r\n").as_bytes());
    }

    fn ask_to_track(&mut self, handle: Handle, sequence: u32, wish: Wish, target: Option<Target>) {
        let since = self.now.nanos;
        let Some(client) = self.client(handle) else {
            return;
        };
        let pool = usize::from(client.pool);
        let now = client.tracking.get_or_insert_default();
        if let Some(objection) = wish.objection(now) {
            let line = format!("-ERR {objection}\r\n");
            return self.answer_asking(handle, sequence, line.as_bytes());
        }
        let most = (MOST_KEYS / self.workers).max(1);
        let state = &mut self.pools[pool];
        let new = || Box::new(Tracker::new(state.router.clone(), most));
        state.tracker.get_or_insert_with(new).asking.push(Asking {
            client: handle,
            sequence,
            since,
            wish,
            target,
        });
        self.tend_tracker(pool);
        self.conclude_tracking(pool);
    }

    /// Answers those that asked for tracking once every shard that has a server tells of changes.
    pub(super) fn conclude_tracking(&mut self, pool: usize) {
        let Some(tracker) = &mut self.pools[pool].tracker else {
            return;
        };
        let shards = &self.shards;
        let nowhere = |shard: usize| shards[shard].endpoint.is_none() && !shards[shard].fixed;
        let mut witnesses = tracker.witnesses.iter();
        if !witnesses.all(|witness| witness.armed || nowhere(witness.shard)) {
            return;
        }
        for asking in std::mem::take(&mut tracker.asking) {
            self.begin_tracking(pool, asking);
        }
    }

    fn begin_tracking(&mut self, pool: usize, asking: Asking) {
        let handle = asking.client;
        let Some(client) = self.client(handle) else {
            return;
        };
        let tracking = client.tracking.get_or_insert_default();
        let begins = tracking.mode.is_none();
        tracking.begin(asking.wish, asking.target);
        if let Some(tracker) = &mut self.pools[pool].tracker
            && begins
        {
            tracker.clients.push(handle);
        }
        self.answer_asking(handle, asking.sequence, OK);
    }

    fn answer_asking(&mut self, handle: Handle, sequence: u32, reply: &[u8]) {
        if let Some(client) = self.client(handle) {
            client.deliver(sequence, reply);
            self.delivered(handle);
        }
    }

    /// Refuses what was asked of a pool's witnesses.
    pub(super) fn refuse_tracking(&mut self, pool: usize, line: &str) {
        let Some(tracker) = &mut self.pools[pool].tracker else {
            return;
        };
        for asking in std::mem::take(&mut tracker.asking) {
            self.pools[pool].counters.errors.add(1);
            self.answer_asking(asking.client, asking.sequence, line.as_bytes());
        }
        self.close_idle_tracker(pool);
    }

    /// The client tracks no more.
    pub(super) fn stop_tracking(&mut self, handle: Handle) {
        let Some(client) = self.client(handle) else {
            return;
        };
        let pool = usize::from(client.pool);
        if let Some(tracking) = &mut client.tracking {
            tracking.end();
        }
        self.forget_tracker(pool, handle);
    }

    /// What a pool keeps of a client that tracks is not needed any more.
    pub(super) fn forget_tracker(&mut self, pool: usize, handle: Handle) {
        if let Some(tracker) = &mut self.pools[pool].tracker {
            tracker.forget(handle);
        }
        self.close_idle_tracker(pool);
    }

    /// CLIENT CACHING: whether the next request is one that is remembered.
    pub(super) fn caching(&mut self, handle: Handle, word: &[u8]) -> &'static [u8] {
        let tracking = self.client(handle).and_then(|it| it.tracking.as_mut());
        let Some(tracking) = tracking.filter(|it| it.mode.is_some()) else {
            return NOT_TRACKING;
        };
        let (right, refusal) = match word.to_ascii_uppercase().as_slice() {
            b"YES" => (Mode::OptIn, NOT_OPT_IN),
            b"NO" => (Mode::OptOut, NOT_OPT_OUT),
            _ => return SYNTAX,
        };
        if tracking.mode != Some(right) {
            return refusal;
        }
        tracking.caching = true;
        OK
    }

    /// A request of a client that tracks: what it reads is noted before it is sent.
    pub(super) fn dispatch_tracked(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let unwatched = self.note_reads(handle, request);
        let step = self.dispatch(handle, request);
        if step == Step::Kept {
            return step; // it is looked at again
        }
        let Some(client) = self.client(handle) else {
            return step;
        };
        let in_transaction = client.transaction.is_some();
        let (waits, last) = (!client.slots.is_empty(), client.slots.last());
        let Some(tracking) = &mut client.tracking else {
            return step;
        };
        if !in_transaction && !request.arg(0).eq_ignore_ascii_case(b"client") {
            tracking.caching = false;
        }
        if waits && !unwatched.is_empty() {
            let change = Change::of(unwatched.iter().map(AsRef::as_ref));
            tracking.tell_after(last, change);
        }
        step
    }

    /// Remembers what a request is about to read; gives back the keys of which no change would be told now.
    fn note_reads(&mut self, handle: Handle, request: Request<'_>) -> Vec<Key> {
        let Some(client) = self.clients.get(handle.index as usize) else {
            return Vec::new();
        };
        let pool = usize::from(client.pool);
        let (Some(tracking), Some(tracker)) = (&client.tracking, &mut self.pools[pool].tracker)
        else {
            return Vec::new();
        };
        let broadcast = tracking.is_broadcast();
        if !tracking.remembers() && !broadcast || broadcast && tracker.is_armed() {
            return Vec::new();
        }
        let config = &self.snapshot.pools[pool].config;
        let mut keys = Vec::new();
        match &client.transaction {
            None => keys_read(config, request, &mut keys),
            Some(transaction) if is_exec(config, request) => {
                transaction.for_each(|frame, args| {
                    keys_read(config, Request { frame, args }, &mut keys);
                });
            }
            Some(_) => {}
        }
        let mut evicted = Vec::new();
        keys.retain(|key| {
            if broadcast {
                return tracking.wishes(key) && !tracker.watches(key);
            }
            let clients = &self.clients;
            let is_there = |reader: Handle| {
                let client = clients.get(reader.index as usize);
                client.is_some_and(|client| client.handle == reader)
            };
            evicted.extend(tracker.table.note(key, handle, is_there));
            !tracker.watches(key)
        });
        for (key, readers) in evicted {
            if readers.contains(&handle) {
                keys.push(key.clone()); // this very request may read it
            }
            for reader in readers {
                self.invalidate(reader, &Change::of([&key[..]]));
            }
        }
        keys
    }

    /// From now on the client may be told what another one tracks.
    pub(super) fn will_be_told(&mut self, handle: Handle) {
        if let Some(client) = self.client(handle) {
            client.tracking.get_or_insert_default();
        }
    }
}

/// Nothing of the client is taken until what it asks is answered.
fn client_waits(worker: &mut Worker, handle: Handle, ask: impl FnOnce(&mut Worker, u32)) -> Step {
    if let Some(client) = worker.client(handle) {
        client.gate = Gate::Full { resume_at: 0 };
        let sequence = client.slots.push(Slot::Waiting);
        ask(worker, sequence);
    }
    Step::Taken
}

fn is_exec(config: &PoolConfig, request: Request<'_>) -> bool {
    let command = config.command(request.arg(0));
    command.is_some_and(|it| it.route == RouteKind::Local(LocalCommand::Exec))
}

/// The keys that a request reads for its client. What a script reads it reads for its caller.
fn keys_read(config: &PoolConfig, request: Request<'_>, out: &mut Vec<Key>) {
    let Some(command) = config.command(request.arg(0)) else {
        return;
    };
    let row = match command.route {
        RouteKind::Family(_) if request.args.len() > 1 => command.subcommand(request.arg(1)),
        _ => Some(command),
    };
    let reads = |row: &&Command| {
        let script = matches!(row.route, RouteKind::Script(_));
        (row.access == Access::Read || script) && row.keys != Keys::Channel
    };
    let mut places = Vec::new();
    if let Some(row) = row.filter(reads)
        && row.arity_ok(request.args.len())
        && let Request { frame, args } = request
        && row.key_positions(frame, args, &mut places).is_ok()
    {
        let keys = places.iter().map(|&at| request.arg(at as usize).into());
        out.extend(keys);
    }
}
