//! Commands that concern every shard of a pool, or any one of them, and what a pool lets its clients ask for.
//!
//! The rules it keeps: a request goes out only when all its shards can take it, so that a write is done on all or on
//! none as far as that is known beforehand; a pool's shards are those of its configuration, an ejected one included,
//! so that nothing is answered for a part as if it were the whole; a pool with one shard answers as that server does.

use std::fmt::Write as _;

use super::Worker;
use super::dispatch::{Request, Step, unknown_subcommand, wrong_arity};
use super::hold::Room;
use crate::coalesce::{Given, Split};
use crate::command::{Access, Command, Merge, RouteKind};
use crate::inflight::{Owner, Slot};
use crate::reactor::Handle;
use crate::resp;
use crate::stats::{PoolTotals, ShardTotals};

/// Entries of a slow log that are given to who does not say how many.
const LOG_ENTRIES: usize = 10;
/// What asks for the proxy's section of INFO, besides nothing.
const WITH_OWN_SECTION: [&[u8]; 4] = [b"shoal", b"default", b"all", b"everything"];

impl Worker {
    /// The row that a request is treated by, which is its subcommand's where there is one; or the error that it gets
    /// before it is looked at any further.
    pub(super) fn resolve(
        &self,
        pool: usize,
        command: &'static Command,
        request: Request<'_>,
    ) -> Result<&'static Command, Vec<u8>> {
        if let Some(line) = self.denial(pool, command) {
            return Err(line.into_bytes());
        }
        let is_family = matches!(command.route, RouteKind::Family(_));
        if !is_family || request.args.len() < 2 {
            return Ok(command);
        }
        let row = command.subcommand(request.arg(1));
        let row = row.ok_or_else(|| unknown_subcommand(command, request))?;
        if let Some(line) = self.denial(pool, row) {
            return Err(line.into_bytes());
        }
        if row.arity_ok(request.args.len()) {
            Ok(row)
        } else {
            Err(wrong_arity(row))
        }
    }

    /// Why this pool refuses a command that Shoal serves; `None` if it does not.
    pub(super) fn denial(&self, pool: usize, command: &Command) -> Option<String> {
        let config = &self.snapshot.pools[pool].config;
        let listed = |list: &[String]| {
            let mut names = list.iter();
            !list.is_empty() && names.any(|name| name == command.name || name == command.family())
        };
        let name = command.name;
        if listed(&config.deny) {
            Some(format!(
                "-ERR '{name}' is denied by this pool's settings\r\n"
            ))
        } else if command.guarded && !listed(&config.allow) {
            let written = name.replace('|', " ");
            Some(format!(
                "-ERR '{name}' is refused unless the pool allows it: set commands: {{allow: [\"{written}\"]}}\r\n"
            ))
        } else {
            None
        }
    }

    /// A request that the shard of a pool with only one can answer.
    pub(super) fn dispatch_lone(
        &mut self,
        handle: Handle,
        pool: usize,
        command: &'static Command,
        why: &str,
        request: Request<'_>,
    ) -> Step {
        if let [shard] = *self.snapshot.pools[pool].shards {
            return self.forward(handle, shard, command, request.frame);
        }
        let line = format!(
            "-ERR '{}' is not supported by Shoal for a pool of several shards: {why}\r\n",
            command.name
        );
        self.answer(handle, line.as_bytes())
    }

    /// A request that all shards answer alike: to the first that can take it now.
    pub(super) fn dispatch_any(
        &mut self,
        handle: Handle,
        pool: usize,
        command: &'static Command,
        request: Request<'_>,
    ) -> Step {
        let snapshot = self.snapshot.clone();
        let shards = &snapshot.pools[pool].shards;
        let Some(lane) = self.client(handle).map(|client| client.lane) else {
            return Step::Taken;
        };
        let ready = shards.iter().copied().find(|&shard| {
            matches!(self.takes(shard, lane, command.access), Room::Ready(_))
                && !self.is_behind(handle, shard)
        });
        self.forward(handle, ready.unwrap_or(shards[0]), command, request.frame)
    }

    /// Sends a request to every shard of the pool, once all of them can take it.
    pub(super) fn dispatch_every(
        &mut self,
        handle: Handle,
        pool: usize,
        command: &'static Command,
        merge: Merge,
        request: Request<'_>,
    ) -> Step {
        self.note_script_command(pool, command, request);
        let given = match merge {
            Merge::Info => Given::Section(self.own_section(pool, request)),
            Merge::Newest => Given::AtMost(log_entries(request)),
            Merge::Draw => Given::Draw(self.now.nanos / 1000),
            _ => Given::Nothing,
        };
        if let (Merge::Info, Given::Section(own)) = (merge, &given)
            && request.args.len() == 2
            && request.arg(1).eq_ignore_ascii_case(b"shoal")
        {
            let reply = format!("${}\r\n{own}\r\n", own.len());
            return self.answer(handle, reply.as_bytes());
        }
        let snapshot = self.snapshot.clone();
        let shards = &snapshot.pools[pool].shards;
        if let ([shard], false) = (&**shards, merge == Merge::Info) {
            return self.forward(handle, *shard, command, request.frame);
        }
        let backends = match self.room_on_all(handle, shards, command.access, request.frame.len()) {
            Ok(backends) => backends,
            Err(step) => return step,
        };
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let split = Split::every(merge, shards, given);
        let sequence = client.slots.push(Slot::Split(Box::new(split)));
        client.note_writes(command.access, shards);
        let fragments = &self.pools[pool].counters.fragments;
        fragments.add(shards.len() as u64);
        for (part, &backend) in (0_u16..).zip(&backends) {
            let owner = Owner::Client {
                client: handle,
                sequence,
                part,
            };
            self.send(backend, owner, command.access, request.frame);
        }
        Step::Taken
    }

    /// The connections to all these shards, if each can take a request now.
    fn room_on_all(
        &mut self,
        handle: Handle,
        shards: &[usize],
        access: Access,
        bytes: usize,
    ) -> Result<Vec<Handle>, Step> {
        let Some(client) = self.client(handle) else {
            return Err(Step::Taken);
        };
        if client.waits_for_reads(access) {
            return Err(Step::Kept);
        }
        let lane = client.lane;
        let mut backends = Vec::with_capacity(shards.len());
        for &shard in shards {
            match self.takes(shard, lane, access) {
                Room::Ready(backend) if !self.is_behind(handle, shard) => backends.push(backend),
                Room::Never(reason) | Room::Failed(reason) => {
                    let name = self.snapshot.shard_name(shard);
                    let why = format!("shard \"{name}\": {reason}");
                    return Err(self.cannot_forward(handle, &why));
                }
                _ => return Err(self.park(handle, shard, bytes)),
            }
        }
        Ok(backends)
    }

    /// What INFO says of the proxy itself, in lines that tools read as they read a server's.
    fn own_section(&self, pool: usize, request: Request<'_>) -> String {
        let mut sections = (1..request.args.len()).map(|at| request.arg(at));
        let wanted = request.args.len() == 1
            || sections.any(|section| {
                WITH_OWN_SECTION
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(section))
            });
        if !wanted {
            return String::new();
        }
        let pool = &self.snapshot.pools[pool];
        let mut clients = PoolTotals::default();
        for counters in &pool.face.counters {
            counters.add_to(&mut clients);
        }
        let mut all = ShardTotals::default();
        let mut lines = String::new();
        for (number, &shard) in pool.shards.iter().enumerate() {
            let route = &self.snapshot.routes[shard];
            let mut one = ShardTotals::default();
            for counters in &route.face.counters {
                counters.add_to(&mut one);
                counters.add_to(&mut all);
            }
            let endpoint = route
                .endpoint
                .as_ref()
                .map_or_else(String::new, ToString::to_string);
            let _ = write!(
                lines,
                "shard{number}:name={},endpoint={},state={},requests={},held={}\r\n",
                plain(&route.face.name),
                plain(&endpoint),
                if one.serving == self.workers as u64 {
                    "serving"
                } else {
                    "holding"
                },
                one.requests,
                one.held_requests,
            );
        }
        format!(
            "# Shoal\r\nshoal_version:{}\r\nshoal_process_id:{}\r\nshoal_workers:{}\r\nshoal_epoch:{}\r\n\
             shoal_pool:{}\r\nshoal_clients:{}\r\nshoal_connections_received:{}\r\n\
             shoal_connections_rejected:{}\r\nshoal_requests:{}\r\nshoal_requests_in_doubt:{}\r\n\
             shoal_requests_held:{}\r\nshoal_shards:{}\r\n{lines}",
            env!("CARGO_PKG_VERSION"),
            std::process::id(),
            self.workers,
            self.snapshot.epoch,
            plain(&pool.config.name),
            clients.clients,
            clients.accepted,
            clients.refused,
            all.requests,
            all.indoubt,
            all.held_requests,
            pool.shards.len(),
        )
    }
}

/// A name as it may stand in a line of INFO: parsers split at these characters.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_control() || ",=".contains(c) {
                '_'
            } else {
                c
            }
        })
        .collect()
}

/// How many entries a request for a log asks for.
fn log_entries(request: Request<'_>) -> usize {
    if request.args.len() < 3 {
        return LOG_ENTRIES;
    }
    match resp::number(request.arg(2)) {
        Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
        None => LOG_ENTRIES,
    }
}
