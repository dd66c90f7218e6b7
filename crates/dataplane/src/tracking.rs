//! CLIENT TRACKING: what a client wishes to be told of, and how it is told.
//!
//! Owns what is kept of a client that tracks, and of a pool with such clients, and the messages; `tracking/wish` has the
//! options, `tracking/table` which keys were read. Knows no connection. `client` keeps a [`Tracking`],
//! `worker/tracking`, `worker/changes` and `worker/witnesses` do the rest.

mod table;
mod wish;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::lane::Protocol;
use crate::pool::Router;
use crate::push;
use crate::reactor::Handle;
use crate::resp::{self, ReplyKind};
use crate::route::write_argument;
use crate::snapshot::Nanos;
pub(crate) use table::{Key, Table};
pub(crate) use wish::{Mode, Wish};

/// Bytes of changes that are kept to be told a second time; beyond that, everything has changed.
const MOST_AGAIN: usize = 64 << 10;

/// The channel that a RESP2 client is told on.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// What is not any more what it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// These keys: an array of RESP.
    Keys(Arc<[u8]>),
    Everything,
}

impl Change {
    pub(crate) fn of<'k>(keys: impl IntoIterator<Item = &'k [u8]>) -> Self {
        let mut list = KeyList::default();
        for key in keys {
            list.push(key);
        }
        list.change()
    }

    fn len(&self) -> usize {
        match self {
            Self::Keys(array) => array.len(),
            Self::Everything => 0,
        }
    }

    /// The message for a client of this protocol.
    pub(crate) fn message(&self, protocol: Protocol) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.len() + 64);
        match protocol {
            Protocol::Resp2 => {
                message.extend_from_slice(b"*3\r\n$7\r\nmessage\r\n");
                write_argument(&mut message, CHANNEL);
            }
            Protocol::Resp3 => message.extend_from_slice(b">2\r\n$10\r\ninvalidate\r\n"),
        }
        message.extend_from_slice(match (self, protocol) {
            (Self::Keys(array), _) => array,
            (Self::Everything, Protocol::Resp2) => b"$-1\r\n",
            (Self::Everything, Protocol::Resp3) => b"_\r\n",
        });
        message
    }
}

/// Keys that one client is to be told of.
#[derive(Default)]
pub(crate) struct KeyList {
    count: usize,
    bytes: Vec<u8>,
}

impl KeyList {
    pub(crate) fn push(&mut self, key: &[u8]) {
        self.count += 1;
        write_argument(&mut self.bytes, key);
    }

    pub(crate) fn change(self) -> Change {
        let mut array = format!("*{}\r\n", self.count).into_bytes();
        array.extend_from_slice(&self.bytes);
        Change::Keys(array.into())
    }
}

/// What a push of a server says that has changed; none if it is about something else.
pub(crate) fn hear_change(frame: &[u8]) -> Option<Change> {
    let end = memchr::memchr(b'\n', frame)?;
    let (word, rest) = push::bulk(&frame[end + 1..])?;
    if word != b"invalidate" {
        return None;
    }
    Some(match resp::reply_kind(rest) {
        ReplyKind::Array { .. } => Change::Keys(rest.into()),
        _ => Change::Everything,
    })
}

/// The keys of such an array.
pub(crate) fn keys_of(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = match resp::reply_kind(array) {
        ReplyKind::Array { body, .. } => array.get(body..).unwrap_or_default(),
        _ => &[],
    };
    std::iter::from_fn(move || {
        let (key, behind) = push::bulk(rest)?;
        rest = behind;
        Some(key)
    })
}

/// The client that is told in the place of another, and the worker that has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) worker: usize,
    pub(crate) client: Handle,
    pub(crate) number: u64,
}

/// What is kept of a client that tracks, or is told what another one tracks.
#[derive(Default)]
pub(crate) struct Tracking {
    /// None if it does not track itself.
    pub(crate) mode: Option<Mode>,
    pub(crate) redirect: Option<Target>,
    /// Who was to be told is gone.
    pub(crate) broken: bool,
    /// CLIENT CACHING was called for its next request.
    pub(crate) caching: bool,
    pub(crate) prefixes: BTreeSet<Box<[u8]>>,
    /// It does not read, or is in the midst of a reply: it is told that everything has changed once it can be.
    pub(crate) owed: bool,
    /// To be told once the request with this number is answered.
    again: VecDeque<(u32, Change)>,
    again_bytes: usize,
}

