//! CLIENT LIST and KILL, and whom CLIENT TRACKING is to tell: every worker looks through its own clients, the last one gives the answer back.
//!
//! ```text
//!  client ──► worker 1 ──(muster)──► workers 2, 3 ──(each adds what it found)──► worker 1 ──► client
//! ```
//! Workers share nothing but this one question while it is open: it costs nothing but when somebody asks. The client
//! that asks is given nothing else meanwhile, so what it sends behind CLIENT KILL finds the others gone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Worker;
use super::client_command::text;
use super::dispatch::{Request, Step, printable};
use super::local::{OK, SYNTAX};
use crate::client::{Client, Gate};
use crate::inflight::Slot;
use crate::reactor::Handle;
use crate::resp;
use crate::snapshot::NANOS_A_MILLI;
use crate::tracking::{Target, Wish};

const NO_SUCH_CLIENT: &[u8] = b"-ERR No such client\r\n";

/// What is done with the clients that are found.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Act {
    List,
    /// Counts them.
    Kill,
    /// The form with an address alone, which says whether there was any.
    KillAny,
    /// Finds the one that is to be told in the place of who asks.
    Aim(Wish),
}

/// What Redis calls the types of clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Pubsub,
    /// A type that no client of a proxy has.
    Replication,
}

/// Which clients are meant: those for which all that is set holds.
#[derive(Default)]
pub(super) struct Filter {
    ids: Option<Vec<u64>>,
    address: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    kind: Option<Kind>,
    skip: Option<u64>,
    older_than: Option<u64>,
}

/// A question to all workers.
pub(crate) struct Muster {
    pool: usize,
    filter: Filter,
    act: Act,
    /// The worker and the client that ask, and the slot that waits.
    worker: usize,
    client: Handle,
    sequence: u32,
    /// Workers that have not looked yet.
    left: AtomicUsize,
    found: Mutex<Vec<Found>>,
}

/// A client that is meant.
struct Found {
    who: Target,
    /// Its line, if that is asked for.
    line: String,
}

impl Filter {
    pub(super) fn from_number(number: u64) -> Self {
        Self {
            ids: Some(vec![number]),
            ..Self::default()
        }
    }

    pub(super) fn from_address(address: &[u8]) -> Self {
        Self {
            address: Some(address.to_vec()),
            ..Self::default()
        }
    }

    /// The options of LIST and KILL; or the error line, in Redis's words.
    pub(super) fn parse(request: Request<'_>, asker: u64, kill: bool) -> Result<Self, Vec<u8>> {
        let mut filter = Self {
            skip: kill.then_some(asker),
            ..Self::default()
        };
        let mut at = 2;
        while at < request.args.len() {
            if at + 1 == request.args.len() {
                return Err(SYNTAX.to_vec());
            }
            let option = request.arg(at).to_ascii_uppercase();
            at += 1;
            let value = request.arg(at);
            match option.as_slice() {
                b"ID" => {
                    let ids = filter.ids.get_or_insert_default();
                    ids.push(client_id(value, kill)?);
                    while at + 1 < request.args.len()
                        && let Some(more) = resp::number(request.arg(at + 1))
                    {
                        at += 1;
                        ids.push(u64::try_from(more).unwrap_or(0));
                    }
                }
                b"ADDR" => filter.address = Some(value.to_vec()),
                b"LADDR" => filter.local = Some(value.to_vec()),
                b"TYPE" => filter.kind = Some(kind(value)?),
                b"USER" if value == b"default" => {}
                b"USER" => {
                    let line = format!("-ERR No such user '{}'\r\n", printable(value));
                    return Err(line.into_bytes());
                }
                b"SKIPME" if value.eq_ignore_ascii_case(b"yes") => filter.skip = Some(asker),
                b"SKIPME" if value.eq_ignore_ascii_case(b"no") => filter.skip = None,
                b"MAXAGE" => {
                    let seconds = resp::number(value).and_then(|it| u64::try_from(it).ok());
                    filter.older_than = Some(seconds.ok_or_else(|| SYNTAX.to_vec())?);
                }
                _ => return Err(SYNTAX.to_vec()),
            }
            at += 1;
        }
        Ok(filter)
    }
}

fn client_id(value: &[u8], kill: bool) -> Result<u64, Vec<u8>> {
    match resp::number(value) {
        Some(id @ 1..) => Ok(id.cast_unsigned()),
        Some(_) if !kill => Ok(0),
        _ if kill => Err(b"-ERR client-id should be greater than 0\r\n".to_vec()),
        _ => Err(b"-ERR Invalid client ID\r\n".to_vec()),
    }
}

fn kind(word: &[u8]) -> Result<Kind, Vec<u8>> {
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(Kind::Normal),
        b"pubsub" => Ok(Kind::Pubsub),
        b"master" | b"primary" | b"replica" | b"slave" => Ok(Kind::Replication),
        _ => {
            let line = format!("-ERR Unknown client type '{}'\r\n", printable(word));
            Err(line.into_bytes())
        }
    }
}

