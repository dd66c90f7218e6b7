//! Reads clients and takes their requests.
//!
//! A request is taken whole or not at all: when its shard cannot take it, or the client has too much
//! unanswered, it stays in the client's input and the client's gate closes. So the order of a client's
//! requests holds by itself, and a client that is held costs no more than what it had sent.

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::dispatch::{Request, Step};
use super::{READ_SIZE, Worker};
use crate::buffer::{ByteQueue, reusable};
use crate::client::Gate;
use crate::reactor::{Handle, Ready};
use crate::resp::{self, Limits, RequestScan, RequestStatus, Span};

/// Unsent replies above which no more requests of a client are taken.
const OUTPUT_HIGH: usize = 256 * 1024;
/// A client that is alone may have this many times more unanswered requests.
const ALONE_FACTOR: usize = 16;
/// How long a client that sends no more is waited for.
const LAST_REPLIES_MS: u32 = 1000;
/// The largest request: its fragments and copies must stay addressable with 32 bits.
const LARGEST_REQUEST: usize = 1 << 30;

impl Worker {
    /// Closes a client that has left while something of it is held, or that is beyond reach.
    pub(super) fn client_left(&mut self, handle: Handle, event: Ready) {
        let drops = self.drops_what_is_held(handle);
        let Some(client) = self.client(handle) else {
            return;
        };
        let reads = client.reads();
        if event.broken() {
            self.client_lost(handle);
        } else if client.is_held() && drops || client.blocks() || event.hung_up() && !reads {
            self.client_gone(handle);
        } else if client.is_held() {
            client.ended = true;
            self.watch_client(handle);
        }
    }

    /// What is held for a client is dropped when it sends no more: it may have lost patience. Where servers
    /// are fixed that is held only until a connection is made or refused.
    fn drops_what_is_held(&mut self, handle: Handle) -> bool {
        let pool = self.client(handle).map(|client| usize::from(client.pool));
        pool.is_none_or(|pool| !self.snapshot.pools[pool].config.is_fixed())
    }

    pub(super) fn client_ready(&mut self, handle: Handle, event: Ready) {
        if event.writable() {
            self.touch_client(handle);
        }
        if event.readable() {
            self.read_client(handle);
        }
    }

    fn read_client(&mut self, handle: Handle) {
        let Some(client) = self.client(handle) else {
            return;
        };
        if !client.reads() {
            return self.watch_client(handle);
        }
        if client.input.is_empty() {
            let mut buffer = std::mem::take(&mut self.read_buffer);
            buffer.clear();
            if let Some(client) = self.client(handle) {
                let read = rustix::io::read(&client.socket, spare_capacity(&mut buffer));
                if self.read_something(handle, read) {
                    self.take_from(handle, &buffer);
                }
            }
            self.read_buffer = buffer;
        } else {
            let wanted = client.needed.saturating_sub(client.input.len());
            let spare = wanted.clamp(READ_SIZE, client.input.len().max(READ_SIZE));
            let read = rustix::io::read(&client.socket, spare_capacity(client.input.spare(spare)));
            if self.read_something(handle, read) {
                self.take_from_input(handle);
            }
        }
    }

    /// Looks at the outcome of a read; lets the client go at its end.
    fn read_something(&mut self, handle: Handle, read: Result<usize, Errno>) -> bool {
        match read {
            Ok(0) => self.input_ended(handle),
            Ok(_) => return true,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.client_lost(handle),
        }
        false
    }

    /// A client that sends no more may still wait for its replies, as `nc -N` does. One that is gone
    /// looks the same, so the wait is short, and nothing held is ever sent for it.
    fn input_ended(&mut self, handle: Handle) {
        let drops = self.drops_what_is_held(handle);
        let Some(client) = self.client(handle) else {
            return;
        };
        if client.idle() || client.is_held() && drops {
            return self.client_gone(handle);
        }
        client.closing = true;
        client.input = ByteQueue::default();
        let pool = usize::from(client.pool);
        self.pools[pool].counters.left.add(1);
        self.watch_client(handle);
        let until = self.now.millis.wrapping_add(LAST_REPLIES_MS);
        self.leaving.push_back((until, handle));
    }