impl Tracking {
    /// Tracks from now on; prefixes are added to those that there are.
    pub(crate) fn begin(&mut self, wish: Wish, redirect: Option<Target>) {
        self.mode = Some(wish.mode());
        self.redirect = redirect;
        self.broken = false;
        if wish.broadcast && wish.prefixes.is_empty() {
            self.prefixes.insert(Box::default());
        }
        self.prefixes.extend(wish.prefixes);
    }

    /// Tracks no more; it may still be told what another one does.
    pub(crate) fn end(&mut self) {
        let owed = self.owed;
        *self = Self {
            owed,
            ..Self::default()
        };
    }

    /// Its next request is one whose keys are to be remembered.
    pub(crate) fn remembers(&self) -> bool {
        match self.mode {
            Some(Mode::Read) => true,
            Some(Mode::OptIn) => self.caching,
            Some(Mode::OptOut) => !self.caching,
            Some(Mode::Broadcast) | None => false,
        }
    }

    pub(crate) fn is_broadcast(&self) -> bool {
        self.mode == Some(Mode::Broadcast)
    }

    /// A client that is told of all keys that begin as it wishes is told of this one.
    pub(crate) fn wishes(&self, key: &[u8]) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    /// It is to be told once more when this request of it is answered.
    pub(crate) fn tell_after(&mut self, sequence: u32, change: Change) {
        self.again_bytes += change.len();
        if self.again_bytes <= MOST_AGAIN {
            return self.again.push_back((sequence, change));
        }
        self.again.clear();
        self.again_bytes = 0;
        self.again.push_back((sequence, Change::Everything));
    }

    /// What is due now that these requests are answered.
    pub(crate) fn due(&mut self, is_answered: impl Fn(u32) -> bool) -> Option<Change> {
        let (sequence, _) = self.again.front()?;
        if !is_answered(*sequence) {
            return None;
        }
        let (_, change) = self.again.pop_front()?;
        self.again_bytes -= change.len();
        Some(change)
    }

    /// What CLIENT TRACKINGINFO answers.
    pub(crate) fn info(&self, protocol: Protocol) -> Vec<u8> {
        let (map, set) = match protocol {
            Protocol::Resp2 => ("*6", '*'),
            Protocol::Resp3 => ("%3", '~'),
        };
        let mode = self.mode;
        let flags: Vec<&str> = [
            (mode.is_some(), "on"),
            (mode.is_none(), "off"),
            (mode == Some(Mode::Broadcast), "bcast"),
            (mode == Some(Mode::OptIn), "optin"),
            (mode == Some(Mode::OptIn) && self.caching, "caching-yes"),
            (mode == Some(Mode::OptOut), "optout"),
            (mode == Some(Mode::OptOut) && self.caching, "caching-no"),
            (self.broken, "broken_redirect"),
        ]
        .into_iter()
        .filter_map(|(is, word)| is.then_some(word))
        .collect();
        let mut reply = format!("{map}\r\n$5\r\nflags\r\n{set}{}\r\n", flags.len()).into_bytes();
        for flag in flags {
            write_argument(&mut reply, flag.as_bytes());
        }
        let redirect = self.redirects_to();
        let count = self.prefixes.len();
        let rest = format!("$8\r\nredirect\r\n:{redirect}\r\n$8\r\nprefixes\r\n*{count}\r\n");
        reply.extend_from_slice(rest.as_bytes());
        for prefix in &self.prefixes {
            write_argument(&mut reply, prefix);
        }
        reply
    }

    /// What CLIENT GETREDIR answers.
    pub(crate) fn redirects_to(&self) -> i64 {
        match (self.mode, self.redirect) {
            (None, _) => -1,
            (_, Some(target)) => target.number.cast_signed(),
            (_, None) => 0,
        }
    }
}

/// A CLIENT TRACKING ON that is not answered yet.
pub(crate) struct Asking {
    pub(crate) client: Handle,
    pub(crate) sequence: u32,
    pub(crate) since: Nanos,
    pub(crate) wish: Wish,
    pub(crate) target: Option<Target>,
}