impl Worker {
    /// Asks all workers.
    pub(super) fn muster(&mut self, handle: Handle, filter: Filter, act: Act) -> Step {
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        client.gate = Gate::Full { resume_at: 0 };
        let muster = Arc::new(Muster {
            pool: usize::from(client.pool),
            sequence: client.slots.push(Slot::Waiting),
            filter,
            act,
            worker: self.number,
            client: handle,
            left: AtomicUsize::new(self.peers.len()),
            found: Mutex::default(),
        });
        let peers = self.peers.clone();
        for (_, peer) in peers.iter().enumerate().filter(|it| it.0 != self.number) {
            if !peer.ask(muster.clone()) {
                muster.left.fetch_sub(1, Ordering::AcqRel);
            }
        }
        self.answer_muster(&muster);
        Step::Taken
    }

    /// Looks through this worker's clients; or, if all workers have, gives the answer.
    pub(super) fn answer_muster(&mut self, muster: &Arc<Muster>) {
        if muster.left.load(Ordering::Acquire) == 0 {
            return self.finish_muster(muster);
        }
        let mut found = self.mustered(muster);
        if let Ok(mut all) = muster.found.lock() {
            all.append(&mut found);
        }
        if muster.left.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        if muster.worker == self.number {
            self.finish_muster(muster);
        } else {
            // The worker that asked and has ended has no client that waits.
            self.peers[muster.worker].ask(muster.clone());
        }
    }

    fn mustered(&mut self, muster: &Muster) -> Vec<Found> {
        let found: Vec<Target> = self
            .clients
            .iter()
            .filter(|(_, client)| usize::from(client.pool) == muster.pool)
            .filter(|(_, client)| self.is_meant(client, &muster.filter))
            .map(|(_, client)| Target {
                worker: self.number,
                client: client.handle,
                number: client.number,
            })
            .collect();
        let mut all = Vec::with_capacity(found.len());
        for who in found {
            let handle = who.client;
            let itself = (self.number, handle) == (muster.worker, muster.client);
            let mut line = String::new();
            match muster.act {
                Act::List => line = self.client_line(handle).unwrap_or_default(),
                Act::Kill | Act::KillAny if !itself => self.client_gone(handle),
                Act::Kill | Act::KillAny => {} // it is owed the answer
                Act::Aim(_) => self.will_be_told(handle),
            }
            all.push(Found { who, line });
        }
        all
    }

    fn is_meant(&self, client: &Client, filter: &Filter) -> bool {
        let age = self.now.nanos.saturating_sub(client.born) / (1000 * NANOS_A_MILLI);
        let ids = filter.ids.as_ref();
        let kind = if client.subscriptions.is_some() {
            Kind::Pubsub
        } else {
            Kind::Normal
        };
        let plain = filter.kind.is_none_or(|wanted| wanted == kind)
            && ids.is_none_or(|ids| ids.contains(&client.number))
            && filter.skip != Some(client.number)
            && filter.older_than.is_none_or(|least| age >= least);
        if !plain || filter.address.is_none() && filter.local.is_none() {
            return plain;
        }
        let [address, local] = self.addresses(client);
        let is = |wanted: &Option<Vec<u8>>, actual: &str| {
            wanted.as_ref().is_none_or(|it| it == actual.as_bytes())
        };
        is(&filter.address, &address) && is(&filter.local, &local)
    }

    fn finish_muster(&mut self, muster: &Muster) {
        let found = muster.found.lock();
        let mut found = std::mem::take(&mut *found.unwrap_or_else(PoisonError::into_inner));
        found.sort_unstable_by_key(|it| it.who.number);
        let Some(client) = self.client(muster.client) else {
            return;
        };
        let reply = match &muster.act {
            Act::Aim(wish) => {
                let target = found.first().map(|it| it.who);
                return self.aimed(muster.client, muster.sequence, wish, target);
            }
            Act::List => {
                let lines: String = found.iter().map(|it| it.line.as_str()).collect();
                text(client.lane.protocol, &lines)
            }
            Act::Kill => format!(":{}\r\n", found.len()).into_bytes(),
            Act::KillAny if found.is_empty() => NO_SUCH_CLIENT.to_vec(),
            Act::KillAny => OK.to_vec(),
        };
        let itself = found.iter().any(|it| it.who.number == client.number);
        client.closing |= itself && muster.act != Act::List;
        client.deliver(muster.sequence, &reply);
        self.delivered(muster.client);
    }

    /// Answers what other workers still ask, and takes no more questions.
    pub(super) fn leave_muster(&mut self) {
        for muster in self.mailbox.close() {
            self.answer_muster(&muster);
        }
    }
}