    /// Closes the clients whose last replies have not come in time.
    pub(super) fn close_leaving(&mut self) {
        while let Some(&(until, client)) = self.leaving.front()
            && self.due(until)
        {
            self.leaving.pop_front();
            self.close_client(client);
        }
    }

    /// Takes requests from `bytes` and keeps what is left for later.
    fn take_from(&mut self, handle: Handle, bytes: &[u8]) {
        let used = self.take_requests(handle, bytes);
        if let Some(client) = self.client(handle) {
            if used < bytes.len() && !client.closing {
                client.input.push(&bytes[used..]);
            }
            self.took(handle);
        }
    }

    /// Takes requests that have been read before.
    pub(super) fn take_from_input(&mut self, handle: Handle) {
        let Some(client) = self.client(handle) else {
            return;
        };
        let mut input = std::mem::take(&mut client.input);
        let used = self.take_requests(handle, input.filled());
        if let Some(client) = self.client(handle) {
            if client.closing {
                input = ByteQueue::default();
            } else {
                input.consume(used);
            }
            client.input = input;
            self.took(handle);
        }
    }

    /// What could be taken from a client has been: notes how it stands now.
    fn took(&mut self, handle: Handle) {
        let now = self.now.nanos;
        let Some(client) = self.client(handle) else {
            return;
        };
        client.active = now;
        let kept = client.kept();
        if let Gate::Parked { bytes, .. } = &mut client.gate {
            // All that it has sent is kept, not only the request that is held.
            let more = kept.saturating_sub(*bytes);
            *bytes += more;
            let pool = usize::from(client.pool);
            self.pools[pool].held_bytes += more;
        } else {
            client.held_since = 0;
        }
        self.watch_client(handle);
    }

    /// Lets clients go on whose gate was full.
    pub(super) fn resume_clients(&mut self) {
        let resuming = std::mem::take(&mut self.resuming);
        for handle in resuming {
            let Some(client) = self.client(handle) else {
                continue;
            };
            client.resuming = false;
            if let Gate::Full { .. } = client.gate {
                client.gate = client.gate_again();
                self.take_from_input(handle);
            }
        }
    }

    /// Notes that a client's gate may open now that something was answered or sent.
    pub(super) fn reconsider(&mut self, handle: Handle) {
        let Some(client) = self.client(handle) else {
            return;
        };
        if let Gate::Full { resume_at } = client.gate
            && !client.resuming
            && client.slots.len() <= resume_at
            && client.output.len() <= OUTPUT_HIGH
        {
            client.resuming = true;
            self.resuming.push(handle);
        }
    }

    /// Takes as many whole requests from `bytes` as the gate lets through; returns how many bytes.
    fn take_requests(&mut self, handle: Handle, bytes: &[u8]) -> usize {
        let mut args = std::mem::take(&mut self.args);
        let mut used = 0;
        while used < bytes.len() {
            if !self.gate_open(handle) {
                break;
            }
            match self.take_request(handle, &bytes[used..], &mut args) {
                Some(len) => used += len,
                None => break,
            }
        }
        self.args = reusable(args);
        used
    }

