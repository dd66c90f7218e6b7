//! Sends each request where its keys belong, or answers why not.

use std::fmt::Write as _;

use rustix::io::Errno;

use super::Worker;
use super::hold::Room;
use super::losses::strerror;
use crate::buffer::reusable;
use crate::coalesce::Split;
use crate::command::{self, Access, Command, KeyError, LocalCommand, RouteKind};
use crate::inflight::{Owner, Slot, WHOLE};
use crate::pool::Dialect;
use crate::reactor::Handle;
use crate::resp::Span;
use crate::route::{self, Plan, Target, argument};

/// Bytes of an unknown command's name, and of its arguments, that its error repeats, as in Redis.
const ECHO_LIMIT: usize = 128;

const NOAUTH_EXEC: &[u8] =
    b"-EXECABORT Transaction discarded because of: NOAUTH Authentication required.\r\n";

/// What became of a request that was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It was sent or answered.
    Taken,
    /// It stays where it is, and the client's gate says why.
    Kept,
}

/// A whole request.
#[derive(Clone, Copy)]
pub(super) struct Request<'f> {
    pub(super) frame: &'f [u8],
    pub(super) args: &'f [Span],
}

impl<'f> Request<'f> {
    pub(super) fn arg(&self, at: usize) -> &'f [u8] {
        argument(self.frame, self.args, at)
    }

    /// The same with another argument at one place.
    pub(super) fn with_argument(&self, place: usize, bytes: &[u8]) -> Vec<u8> {
        let mut frame = format!("*{}\r\n", self.args.len()).into_bytes();
        for at in 0..self.args.len() {
            let argument = if at == place { bytes } else { self.arg(at) };
            route::write_argument(&mut frame, argument);
        }
        frame
    }
}

impl Worker {
    /// Sends, answers or keeps one whole request.
    pub(super) fn dispatch(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let found = self.clients.get_mut(handle.index as usize);
        let Some(client) = found.filter(|client| client.handle == handle) else {
            return Step::Taken;
        };
        if client.transaction.is_some() {
            return self.dispatch_queued(handle, request);
        }
        let authenticated = client.authenticated;
        let pool = usize::from(client.pool);
        let command = self.snapshot.pools[pool].config.command(request.arg(0));
        client.last = command;
        if client.subscriptions.is_some() {
            let protocol = client.lane.protocol;
            if let Some(line) = self.refused_to_subscriber(pool, protocol, request) {
                return self.answer(handle, line.as_bytes());
            }
        }
        let Some(command) = command else {
            if command::is_http(request.arg(0)) {
                return self.close_http(handle);
            }
            if !authenticated {
                return self.refuse_unauthenticated(handle);
            }
            return self.answer(handle, &unknown_command(request));
        };
        if let RouteKind::Local(local) = command.route {
            if !authenticated && !allowed_before_auth(local) {
                if local == LocalCommand::Exec && self.dialect(handle) == Dialect::Redis {
                    return self.answer(handle, NOAUTH_EXEC);
                }
                return self.refuse_unauthenticated(handle);
            }
            if !command.arity_ok(request.args.len()) {
                return self.answer(handle, &wrong_arity(command));
            }
            return match self.denial(pool, command) {
                Some(line) if authenticated => self.answer(handle, line.as_bytes()),
                _ => self.local(handle, local, request),
            };
        }
        if !authenticated {
            return self.refuse_unauthenticated(handle);
        }
        if !command.arity_ok(request.args.len()) {
            return self.answer(handle, &wrong_arity(command));
        }
        if command.route == RouteKind::Single && self.snapshot.pools[pool].config.deny.is_empty() {
            return self.dispatch_single(handle, pool, command, request);
        }
        self.dispatch_listed(handle, pool, command, request)
    }

