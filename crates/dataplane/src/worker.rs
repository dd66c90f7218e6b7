//! One worker: a thread with its own poller, listeners, clients and backends, sharing nothing.
//!
//! A round is: read every backend that is ready and pass its replies on, read every client that is
//! ready and route its requests, then one write for each backend and each client that has something
//! to be sent. The routing state is one snapshot, taken between two rounds.
//!
//! The parts: `accept` takes clients, `requests` reads them, `dispatch` routes, `every` what concerns all
//! shards, `scan` what goes from one to the next, `scripts` EVALSHA, `local` answers what needs no shard
//! and `client_command` CLIENT, for which `muster` asks the other workers, `tracking` what clients keep in
//! caches of theirs, of which `witnesses` hear and `changes` tells, `transaction` queues what stands
//! between MULTI and EXEC, `pinned` has the connections that a client has to itself, to watch keys
//! (`watches`), to block (`blocking`), to ask what is replicated (`waits`) or to subscribe (`pubsub`, on
//! `ears`), `replies` reads backends and `refusals` judges what they refuse, `losses` what is lost, `hold`
//! keeps what has no master, `replicas` is where reads may go instead of it, `lanes` opens and loses backends, `flush` writes, `renew` moves to a new
//! snapshot, `publish` shows how things stand. Called by `plane`.

mod accept;
mod blocking;
mod changes;
mod client_command;
mod dispatch;
mod ears;
mod every;
mod flush;
mod hold;
mod lanes;
mod local;
mod losses;
mod muster;
mod pinned;
mod publish;
mod pubsub;
mod refusals;
mod renew;
mod replicas;
mod replies;
mod requests;
mod scan;
mod scripts;
mod shard;
mod tracking;
mod transaction;
mod waits;
mod watches;
mod witnesses;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use slab::Slab;

use crate::backend::Backend;
use crate::client::Client;
use crate::pool::Router;
use crate::reactor::{Events, Handle, ID_MASK, Reactor, Ready, Token, Waker};
use crate::resp::Span;
use crate::snapshot::{Nanos, Snapshot};
use crate::stats::{PoolCounters, WorkerStats};
use crate::tracking::{Change, Target, Tracker};
use muster::Muster;
use shard::Shard;
#[cfg(any(test, fuzzing))]
pub(crate) use transaction::judge;

/// Bytes read from a socket at once.
const READ_SIZE: usize = 64 * 1024;
/// The longest wait, so that a worker that lives shows it.
const IDLE_WAIT_MS: u64 = 250;
/// The wait while something has a deadline.
const BUSY_WAIT_MS: u64 = 5;

/// What a worker and its plane share.
pub(crate) struct Mailbox {
    pub(crate) waker: Arc<Waker>,
    pub(crate) stats: WorkerStats,
    /// What the worker has not taken over yet.
    next: Mutex<News>,
    has_next: AtomicBool,
    stopping: AtomicBool,
}

/// A newer snapshot than the one in use, the listeners of pools that listen anew, and what workers ask.
#[derive(Default)]
pub(crate) struct News {
    snapshot: Option<Arc<Snapshot>>,
    /// With the pool's id.
    listeners: Vec<(usize, OwnedFd)>,
    musters: Vec<Arc<Muster>>,
    notes: Vec<Note>,
    /// The worker has ended.
    closed: bool,
}

/// What one worker lets another one know of clients that track.
pub(crate) enum Note {
    /// Something has changed for `reader` of that worker; a client of this one is told.
    Changed {
        target: Target,
        reader: (usize, Handle),
        change: Change,
    },
    /// There is no such client any more.
    Broken { reader: Handle, target: Target },
}

impl Mailbox {
    pub(crate) fn new(waker: Arc<Waker>, stats: WorkerStats) -> Self {
        Self {
            waker,
            stats,
            next: Mutex::default(),
            has_next: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// Gives the worker a snapshot for its next round, and new listeners with it.
    pub(crate) fn post(&self, snapshot: Arc<Snapshot>, listeners: Vec<(usize, OwnedFd)>) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.snapshot = Some(snapshot);
        next.listeners.extend(listeners);
        drop(next);
        self.has_next.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Asks the worker something; false if it has ended.
    fn ask(&self, muster: Arc<Muster>) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.closed {
            return false;
        }
        next.musters.push(muster);
        drop(next);
        self.has_next.store(true, Ordering::Release);
        self.waker.wake();
        true
    }

    /// Lets the worker know; nothing comes of it if that has ended.
    fn note(&self, note: Note) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.closed {
            return;
        }
        next.notes.push(note);
        drop(next);
        self.has_next.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Takes no more questions; those that are left are returned.
    fn close(&self) -> Vec<Arc<Muster>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.closed = true;
        std::mem::take(&mut next.musters)
    }

