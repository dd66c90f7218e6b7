//! Takes new clients and lets them go.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::Worker;
use crate::client::{Client, Gate};
use crate::pool::Pool;
use crate::reactor::{Handle, Interest, Token};

/// Clients taken from one listener in one round, so that a storm of them does not stop the others.
const ACCEPTS_A_ROUND: usize = 64;
/// Pause after the process ran out of file descriptors.
const OUT_OF_FILES_MS: u32 = 100;

impl Worker {
    pub(super) fn accept(&mut self, pool: usize) {
        self.accept_some(pool, ACCEPTS_A_ROUND);
    }

    fn accept_some(&mut self, pool: usize, most: usize) {
        for _ in 0..most {
            let Some(listener) = &self.pools[pool].listener else {
                return;
            };
            match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => self.welcome(socket, pool),
                Err(Errno::AGAIN) => return,
                // ECONNABORTED: the peer gave up before it was taken.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(_) => return self.pause_listeners(),
            }
        }
    }

    /// Watches a pool's new listener in place of the old one.
    pub(super) fn listen(&mut self, pool: usize, listener: OwnedFd) {
        self.stop_listening(pool);
        self.pools[pool].listener = Some(listener);
        if self.accept_again.is_none() {
            self.watch_listeners();
        }
    }

    /// Closes a pool's listener. Who has connected to it already is taken first: they would be reset.
    pub(super) fn stop_listening(&mut self, pool: usize) {
        if self.pools[pool].listener.is_none() {
            return;
        }
        self.accept_some(pool, usize::MAX);
        if let Some(listener) = self.pools[pool].listener.take() {
            // A listener that was not watched needs no removal.
            let _ = self.reactor.remove(&listener);
        }
    }

    fn welcome(&mut self, socket: OwnedFd, pool: usize) {
        let counters = &self.pools[pool].counters;
        let Pool { config, face, .. } = &*self.snapshot.pools[pool];
        let limit = config.client_connections;
        if limit > 0 && face.clients.load(Ordering::Relaxed) >= limit {
            counters.refused.add(1);
            // Best effort, as Redis does it: the socket's buffer is empty.
            let refusal = b"-ERR max number of clients reached\r\n";
            let _ = rustix::io::write(&socket, refusal);
            return;
        }
        let number = self.next_client_id.fetch_add(1, Ordering::Relaxed);
        let (authenticated, lane) = (config.password.is_none(), config.lane(number));
        let recent = config.max_lag.map(|_| Box::default());
        let index = self.clients.vacant_key();
        let handle = self.new_handle(index);
        if self
            .reactor
            .add(socket.as_fd(), Token::Client(handle), Interest::READ)
            .is_err()
        {
            return;
        }
        let mut client = Client::new(handle, socket, pool as u16, number, authenticated);
        client.lane = lane;
        client.recent = recent;
        (client.born, client.active) = (self.now.nanos, self.now.nanos);
        self.clients.insert(client);
        let counters = &self.pools[pool].counters;
        counters.accepted.add(1);
        counters.clients.add(1);
        self.snapshot.pools[pool]
            .face
            .clients
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets a client that has left by itself.
    pub(super) fn client_gone(&mut self, handle: Handle) {
        if let Some(client) = self.client(handle) {
            let pool = usize::from(client.pool);
            self.pools[pool].counters.left.add(1);
            self.close_client(handle);
        }
    }

    /// Forgets a client whose connection is broken.
    pub(super) fn client_lost(&mut self, handle: Handle) {
        if let Some(client) = self.client(handle) {
            let pool = usize::from(client.pool);
            self.pools[pool].counters.lost.add(1);
            self.close_client(handle);
        }
    }

    /// Forgets a client; what it was promised by backends is dropped when it comes.
    pub(super) fn close_client(&mut self, handle: Handle) {
        if self.client(handle).is_none() {
            return;
        }
        let client = self.clients.remove(handle.index as usize);
        if let Some(watch) = &client.watch {
            self.unpin(watch);
        }
        self.stop_blocking(&client);
        if let Some(subscriptions) = &client.subscriptions {
            self.close_ears(subscriptions);
        }
        let pool = usize::from(client.pool);
        if client.tracking.is_some() {
            self.forget_tracker(pool, handle);
        }
        let state = &mut self.pools[pool];
        if let Gate::Parked { bytes, .. } = client.gate {
            state.held_bytes = state.held_bytes.saturating_sub(bytes);
        }
        let clients = &state.counters.clients;
        clients.set(clients.get().saturating_sub(1));
        self.snapshot.pools[pool]
            .face
            .clients
            .fetch_sub(1, Ordering::Relaxed);
    }

    fn pause_listeners(&mut self) {
        for listener in self.pools.iter().filter_map(|pool| pool.listener.as_ref()) {
            // Not watched means not watched: nothing else can fail here.
            let _ = self.reactor.remove(listener);
        }
        self.accept_again = Some(self.now.millis.wrapping_add(OUT_OF_FILES_MS));
    }

    pub(super) fn watch_listeners(&mut self) {
        self.accept_again = None;
        let watched = self.pools.iter().enumerate().all(|(index, pool)| {
            let Some(listener) = &pool.listener else {
                return true;
            };
            let token = Token::Listener(index);
            match self.reactor.add(listener, token, Interest::READ) {
                Ok(()) => true,
                Err(error) => error.kind() == ErrorKind::AlreadyExists,
            }
        });
        if !watched {
            self.pause_listeners();
        }
    }
}