    /// Takes the request at the front of `bytes`; `None` if it is incomplete, kept or broken.
    fn take_request(
        &mut self,
        handle: Handle,
        bytes: &[u8],
        args: &mut Vec<Span>,
    ) -> Option<usize> {
        let client = self.client(handle)?;
        let limits = Limits {
            authenticated: client.authenticated,
            ..Limits::default()
        };
        if bytes[0] != b'*' {
            return self.take_inline(handle, bytes, &limits, args);
        }
        let len = match resp::scan_request(bytes, &limits, &mut client.scan, args) {
            Ok(RequestStatus::Complete { len }) => len,
            Ok(RequestStatus::Incomplete { .. }) if bytes.len() > LARGEST_REQUEST => {
                self.protocol_error(handle, "Protocol error: too big request");
                return None;
            }
            Ok(RequestStatus::Incomplete { needed_hint }) => {
                client.needed = needed_hint;
                return None;
            }
            Err(error) => {
                self.protocol_error(handle, &error.to_string());
                return None;
            }
        };
        client.scan = RequestScan::default();
        let tracks = client.tracking.is_some();
        if args.is_empty() {
            return Some(len);
        }
        let request = Request {
            frame: &bytes[..len],
            args,
        };
        let step = if tracks {
            self.dispatch_tracked(handle, request)
        } else {
            self.dispatch(handle, request)
        };
        (step == Step::Taken).then_some(len)
    }

    /// A request typed by hand: made a frame like any other.
    fn take_inline(
        &mut self,
        handle: Handle,
        bytes: &[u8],
        limits: &Limits,
        args: &mut Vec<Span>,
    ) -> Option<usize> {
        let client = self.client(handle)?;
        let (len, words) = match resp::scan_inline(bytes, limits, &mut client.scan) {
            Ok(Some(line)) => line,
            Ok(None) => return None,
            Err(error) => {
                self.protocol_error(handle, &error.to_string());
                return None;
            }
        };
        client.scan = RequestScan::default();
        let tracks = client.tracking.is_some();
        if words.is_empty() {
            return Some(len);
        }
        let mut frame = format!("*{}\r\n", words.len()).into_bytes();
        args.clear();
        for word in &words {
            frame.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            args.push((frame.len() as u32, (frame.len() + word.len()) as u32));
            frame.extend_from_slice(word);
            frame.extend_from_slice(b"\r\n");
        }
        let request = Request {
            frame: &frame,
            args,
        };
        let step = if tracks {
            self.dispatch_tracked(handle, request)
        } else {
            self.dispatch(handle, request)
        };
        (step == Step::Taken).then_some(len)
    }

    fn gate_open(&mut self, handle: Handle) -> bool {
        let alone = self.clients.len() == 1;
        let Some(client) = self.clients.get_mut(handle.index as usize) else {
            return false;
        };
        if client.handle != handle || client.closing || client.gate != Gate::Open {
            return client.handle == handle && !client.closing && client.may_take_one();
        }
        let config = &self.snapshot.pools[usize::from(client.pool)].config;
        let factor = if alone { ALONE_FACTOR } else { 1 };
        let limit = config.max_inflight.saturating_mul(factor);
        if client.slots.len() >= limit || client.output.len() > OUTPUT_HIGH {
            client.gate = Gate::Full {
                resume_at: limit / 2,
            };
            return false;
        }
        true
    }

    /// Says what is wrong and takes nothing more from a client that speaks no RESP.
    fn protocol_error(&mut self, handle: Handle, error: &str) {
        self.answer(handle, format!("-ERR {error}\r\n").as_bytes());
        let Some(client) = self.client(handle) else {
            return;
        };
        client.closing = true;
        let pool = usize::from(client.pool);
        self.pools[pool].counters.protocol_errors.add(1);
        self.pools[pool].counters.lost.add(1);
    }

    /// Tells the reactor what a client is watched for, if that has changed.
    pub(super) fn watch_client(&mut self, handle: Handle) {
        let Some(client) = self.clients.get_mut(handle.index as usize) else {
            return;
        };
        let wanted = client.wanted();
        if client.handle == handle && client.interest != wanted {
            client.interest = wanted;
            let token = crate::reactor::Token::Client(handle);
            // A socket that cannot be watched any more reports its failure at the next write.
            let _ = self.reactor.modify(&client.socket, token, wanted);
        }
    }
}