    /// Asks the worker to finish what is unanswered and to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn take(&self) -> Option<News> {
        if !self.has_next.swap(false, Ordering::AcqRel) {
            return None;
        }
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut next))
    }
}

/// What a worker is made of.
pub(crate) struct Setup {
    pub(crate) mailbox: Arc<Mailbox>,
    /// Which of the workers it is.
    pub(crate) number: usize,
    /// All workers' mailboxes, by number.
    pub(crate) peers: Arc<[Arc<Mailbox>]>,
    pub(crate) next_client_id: Arc<AtomicU64>,
}

/// A pool as one worker sees it.
struct PoolState {
    /// From keys to the shards that are not ejected.
    router: Arc<Router>,
    /// Of the ejector that the router is from.
    ejections: u64,
    counters: Arc<PoolCounters>,
    held_bytes: usize,
    listener: Option<OwnedFd>,
    /// While it has clients that track.
    tracker: Option<Box<Tracker>>,
}

/// The worker's clocks, read once a round.
#[derive(Clone, Copy)]
struct Now {
    /// `CLOCK_BOOTTIME`.
    nanos: Nanos,
    /// The same in milliseconds, wrapping.
    millis: u32,
}

impl Now {
    fn read() -> Self {
        let nanos = boot_nanos();
        Self {
            nanos,
            millis: (nanos / 1_000_000) as u32,
        }
    }
}

/// Nanoseconds of `CLOCK_BOOTTIME`.
pub(crate) fn boot_nanos() -> Nanos {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Microseconds of the wall clock, to be shown to people; nothing is judged by it.
fn wall_micros() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec.cast_unsigned() * 1_000_000 + now.tv_nsec.cast_unsigned() / 1_000
}

/// A worker's whole state.
pub(crate) struct Worker {
    mailbox: Arc<Mailbox>,
    snapshot: Arc<Snapshot>,
    reactor: Reactor,
    /// When listeners that ran out of file descriptors are watched again.
    accept_again: Option<u32>,
    next_client_id: Arc<AtomicU64>,
    number: usize,
    workers: usize,
    peers: Arc<[Arc<Mailbox>]>,
    clients: Slab<Client>,
    backends: Slab<Backend>,
    /// By the pools' and the shards' ids.
    pools: Vec<PoolState>,
    shards: Vec<Shard>,
    /// Some pool ejects servers.
    any_ejector: bool,
    /// The connection that could not be made, while what waits for it is answered.
    failing: Option<losses::Failing>,
    next_id: u32,
    now: Now,
    tended_ms: Option<u32>,
    published_ms: Option<u32>,
    /// A round has ended since that was last done.
    unpublished: bool,
    /// Shards of which replicas were lost whose reads are to go to the master.
    repeating: Vec<usize>,
    dirty_backends: Vec<Handle>,
    dirty_clients: Vec<Handle>,
    resuming: Vec<Handle>,
    /// Subscribers of whom a connection is to be opened, or an answer is due.
    tending: Vec<Handle>,

    /// Clients that send no more, and until when they get their last replies, in this order.
    leaving: VecDeque<(u32, Handle)>,
    draining: bool,
    // Space that each request or read uses and leaves.
    read_buffer: Vec<u8>,
    args: Vec<Span>,
    keys: Vec<u32>,
}

impl Worker {
    pub(crate) fn new(setup: Setup) -> std::io::Result<Self> {
        Ok(Self {
            reactor: Reactor::new(setup.mailbox.waker.clone())?,
            mailbox: setup.mailbox,
            snapshot: Arc::new(Snapshot::initial(Vec::new(), setup.peers.len())),
            accept_again: None,
            next_client_id: setup.next_client_id,
            number: setup.number,
            workers: setup.peers.len(),
            peers: setup.peers,
            clients: Slab::new(),
            backends: Slab::new(),
            pools: Vec::new(),
            shards: Vec::new(),
            any_ejector: false,
            failing: None,
            next_id: 0,
            now: Now::read(),
            tended_ms: None,
            published_ms: None,
            unpublished: false,
            repeating: Vec::new(),
            dirty_backends: Vec::new(),
            dirty_clients: Vec::new(),
            resuming: Vec::new(),
            tending: Vec::new(),

            leaving: VecDeque::new(),
            draining: false,
            read_buffer: Vec::with_capacity(READ_SIZE),
            args: Vec::new(),
            keys: Vec::new(),
        })
    }