    /// A request of a command that a pool may refuse, or whose subcommand decides where it goes.
    fn dispatch_listed(
        &mut self,
        handle: Handle,
        pool: usize,
        command: &'static Command,
        request: Request<'_>,
    ) -> Step {
        let member = match self.resolve(pool, command, request) {
            Ok(member) => member,
            Err(line) => {
                self.forget_blocking(handle);
                return self.answer(handle, &line);
            }
        };
        if let Some(client) = self.client(handle) {
            client.last = Some(member);
        }
        match member.route {
            RouteKind::Unsupported(why) => self.answer(handle, &unsupported(member, why)),
            RouteKind::Every(merge) => self.dispatch_every(handle, pool, member, merge, request),
            RouteKind::Any | RouteKind::Family(_) => {
                self.dispatch_any(handle, pool, member, request)
            }
            RouteKind::Lone(why) => self.dispatch_lone(handle, pool, member, why, request),
            RouteKind::Scan => self.dispatch_scan(handle, pool, member, request),
            RouteKind::Wait(merge) => self.dispatch_wait(handle, pool, merge, request),
            RouteKind::Blocking(wait) => {
                self.dispatch_blocking(handle, pool, member, wait, request)
            }
            RouteKind::Local(local) => self.local(handle, local, request),
            RouteKind::Single | RouteKind::Script(_) | RouteKind::Split(_) => {
                self.dispatch_single(handle, pool, member, request)
            }
        }
    }

    /// A request that goes where its keys belong.
    pub(super) fn dispatch_single(
        &mut self,
        handle: Handle,
        pool: usize,
        command: &'static Command,
        request: Request<'_>,
    ) -> Step {
        if let Some(at) = command.first_key() {
            return match self.pools[pool].router.shard_of(request.arg(at)) {
                Some(shard) => self.forward(handle, shard, command, request.frame),
                None => self.cannot_forward(handle, &strerror(Errno::CONNREFUSED)),
            };
        }
        self.dispatch_keys(handle, pool, command, request)
    }

    /// A request whose keys must be looked for.
    fn dispatch_keys(
        &mut self,
        handle: Handle,
        pool: usize,
        command: &'static Command,
        request: Request<'_>,
    ) -> Step {
        let mut keys = std::mem::take(&mut self.keys);
        let Request { frame, args } = request;
        let target = route::target(&self.pools[pool].router, command, frame, args, &mut keys);
        let target = match target {
            Ok(Target::NoKey) => {
                let shard = self.pools[pool].router.any();
                Ok(shard.map_or(Target::NoShard, Target::Shard))
            }
            target => target,
        };
        let step = match target {
            Ok(Target::Shard(shard)) => match command.route {
                RouteKind::Script(given) => {
                    self.forward_script(handle, shard, command, given, request)
                }
                _ => self.forward(handle, shard, command, frame),
            },
            Ok(Target::Split(plan)) => self.forward_split(handle, command, request, &keys, &plan),
            other => self.misses(handle, command, request, &other),
        };
        self.keys = reusable(keys);
        step
    }

    /// The shard that all keys of a request are on; if there is none, that has been answered.
    pub(super) fn only_shard(
        &mut self,
        handle: Handle,
        pool: usize,
        command: &'static Command,
        request: Request<'_>,
    ) -> Result<usize, Step> {
        let mut keys = std::mem::take(&mut self.keys);
        let Request { frame, args } = request;
        let target = route::target(&self.pools[pool].router, command, frame, args, &mut keys);
        self.keys = keys;
        match target {
            Ok(Target::Shard(shard)) => Ok(shard),
            other => Err(self.misses(handle, command, request, &other)),
        }
    }

    /// Answers a request that has no target.
    fn misses(
        &mut self,
        handle: Handle,
        command: &Command,
        request: Request<'_>,
        target: &Result<Target, KeyError>,
    ) -> Step {
        let line = match target {
            Ok(Target::Crosses(pair)) => self.crosses(command, request, *pair),
            Ok(_) => return self.cannot_forward(handle, &strerror(Errno::CONNREFUSED)),
            Err(error) => format!("-ERR {error}\r\n"),
        };
        self.answer(handle, line.as_bytes())
    }

