//! Takes new clients and lets them go.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use super::Worker;
use crate::client::{Client, Gate};
use crate::reactor::{Handle, Interest, Token};

/// Clients taken from one listener in one round, so that a storm of them does not stop the others.
const ACCEPTS_A_ROUND: usize = 64;
/// Pause after the process ran out of file descriptors.
const OUT_OF_FILES_MS: u32 = 100;

impl Worker {
    pub(super) fn accept(&mut self, listener: usize) {
        for _ in 0..ACCEPTS_A_ROUND {
            let Some(from) = self.listeners.get(listener) else {
                return;
            };
            let pool = from.pool;
            match from.socket.accept() {
                Ok((socket, _)) => self.welcome(socket, pool),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The peer gave up before it was taken.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.pause_listeners(),
            }
        }
    }

    fn welcome(&mut self, socket: std::net::TcpStream, pool: u16) {
        let counters = &self.mailbox.stats.pools[usize::from(pool)];
        let config = &self.snapshot.pools[usize::from(pool)].config;
        let total = &self.client_totals[usize::from(pool)];
        let limit = config.client_connections;
        if limit > 0 && total.load(Ordering::Relaxed) >= limit {
            counters.refused.add(1);
            // Best effort, as Redis does it: the socket's buffer is empty.
            let refusal = b"-ERR max number of clients reached\r\n";
            let _ = rustix::io::write(&socket, refusal);
            return;
        }
        if socket.set_nonblocking(true).is_err() || socket.set_nodelay(true).is_err() {
            return;
        }
        let authenticated = config.password.is_none();
        let number = self.next_client_id.fetch_add(1, Ordering::Relaxed);
        let index = self.clients.vacant_key();
        let handle = self.new_handle(index);
        if self
            .reactor
            .add(socket.as_fd(), Token::Client(handle), Interest::READ)
            .is_err()
        {
            return;
        }
        self.clients
            .insert(Client::new(handle, socket, pool, number, authenticated));
        let counters = &self.mailbox.stats.pools[usize::from(pool)];
        counters.accepted.add(1);
        counters.clients.add(1);
        self.client_totals[usize::from(pool)].fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets a client; what it was promised by backends is dropped when it comes.
    pub(super) fn close_client(&mut self, handle: Handle) {
        if self.client(handle).is_none() {
            return;
        }
        let client = self.clients.remove(handle.index as usize);
        let pool = usize::from(client.pool);
        if let Gate::Parked { bytes, .. } = client.gate {
            self.held_bytes[pool] = self.held_bytes[pool].saturating_sub(bytes);
        }
        let clients = &self.mailbox.stats.pools[pool].clients;
        clients.set(clients.get().saturating_sub(1));
        self.client_totals[pool].fetch_sub(1, Ordering::Relaxed);
    }

    fn pause_listeners(&mut self) {
        for listener in &self.listeners {
            // Not watched means not watched: nothing else can fail here.
            let _ = self.reactor.remove(&listener.socket);
        }
        self.accept_again = Some(self.now.millis.wrapping_add(OUT_OF_FILES_MS));
    }

    pub(super) fn watch_listeners(&mut self) {
        self.accept_again = None;
        let watched = self.listeners.iter().enumerate().all(|(index, listener)| {
            let token = Token::Listener(index);
            self.reactor
                .add(&listener.socket, token, Interest::READ)
                .is_ok()
        });
        if !watched {
            self.pause_listeners();
        }
    }
}