    /// Works until asked to stop and everything unanswered is answered.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let ended = self.rounds();
        self.leave_muster();
        ended
    }

    fn rounds(&mut self) -> std::io::Result<()> {
        let mut events = Events::new();
        loop {
            self.reactor.wait(self.wait_ms(), &mut events)?;
            self.now = Now::read();
            self.take_news();
            self.follow_ejections();
            self.read_ready(&events);
            self.repeat_reads();
            self.resume_clients();
            self.tend();
            self.flush_backends();
            self.flush_clients();
            self.publish();
            self.mailbox.stats.rounds.add(1);
            self.mailbox.stats.last_round.set(self.now.nanos);
            if self.mailbox.stopping.load(Ordering::Acquire) && self.drained() {
                return Ok(());
            }
        }
    }

    fn read_ready(&mut self, events: &Events) {
        // A reply may release what is held: who has left by now is let go before.
        for event in events.iter().filter(Ready::peer_closed) {
            if let Token::Client(client) = event.token {
                self.client_left(client, event);
            }
        }
        for event in events.iter() {
            if let Token::Backend(backend) = event.token {
                self.backend_ready(backend, event);
            }
        }
        for event in events.iter() {
            match event.token {
                Token::Client(client) => self.client_ready(client, event),
                Token::Listener(listener) => self.accept(listener),
                Token::Backend(_) | Token::Waker => {}
            }
        }
    }

    /// What is due by the clock, once a millisecond: connections, leases that came back, deadlines.
    fn tend(&mut self) {
        if self.tended_ms == Some(self.now.millis) {
            return;
        }
        self.tended_ms = Some(self.now.millis);
        if self.accept_again.is_some_and(|at| self.due(at)) {
            self.watch_listeners();
        }
        self.close_leaving();
        self.expire_backends();
        self.tend_stalled();
        self.tend_replicas();
        self.tend_subscribers();
        self.tend_trackers();
        for shard in 0..self.shards.len() {
            self.open_due_lanes(shard);
            self.shards[shard].leased = self.lease_holds(shard);
            if self.shards[shard].has_waiting() {
                // What waits for a connection is released when that is there; what waits for the
                // lease, here.
                let retry = self.shards[shard]
                    .pin_retry_ms
                    .is_some_and(|at| self.due(at));
                let leased = self.shards[shard].leased;
                if (leased || retry) && self.shards[shard].is_connected() {
                    self.release(shard);
                }
                self.expire_held(shard);
            }
        }
    }

    /// Writes to the shard's master are allowed at this moment of the worker's clock.
    fn lease_holds(&self, shard: usize) -> bool {
        self.now.nanos < self.snapshot.routes[shard].lease.until()
    }

    fn due(&self, at_ms: u32) -> bool {
        at_ms.wrapping_sub(self.now.millis).cast_signed() <= 0
    }

    fn wait_ms(&self) -> u64 {
        let unfinished = !self.resuming.is_empty()
            || !self.repeating.is_empty()
            || !self.dirty_backends.is_empty()
            || !self.dirty_clients.is_empty();
        if unfinished {
            return 0;
        }
        let busy = self.accept_again.is_some()
            || self.unpublished
            || !self.tending.is_empty()
            || self.has_unarmed_witness()
            || self.draining
            || self
                .backends
                .iter()
                .any(|(_, backend)| backend.has_deadline())
            || self.shards.iter().any(Shard::is_unsettled)
            || self.has_request_deadlines();
        if busy { BUSY_WAIT_MS } else { IDLE_WAIT_MS }
    }

    fn new_handle(&mut self, index: usize) -> Handle {
        self.next_id = (self.next_id + 1) & ID_MASK;
        Handle {
            index: index as u32,
            id: self.next_id,
        }
    }

    fn client(&mut self, handle: Handle) -> Option<&mut Client> {
        self.clients
            .get_mut(handle.index as usize)
            .filter(|client| client.handle == handle)
    }

    fn backend(&mut self, handle: Handle) -> Option<&mut Backend> {
        self.backends
            .get_mut(handle.index as usize)
            .filter(|backend| backend.handle == handle)
    }

    /// The client will be written to when the round ends.
    fn touch_client(&mut self, handle: Handle) {
        if let Some(client) = self.client(handle)
            && !client.dirty
        {
            client.dirty = true;
            self.dirty_clients.push(handle);
        }
    }

    fn touch_backend(&mut self, handle: Handle) {
        if let Some(backend) = self.backend(handle)
            && !backend.dirty
        {
            backend.dirty = true;
            self.dirty_backends.push(handle);
        }
    }

    /// Ends listening and idle clients; true when no client is left.
    fn drained(&mut self) -> bool {
        if !self.draining {
            self.draining = true;
            for pool in 0..self.pools.len() {
                self.stop_listening(pool);
            }
        }
        let idle: Vec<Handle> = self
            .clients
            .iter()
            .filter(|(_, client)| client.blocks() || client.idle() && client.input.is_empty())
            .map(|(_, client)| client.handle)
            .collect();
        for client in idle {
            self.close_client(client);
        }
        self.clients.is_empty()
    }
}
