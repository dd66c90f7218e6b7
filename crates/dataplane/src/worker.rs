//! One worker: a thread with its own poller, listeners, clients and backends, sharing nothing.
//!
//! A round is: read every backend that is ready and pass its replies on, read every client that is
//! ready and route its requests, then one write for each backend and each client that has something
//! to be sent. The routing state is one snapshot, taken between two rounds.
//!
//! The parts: `accept` takes clients, `requests` reads them, `dispatch` routes, `local` answers what
//! needs no shard, `replies` reads backends and `refusals` judges what they refuse, `hold` keeps what
//! has no master, `lanes` opens and loses backends, `flush` writes. Called by `plane`.

mod accept;
mod dispatch;
mod flush;
mod hold;
mod lanes;
mod local;
mod refusals;
mod replies;
mod requests;
mod shard;

use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustix::time::{ClockId, clock_gettime};
use slab::Slab;

use crate::backend::Backend;
use crate::client::Client;
use crate::reactor::{Events, Handle, ID_MASK, Interest, Reactor, Ready, Token, Waker};
use crate::resp::Span;
use crate::snapshot::{Nanos, Snapshot};
use crate::stats::WorkerStats;
use shard::Shard;

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
    /// A newer snapshot than the one in use.
    next: Mutex<Option<Arc<Snapshot>>>,
    has_next: AtomicBool,
    stopping: AtomicBool,
}

impl Mailbox {
    pub(crate) fn new(waker: Arc<Waker>, stats: WorkerStats) -> Self {
        Self {
            waker,
            stats,
            next: Mutex::new(None),
            has_next: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// Gives the worker a snapshot for its next round.
    pub(crate) fn post(&self, snapshot: Arc<Snapshot>) {
        if let Ok(mut next) = self.next.lock() {
            *next = Some(snapshot);
        }
        self.has_next.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Asks the worker to finish what is unanswered and to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn take(&self) -> Option<Arc<Snapshot>> {
        if !self.has_next.swap(false, Ordering::AcqRel) {
            return None;
        }
        self.next.lock().ok()?.take()
    }
}

/// A listening socket of the worker and the pool it serves.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) pool: u16,
}

/// What a worker is made of.
pub(crate) struct Setup {
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) listeners: Vec<Listener>,
    /// Clients of each pool over all workers.
    pub(crate) clients: Arc<[AtomicUsize]>,
    pub(crate) next_client_id: Arc<AtomicU64>,
    pub(crate) workers: usize,
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

/// A worker's whole state.
pub(crate) struct Worker {
    mailbox: Arc<Mailbox>,
    snapshot: Arc<Snapshot>,
    reactor: Reactor,
    listeners: Vec<Listener>,
    /// When listeners that ran out of file descriptors are watched again.
    accept_again: Option<u32>,
    client_totals: Arc<[AtomicUsize]>,
    next_client_id: Arc<AtomicU64>,
    workers: usize,
    clients: Slab<Client>,
    backends: Slab<Backend>,
    shards: Vec<Shard>,
    /// Bytes held, of each pool.
    held_bytes: Vec<usize>,
    next_id: u32,
    now: Now,
    tended_ms: Option<u32>,
    dirty_backends: Vec<Handle>,
    dirty_clients: Vec<Handle>,
    resuming: Vec<Handle>,
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
        let reactor = Reactor::new(setup.mailbox.waker.clone())?;
        for (index, listener) in setup.listeners.iter().enumerate() {
            reactor.add(&listener.socket, Token::Listener(index), Interest::READ)?;
        }
        Ok(Self {
            shards: (0..setup.snapshot.routes.len())
                .map(|_| Shard::default())
                .collect(),
            held_bytes: vec![0; setup.snapshot.pools.len()],
            mailbox: setup.mailbox,
            snapshot: setup.snapshot,
            reactor,
            listeners: setup.listeners,
            accept_again: None,
            client_totals: setup.clients,
            next_client_id: setup.next_client_id,
            workers: setup.workers,
            clients: Slab::new(),
            backends: Slab::new(),
            next_id: 0,
            now: Now::read(),
            tended_ms: None,
            dirty_backends: Vec::new(),
            dirty_clients: Vec::new(),
            resuming: Vec::new(),
            leaving: VecDeque::new(),
            draining: false,
            read_buffer: Vec::with_capacity(READ_SIZE),
            args: Vec::new(),
            keys: Vec::new(),
        })
    }

    /// Works until asked to stop and everything unanswered is answered.
    pub(crate) fn run(mut self) -> std::io::Result<()> {
        let mut events = Events::new();
        loop {
            self.reactor.wait(self.wait_ms(), &mut events)?;
            self.now = Now::read();
            self.take_snapshot();
            self.read_ready(&events);
            self.resume_clients();
            self.tend();
            self.flush_backends();
            self.flush_clients();
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

    /// Moves to the newest snapshot: routes that changed get new connections.
    fn take_snapshot(&mut self) {
        let Some(next) = self.mailbox.take() else {
            return;
        };
        self.snapshot = next;
        for shard in 0..self.shards.len() {
            let endpoint = self.snapshot.routes[shard].endpoint;
            if self.shards[shard].endpoint != endpoint {
                self.shards[shard].endpoint = endpoint;
                self.leave_master(shard);
            }
        }
        self.mailbox.stats.epoch.set(self.snapshot.epoch);
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
        for shard in 0..self.shards.len() {
            self.open_due_lanes(shard);
            self.shards[shard].leased = self.lease_holds(shard);
            if self.shards[shard].has_waiting() {
                // What waits for a connection is released when that is there; what waits for the
                // lease, here.
                if self.shards[shard].leased && self.shards[shard].is_connected() {
                    self.release(shard);
                }
                self.expire_held(shard);
            }
            self.publish(shard);
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
            || !self.dirty_backends.is_empty()
            || !self.dirty_clients.is_empty();
        if unfinished {
            return 0;
        }
        let busy = self.accept_again.is_some()
            || self.draining
            || self.backends.iter().any(|(_, backend)| backend.stalled)
            || self.shards.iter().any(|shard| {
                shard.has_waiting()
                    || shard.endpoint.is_some()
                        && shard
                            .lanes
                            .iter()
                            .any(|lane| !matches!(lane.state, shard::LaneState::Ready(_)))
            })
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
            self.listeners.clear();
        }
        let idle: Vec<Handle> = self
            .clients
            .iter()
            .filter(|(_, client)| client.idle() && client.input.is_empty())
            .map(|(_, client)| client.handle)
            .collect();
        for client in idle {
            self.close_client(client);
        }
        self.clients.is_empty()
    }
}