    /// Sends a request to one shard, or keeps it while the shard cannot take it.
    pub(super) fn forward(
        &mut self,
        handle: Handle,
        shard: usize,
        command: &Command,
        frame: &[u8],
    ) -> Step {
        if let Some(replica) = self.replica_for(handle, shard, command) {
            return self.read_at(handle, shard, replica, frame);
        }
        self.forward_whole(handle, shard, command.access, frame, 1)
    }

    /// [`Worker::forward`] for what has so many replies, the last of them for the client.
    pub(super) fn forward_whole(
        &mut self,
        handle: Handle,
        shard: usize,
        access: Access,
        frame: &[u8],
        replies: u32,
    ) -> Step {
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        if client.waits_for_reads(access) {
            return Step::Kept;
        }
        let lane = client.lane;
        let to = match self.takes(shard, lane, access) {
            Room::Ready(backend) if !self.is_behind(handle, shard) => backend,
            Room::Never(reason) => return self.cannot_forward(handle, &reason),
            Room::Failed(reason) => {
                self.count_request(shard, frame.len());
                return self.cannot_forward(handle, &reason);
            }
            _ => return self.park(handle, shard, frame.len()),
        };
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let owner = Owner::Client {
            client: handle,
            sequence: client.slots.push(Slot::Waiting),
            part: WHOLE,
        };
        client.note_writes(access, &[shard]);
        self.send(to, owner, access, frame);
        if replies > 1
            && let Some(backend) = self.backend(to)
        {
            backend.note_replies(replies);
        }
        Step::Taken
    }

    /// Sends the parts of a request to their shards, once all of them can take theirs.
    fn forward_split(
        &mut self,
        handle: Handle,
        command: &Command,
        request: Request<'_>,
        keys: &[u32],
        plan: &Plan,
    ) -> Step {
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        if client.waits_for_reads(command.access) {
            return Step::Kept;
        }
        let lane = client.lane;
        let mut backends = Vec::with_capacity(plan.shards.len());
        let mut elsewhere = false;
        for &shard in &plan.shards {
            if let Some(replica) = self.replica_for(handle, shard, command) {
                elsewhere = true;
                self.shards[shard].counters.replica_reads.add(1);
                backends.push(replica);
                continue;
            }
            match self.takes(shard, lane, command.access) {
                Room::Ready(backend) if !self.is_behind(handle, shard) => backends.push(backend),
                Room::Never(reason) | Room::Failed(reason) => {
                    return self.cannot_forward(handle, &reason);
                }
                _ => return self.park(handle, shard, request.frame.len()),
            }
        }
        let split = Split::new(plan.merge, &plan.shards, plan.order.clone());
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let pool = usize::from(client.pool);
        let sequence = client.slots.push(Slot::Split(Box::new(split)));
        client.note_writes(command.access, &plan.shards);
        if elsewhere {
            client.read_elsewhere = Some(sequence);
        }
        self.pools[pool]
            .counters
            .fragments
            .add(plan.shards.len() as u64);
        let mut fragment = Vec::new();
        for (part, &backend) in (0_u16..).zip(&backends) {
            fragment.clear();
            let Request { frame, args } = request;
            route::write_fragment(&mut fragment, frame, args, keys, plan, part);
            let owner = Owner::Client {
                client: handle,
                sequence,
                part,
            };
            self.send(backend, owner, command.access, &fragment);
        }
        Step::Taken
    }

    /// Appends a request to a backend that is ready.
    pub(super) fn send(&mut self, handle: Handle, owner: Owner, access: Access, frame: &[u8]) {
        let millis = self.now.millis;
        let Some(backend) = self.backend(handle) else {
            return;
        };
        backend.push(owner, access, frame, millis);
        let shard = backend.shard;
        self.count_request(shard, frame.len());
        self.touch_backend(handle);
    }

    /// A request was sent to a server, or has waited for its connection.
    fn count_request(&self, shard: usize, bytes: usize) {
        let counters = &self.shards[shard].counters;
        counters.requests.add(1);
        counters.request_bytes.add(bytes as u64);
    }

