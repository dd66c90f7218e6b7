//! Readiness of sockets: level-triggered epoll, and a way to wake a worker from outside.
//!
//! The one place that knows epoll. `polling` was tried on paper and left out: it arms a timer fd and
//! re-arms its event fd at every wait, two system calls a round that buy nothing here; mio is
//! edge-triggered, which would force reads until `EAGAIN`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

/// Events taken from the kernel at once.
const BATCH: usize = 512;

/// What a socket is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interest(EventFlags);

impl Interest {
    /// Only errors and hang-ups, which are always reported.
    pub(crate) const NONE: Self = Self(EventFlags::empty());
    pub(crate) const READ: Self = Self(EventFlags::IN);
    /// The peer closed its sending side; noticed without reading.
    pub(crate) const PEER_CLOSED: Self = Self(EventFlags::RDHUP);

    pub(crate) fn and_write(self, write: bool) -> Self {
        if write {
            Self(self.0 | EventFlags::OUT)
        } else {
            self
        }
    }
}

/// Names a registered socket: what it is, where it is kept, and which use of that place it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token {
    Waker,
    Listener(usize),
    Client(Handle),
    Backend(Handle),
}

/// A place in a slab together with the number of its use, so that a handle that outlived its
/// connection names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Handle {
    pub(crate) index: u32,
    /// Never repeats within 2^30 connections.
    pub(crate) id: u32,
}

const ID_BITS: u32 = 30;
pub(crate) const ID_MASK: u32 = (1 << ID_BITS) - 1;

impl Token {
    fn pack(self) -> EventData {
        let (kind, id, index) = match self {
            Self::Waker => (0, 0, 0),
            Self::Listener(index) => (1, 0, index as u32),
            Self::Client(handle) => (2, handle.id, handle.index),
            Self::Backend(handle) => (3, handle.id, handle.index),
        };
        EventData::new_u64(kind << 62 | u64::from(id) << 32 | u64::from(index))
    }

    fn unpack(data: EventData) -> Self {
        let bits = data.u64();
        let index = bits as u32;
        let handle = Handle {
            index,
            id: (bits >> 32) as u32 & ID_MASK,
        };
        match bits >> 62 {
            0 => Self::Waker,
            1 => Self::Listener(index as usize),
            2 => Self::Client(handle),
            _ => Self::Backend(handle),
        }
    }
}

/// What the kernel said of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) token: Token,
    flags: EventFlags,
}

impl Ready {
    pub(crate) fn readable(&self) -> bool {
        self.flags.intersects(EventFlags::IN)
    }

    pub(crate) fn writable(&self) -> bool {
        self.flags.intersects(EventFlags::OUT)
    }

    pub(crate) fn peer_closed(&self) -> bool {
        self.flags
            .intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
    }

    /// The connection is broken: nothing can be read from it.
    pub(crate) fn broken(&self) -> bool {
        self.flags.intersects(EventFlags::ERR)
    }

    /// Both directions are closed. On a unix socket there may be something left to read.
    pub(crate) fn hung_up(&self) -> bool {
        self.flags.intersects(EventFlags::HUP)
    }

    pub(crate) fn failed(&self) -> bool {
        self.flags.intersects(EventFlags::HUP | EventFlags::ERR)
    }
}

/// What one wait has found.
pub(crate) struct Events(Vec<epoll::Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(BATCH))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Ready> {
        self.0.iter().map(|event| Ready {
            token: Token::unpack(event.data),
            flags: event.flags,
        })
    }
}

/// An epoll instance and its waker.
pub(crate) struct Reactor {
    epoll: OwnedFd,
    waker: Arc<Waker>,
}

impl Reactor {
    pub(crate) fn new(waker: Arc<Waker>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &waker.0, Token::Waker.pack(), EventFlags::IN)?;
        Ok(Self { epoll, waker })
    }

    pub(crate) fn add(
        &self,
        socket: impl AsFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, token.pack(), interest.0)?)
    }

    pub(crate) fn modify(
        &self,
        socket: impl AsFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            socket,
            token.pack(),
            interest.0,
        )?)
    }

    pub(crate) fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits up to `millis` and puts what is ready into `events`.
    pub(crate) fn wait(&self, millis: u64, events: &mut Events) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: (millis / 1000).cast_signed(),
            tv_nsec: (millis % 1000 * 1_000_000).cast_signed(),
        };
        events.0.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events.0), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if events.iter().any(|event| event.token == Token::Waker) {
            self.waker.clear();
        }
        Ok(())
    }
}

/// Wakes a worker that waits.
pub(crate) struct Waker(OwnedFd);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK,
        )?))
    }

    pub(crate) fn wake(&self) {
        // A full counter means that the worker is being woken already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    fn clear(&self) {
        let mut count = [0_u8; 8];
        // Nothing to read means that somebody else cleared it.
        let _ = rustix::io::read(&self.0, &mut count);
    }
}