/// The connection on which a shard's server tells of every key that changes.
pub(crate) struct Witness {
    pub(crate) shard: usize,
    pub(crate) backend: Option<Handle>,
    /// The server has confirmed that it tells.
    pub(crate) armed: bool,
    /// When it is opened again.
    pub(crate) retry_ms: Option<u32>,
}

/// What a worker keeps of a pool while it has clients that track.
pub(crate) struct Tracker {
    /// The ring that says which shards there are.
    pub(crate) router: Arc<Router>,
    pub(crate) witnesses: Vec<Witness>,
    pub(crate) table: Table,
    pub(crate) clients: Vec<Handle>,
    pub(crate) asking: Vec<Asking>,
}

impl Tracker {
    /// With room for so many keys.
    pub(crate) fn new(router: Arc<Router>, most: usize) -> Self {
        let mut tracker = Self {
            router,
            witnesses: Vec::new(),
            table: Table::new(most),
            clients: Vec::new(),
            asking: Vec::new(),
        };
        tracker.take_shards();
        tracker
    }

    /// A witness for each shard of the ring; those of other shards are given back.
    pub(crate) fn take_shards(&mut self) -> Vec<Witness> {
        let shards = self.router.shards();
        let of_ring = |witness: &Witness| shards.contains(&witness.shard);
        let (kept, left) = std::mem::take(&mut self.witnesses)
            .into_iter()
            .partition(of_ring);
        self.witnesses = kept;
        for &shard in shards {
            if !self.witnesses.iter().any(|it| it.shard == shard) {
                self.witnesses.push(Witness {
                    shard,
                    backend: None,
                    armed: false,
                    retry_ms: None,
                });
            }
        }
        left
    }

    pub(crate) fn witness_mut(&mut self, shard: usize) -> Option<&mut Witness> {
        self.witnesses.iter_mut().find(|it| it.shard == shard)
    }

    pub(crate) fn is_armed(&self) -> bool {
        self.witnesses.iter().all(|witness| witness.armed)
    }

    /// Changes of this key are told.
    pub(crate) fn watches(&self, key: &[u8]) -> bool {
        let told = |shard| {
            self.witnesses
                .iter()
                .any(|it| it.shard == shard && it.armed)
        };
        self.is_armed() || !self.router.draws() && self.router.shard_of(key).is_some_and(told)
    }

    /// Nobody tracks, or is about to.
    pub(crate) fn is_idle(&self) -> bool {
        self.clients.is_empty() && self.asking.is_empty()
    }

    pub(crate) fn forget(&mut self, client: Handle) {
        self.clients.retain(|&it| it != client);
        self.asking.retain(|it| it.client != client);
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Protocol, Tracking, hear_change, keys_of};

    #[test]
    fn what_is_too_long_to_be_told_again_is_everything() {
        let mut tracking = Tracking::default();
        let key = vec![b'k'; 1000];
        for sequence in 0..100 {
            tracking.tell_after(sequence, Change::of([&key[..]]));
        }
        let answered_up_to = |last: u32| move |sequence: u32| sequence <= last;
        assert_eq!(tracking.due(answered_up_to(10)), None);
        assert_eq!(tracking.due(answered_up_to(99)), Some(Change::Everything));
        let mut rest = 0;
        while let Some(change) = tracking.due(answered_up_to(99)) {
            assert_eq!(change, Change::of([&key[..]]));
            rest += 1;
        }
        assert!(rest < 64);
        assert_eq!(tracking.again_bytes, 0);
    }

    #[test]
    fn a_message_is_heard_as_it_was_written() {
        let keys = [&b"a"[..], b"", b"x\r\ny"];
        let change = Change::of(keys);
        let message = change.message(Protocol::Resp3);
        assert_eq!(hear_change(&message), Some(change.clone()));
        let Change::Keys(array) = change else {
            panic!("keys");
        };
        assert_eq!(keys_of(&array).collect::<Vec<_>>(), keys);
        let everything = Change::Everything.message(Protocol::Resp3);
        assert_eq!(hear_change(&everything), Some(Change::Everything));
        assert_eq!(hear_change(b">2\r\n$5\r\nother\r\n_\r\n"), None);
    }
}
