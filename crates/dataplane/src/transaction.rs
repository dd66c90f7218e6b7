//! What a client has queued since MULTI.
//!
//! Owns the queue and its bounds. A transaction stays here until EXEC and is then sent whole, as one
//! request with one owner: so nothing of another client comes between, a connection that is lost had
//! all of it or none, and no connection that clients share is ever left in MULTI. `client` keeps it,
//! `worker/transaction` fills it.

use std::sync::Arc;

use crate::command::Access;
use crate::pool::Router;
use crate::reactor::Handle;
use crate::resp::{self, Limits, RequestScan, RequestStatus, Span};

/// Requests that one transaction may have, and bytes that they may take.
const MOST_REQUESTS: u32 = 1 << 20;
const MOST_BYTES: usize = 64 << 20;

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// A transaction that is being queued.
pub(crate) struct Transaction {
    /// As it will be sent: MULTI, what was queued, and once it is whole, EXEC.
    frames: Vec<u8>,
    queued: u32,
    whole: bool,
    aborted: bool,
    pub(crate) access: Access,
    /// A script is named by its digest.
    pub(crate) names_scripts: bool,
    /// The shard that all its keys are on; none while it has no key.
    pub(crate) shard: Option<usize>,
    /// The ring that says so.
    pub(crate) router: Arc<Router>,
}

impl Transaction {
    pub(crate) fn new(router: Arc<Router>) -> Self {
        Self {
            frames: MULTI.to_vec(),
            queued: 0,
            whole: false,
            aborted: false,
            access: Access::Read,
            names_scripts: false,
            shard: None,
            router,
        }
    }

    /// Queues a request; or refuses it, with the error line, because the transaction is full.
    pub(crate) fn queue(&mut self, frame: &[u8], access: Access) -> Result<(), String> {
        if self.aborted {
            return Ok(()); // it will never be sent
        }
        if self.queued == MOST_REQUESTS || self.frames.len() + frame.len() > MOST_BYTES {
            return Err(format!(
                "-ERR the transaction is too long: Shoal queues up to {MOST_REQUESTS} requests and \
                 {MOST_BYTES} bytes\r\n"
            ));
        }
        self.frames.extend_from_slice(frame);
        self.queued += 1;
        if access == Access::Write {
            self.access = Access::Write;
        }
        Ok(())
    }

    /// A request was refused: EXEC will be, too, and what was queued is of no use.
    pub(crate) fn abort(&mut self) {
        self.aborted = true;
        self.frames = Vec::new();
    }

    pub(crate) fn is_aborted(&self) -> bool {
        self.aborted
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Requests that it has.
    pub(crate) fn queued(&self) -> u32 {
        self.queued
    }

    /// Bytes that it takes.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// All that is sent at EXEC; nothing more is queued afterwards.
    pub(crate) fn whole(&mut self) -> &[u8] {
        if !self.whole {
            self.whole = true;
            self.frames.extend_from_slice(EXEC);
        }
        &self.frames
    }

    /// Puts frames that come to the same in place of all that will be sent.
    pub(crate) fn replace(&mut self, whole: Vec<u8>) {
        self.frames = whole;
    }

    /// How many replies it gets once it is sent: also MULTI and EXEC have one.
    pub(crate) fn replies(&self) -> u32 {
        self.queued + 2
    }

    /// Each queued request, with its arguments.
    pub(crate) fn for_each(&self, look: impl FnMut(&[u8], &[Span])) {
        each_request(&self.frames, look);
    }
}

/// Keys that a client watches, on a connection of its own.
pub(crate) struct Watch {
    pub(crate) shard: usize,
    /// The ring that says so.
    pub(crate) router: Arc<Router>,
    /// The connection; what it watched is forgotten if that is gone.
    pub(crate) backend: Handle,
    /// WATCH was sent on it: till then another connection is as good.
    pub(crate) armed: bool,
}

pub(crate) fn is_transaction(frames: &[u8]) -> bool {
    frames.starts_with(MULTI)
}

/// The whole transaction `frames` with other requests for some; none if it stays as it is.
pub(crate) fn rewritten(
    frames: &[u8],
    mut other: impl FnMut(&[u8], &[Span]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut changed = false;
    let mut whole = MULTI.to_vec();
    each_request(frames, |frame, args| {
        let other = other(frame, args);
        changed |= other.is_some();
        whole.extend_from_slice(other.as_deref().unwrap_or(frame));
    });
    whole.extend_from_slice(EXEC);
    changed.then_some(whole)
}

/// Looks at each request between the MULTI and the EXEC of `frames`.
pub(crate) fn each_request(frames: &[u8], mut look: impl FnMut(&[u8], &[Span])) {
    let mut rest = frames.strip_prefix(MULTI).unwrap_or_default();
    let mut args = Vec::new();
    while !rest.is_empty() && rest != EXEC {
        let scanned = resp::scan_request(
            rest,
            &Limits::default(),
            &mut RequestScan::default(),
            &mut args,
        );
        let Ok(RequestStatus::Complete { len }) = scanned else {
            return; // cannot be: each was scanned before it was queued
        };
        look(&rest[..len], &args);
        rest = &rest[len..];
    }
}