    /// Closes the connection of a peer that speaks HTTP.
    pub(super) fn close_http(&mut self, handle: Handle) -> Step {
        if let Some(client) = self.client(handle) {
            let pool = usize::from(client.pool);
            self.pools[pool].counters.protocol_errors.add(1);
            self.close_client(handle);
        }
        Step::Taken
    }

    fn refuse_unauthenticated(&mut self, handle: Handle) -> Step {
        match self.dialect(handle) {
            Dialect::Redis => self.answer(handle, b"-NOAUTH Authentication required.\r\n"),
            Dialect::Twemproxy => self.answer(handle, b"-NOAUTH Authentication required\r\n"),
        }
    }

    /// Answers a request from here.
    pub(super) fn answer(&mut self, handle: Handle, reply: &[u8]) -> Step {
        if let Some(client) = self.client(handle) {
            client.answer(reply);
            self.touch_client(handle);
        }
        Step::Taken
    }

    /// Answers a request that no server can take.
    pub(super) fn cannot_forward(&mut self, handle: Handle, reason: &str) -> Step {
        if let Some(client) = self.client(handle) {
            let pool = usize::from(client.pool);
            self.pools[pool].counters.errors.add(1);
        }
        self.answer(handle, format!("-ERR {reason}\r\n").as_bytes())
    }

    pub(super) fn crosses(
        &self,
        command: &Command,
        request: Request<'_>,
        [(first, a), (other, b)]: [(u32, usize); 2],
    ) -> String {
        format!(
            "-CROSSSLOT keys of '{}' are on different shards: '{}' on \"{}\", '{}' on \"{}\"\r\n",
            command.name,
            printable(request.arg(first as usize)),
            self.snapshot.shard_name(a),
            printable(request.arg(other as usize)),
            self.snapshot.shard_name(b),
        )
    }
}

fn allowed_before_auth(command: LocalCommand) -> bool {
    matches!(
        command,
        LocalCommand::Auth | LocalCommand::Hello | LocalCommand::Quit | LocalCommand::Reset
    )
}

pub(super) fn wrong_arity(command: &Command) -> Vec<u8> {
    let line = format!(
        "wrong number of arguments for '{}' command\r\n",
        command.name
    );
    (refusal_code(command).to_owned() + &line).into_bytes()
}

/// What a refusal begins with. An EXEC that is refused discards its transaction, and says so even where there is none.
pub(super) fn refusal_code(command: &Command) -> &'static str {
    match command.route {
        RouteKind::Local(LocalCommand::Exec) => "-EXECABORT Transaction discarded because of: ",
        _ => "-ERR ",
    }
}

pub(super) fn unsupported(command: &Command, why: &str) -> Vec<u8> {
    format!(
        "-ERR '{}' is not supported by Shoal: {why}\r\n",
        command.name
    )
    .into_bytes()
}

/// As Redis words it.
pub(super) fn unknown_subcommand(family: &Command, request: Request<'_>) -> Vec<u8> {
    format!(
        "-ERR unknown subcommand '{}'. Try {} HELP.\r\n",
        printable(request.arg(1)),
        family.name.to_uppercase()
    )
    .into_bytes()
}

pub(super) fn unknown_command(request: Request<'_>) -> Vec<u8> {
    let mut line = format!(
        "-ERR unknown command '{}', with args beginning with: ",
        printable(request.arg(0))
    );
    let mut left = ECHO_LIMIT;
    for at in 1..request.args.len() {
        if left == 0 {
            break;
        }
        let bytes = request.arg(at);
        let shown = &bytes[..bytes.len().min(left)];
        let _ = write!(line, "'{}' ", printable(shown));
        left = left.saturating_sub(shown.len() + "'' ".len());
    }
    line.push_str("\r\n");
    line.into_bytes()
}

/// Bytes of a client as they may stand in an error line: short, and without control characters.
pub(super) fn printable(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(ECHO_LIMIT)];
    String::from_utf8_lossy(shown)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
