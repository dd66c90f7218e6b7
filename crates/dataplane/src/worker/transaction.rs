//! MULTI, EXEC and DISCARD: what is said to each request between them, and what EXEC is answered.
//!
//! The proxy judges each request when it is queued, as a server does: what it refuses then aborts the
//! transaction. Keys of two shards are among that. What the proxy cannot see (a subcommand that does
//! not exist, a full memory) the server finds out at EXEC; it then executes nothing, and EXEC says why.
//! A transaction that is refused because its server is no master that serves was not executed either:
//! it is held like any request. Called by `dispatch`, `local` and `replies`.

use std::borrow::Cow;
use std::sync::Arc;

use rustix::io::Errno;

use super::Worker;
use super::dispatch::{self, Request, Step};
use super::losses::strerror;
use super::refusals::is_refusal;
use crate::buffer::reusable;
use crate::client::Gate;
use crate::command::{self, Access, Command, KeyError, Keys, LocalCommand, RouteKind};
use crate::reactor::Handle;
use crate::resp::{self, ReplyScan, ReplyStatus};
use crate::route::{self, Target};
use crate::transaction::{Transaction, each_request};

const OK: &[u8] = b"+OK\r\n";
const QUEUED: &[u8] = b"+QUEUED\r\n";
const EXEC_WITHOUT_MULTI: &[u8] = b"-ERR EXEC without MULTI\r\n";
const DISCARD_WITHOUT_MULTI: &[u8] = b"-ERR DISCARD without MULTI\r\n";
const NESTED: &[u8] = b"-ERR MULTI calls can not be nested\r\n";
const WATCH_INSIDE: &[u8] = b"-ERR WATCH inside MULTI is not allowed\r\n";
const ABORTED: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
const RING_CHANGED: &[u8] = b"-EXECABORT Transaction discarded because of: the ring changed, and \
its keys are not on one shard any more\r\n";

/// What has no key and any shard answers alike: it goes with the transaction.
const WITHOUT_KEY: [&str; 4] = ["echo", "ping", "time", "unwatch"];

/// Keys that are not all on one shard any more.
struct Scattered;

impl Worker {
    pub(super) fn multi(&mut self, handle: Handle) -> Step {
        if let Some(client) = self.clients.get_mut(handle.index as usize) {
            let router = self.pools[usize::from(client.pool)].router.clone();
            let mut transaction = Transaction::new(router);
            transaction.shard = client.watch.as_ref().map(|watch| watch.shard);
            client.transaction = Some(Box::new(transaction));
        }
        self.answer(handle, OK)
    }

    pub(super) fn exec_without_multi(&mut self, handle: Handle) -> Step {
        self.answer(handle, EXEC_WITHOUT_MULTI)
    }

    pub(super) fn discard_without_multi(&mut self, handle: Handle) -> Step {
        self.answer(handle, DISCARD_WITHOUT_MULTI)
    }

    /// Queues, answers or refuses a request of a client that is in MULTI.
    pub(super) fn dispatch_queued(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let Some(pool) = self.client(handle).map(|client| usize::from(client.pool)) else {
            return Step::Taken;
        };
        let config = &self.snapshot.pools[pool].config;
        let Some(command) = config.command(request.arg(0)) else {
            if command::is_http(request.arg(0)) {
                return self.close_http(handle);
            }
            return self.abort(handle, &dispatch::unknown_command(request));
        };
        if !command.arity_ok(request.args.len()) {
            let step = self.abort(handle, &dispatch::wrong_arity(command));
            if command.route == RouteKind::Local(LocalCommand::Exec) {
                self.end_transaction(handle);
            }
            return step;
        }
        if WITHOUT_KEY.contains(&command.name) {
            return self.queue(handle, command, request);
        }
        let command = match self.resolve(pool, command, request) {
            Ok(row) => row,
            Err(line) => return self.abort(handle, &line),
        };
        match command.route {
            RouteKind::Local(local) => self.queue_local(handle, command, local, request),
            RouteKind::Unsupported(why) => self.abort(handle, &dispatch::unsupported(command, why)),
            RouteKind::Script(given) => {
                self.note_queued(handle, pool, given, request);
                self.queue_keys(handle, command, request)
            }
            RouteKind::Single | RouteKind::Split(_) | RouteKind::Blocking(_) => {
                self.queue_keys(handle, command, request)
            }
            RouteKind::Every(_) | RouteKind::Any | RouteKind::Family(_) | RouteKind::Lone(_)
                if self.snapshot.pools[pool].shards.len() == 1 =>
            {
                self.note_script_command(pool, command, request);
                self.queue(handle, command, request)
            }
            RouteKind::Wait(_) => {
                let why = "inside MULTI no server waits";
                self.abort(handle, &dispatch::unsupported(command, why))
            }
            RouteKind::Scan => {
                let why = "inside MULTI its cursor would be one server's own";
                self.abort(handle, &dispatch::unsupported(command, why))
            }
            _ => {
                let why = "inside MULTI it would concern other shards than the transaction's";
                self.abort(handle, &dispatch::unsupported(command, why))
            }
        }
    }

    fn queue_local(
        &mut self,
        handle: Handle,
        command: &Command,
        local: LocalCommand,
        request: Request<'_>,
    ) -> Step {
        match local {
            LocalCommand::Exec => self.exec(handle),
            LocalCommand::Discard => {
                self.end_transaction(handle);
                self.answer(handle, OK)
            }
            LocalCommand::Multi => self.answer(handle, NESTED),
            LocalCommand::Watch => self.answer(handle, WATCH_INSIDE),
            LocalCommand::Quit | LocalCommand::Reset => self.local(handle, local, request),
            LocalCommand::Subscribe(_) | LocalCommand::Unsubscribe(_) => {
                let why = "inside MULTI its messages would come on another connection than the transaction's";
                self.abort(handle, &dispatch::unsupported(command, why))
            }
            _ => {
                let why = "inside MULTI it would be about a connection that clients share";
                self.abort(handle, &dispatch::unsupported(command, why))
            }
        }
    }

    /// A request with keys: they must be where those before are.
    fn queue_keys(
        &mut self,
        handle: Handle,
        command: &'static Command,
        request: Request<'_>,
    ) -> Step {
        if self.follow_ring(handle).is_err() {
            return self.abort(handle, b"-CROSSSLOT the ring changed since MULTI\r\n");
        }
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let home = client.transaction.as_ref().and_then(|it| it.shard);
        let pool = usize::from(client.pool);
        let mut keys = std::mem::take(&mut self.keys);
        let Request { frame, args } = request;
        let target = route::target(&self.pools[pool].router, command, frame, args, &mut keys);
        let refusal = match target {
            Ok(Target::Shard(shard)) if home.is_none_or(|home| home == shard) => {
                self.settle_on(handle, shard);
                None
            }
            Ok(Target::Shard(shard)) => {
                let key = request.arg(keys[0] as usize);
                Some(self.leaves_home(command, key, [home.unwrap_or(shard), shard]))
            }
            Ok(Target::Split(plan)) => {
                let other = plan.order.iter().position(|&part| part != 0).unwrap_or(0);
                let pair = [(keys[0], plan.shards[0]), (keys[other], plan.shards[1])];
                Some(self.crosses(command, request, pair))
            }
            Ok(Target::Crosses(pair)) => Some(self.crosses(command, request, pair)),
            Ok(Target::NoShard) => Some(format!("-ERR {}\r\n", strerror(Errno::CONNREFUSED))),
            Ok(Target::NoKey) => None,
            // The server will refuse it at EXEC, and the rest of the transaction is executed.
            Err(error) if is_certain(command, error) => None,
            Err(error) => Some(format!("-ERR {error}\r\n")),
        };
        self.keys = reusable(keys);
        match refusal {
            Some(line) => self.abort(handle, line.as_bytes()),
            None => self.queue(handle, command, request),
        }
    }

    fn settle_on(&mut self, handle: Handle, shard: usize) {
        if let Some(client) = self.client(handle)
            && let Some(transaction) = &mut client.transaction
        {
            transaction.shard = Some(shard);
        }
    }

    fn leaves_home(&self, command: &Command, key: &[u8], [home, other]: [usize; 2]) -> String {
        format!(
            "-CROSSSLOT keys of a transaction are on different shards: '{}' of '{}' on \"{}\", those \
             before on \"{}\"\r\n",
            dispatch::printable(key),
            command.name,
            self.snapshot.shard_name(other),
            self.snapshot.shard_name(home),
        )
    }

    fn queue(&mut self, handle: Handle, command: &Command, request: Request<'_>) -> Step {
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let Some(transaction) = &mut client.transaction else {
            return Step::Taken;
        };
        match transaction.queue(request.frame, command.access) {
            Ok(()) => self.answer(handle, QUEUED),
            Err(line) => self.abort(handle, line.as_bytes()),
        }
    }

    /// Refuses a request, and with it the transaction.
    fn abort(&mut self, handle: Handle, reply: &[u8]) -> Step {
        if let Some(client) = self.client(handle)
            && let Some(transaction) = &mut client.transaction
        {
            transaction.abort();
        }
        self.answer(handle, reply)
    }

    /// The client is not in MULTI any more; what it had queued, and what it watched, is forgotten.
    pub(super) fn end_transaction(&mut self, handle: Handle) {
        self.unwatch(handle);
        if let Some(client) = self.client(handle) {
            client.transaction = None;
        }
    }

    /// Sends the transaction, or keeps EXEC, and the transaction with it, while its shard cannot take it.
    fn exec(&mut self, handle: Handle) -> Step {
        let scattered = self.follow_ring(handle).is_err();
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let pool = usize::from(client.pool);
        let watches = client.watch.is_some();
        if watches && !client.slots.is_empty() {
            client.gate = Gate::Full { resume_at: 0 };
            return Step::Kept;
        }
        let Some(mut transaction) = client.transaction.take() else {
            return Step::Taken;
        };
        if transaction.is_aborted() || scattered {
            self.unwatch(handle);
            let aborted = transaction.is_aborted();
            return self.answer(handle, if aborted { ABORTED } else { RING_CHANGED });
        }
        if transaction.names_scripts {
            self.equip(handle, pool, &mut transaction);
        }
        if watches {
            return self.exec_watched(handle, transaction);
        }
        if transaction.is_empty() {
            return self.answer(handle, b"*0\r\n");
        }
        let Some(shard) = transaction.shard.or_else(|| self.pools[pool].router.any()) else {
            return self.cannot_forward(handle, &strerror(Errno::CONNREFUSED));
        };
        let (access, replies) = (transaction.access, transaction.replies());
        let step = self.forward_whole(handle, shard, access, transaction.whole(), replies);
        if step == Step::Kept
            && let Some(client) = self.client(handle)
        {
            client.transaction = Some(transaction);
        }
        step
    }

    /// Looks again where a transaction's keys are if the ring is not the one that said so.
    fn follow_ring(&mut self, handle: Handle) -> Result<(), Scattered> {
        let Some(client) = self.clients.get_mut(handle.index as usize) else {
            return Ok(());
        };
        let router = &self.pools[usize::from(client.pool)].router;
        let config = &self.snapshot.pools[usize::from(client.pool)].config;
        let Some(transaction) = &mut client.transaction else {
            return Ok(());
        };
        if Arc::ptr_eq(router, &transaction.router) {
            return Ok(());
        }
        let mut shards = Vec::new();
        let mut keys = Vec::new();
        let mut unknown = false;
        transaction.for_each(|frame, args| {
            let command = config.command(route::argument(frame, args, 0));
            unknown |= command.is_none(); // the settings say no more where its keys are
            if let Some(command) = command
                && command.key_positions(frame, args, &mut keys).is_ok()
            {
                let key = |&at: &u32| route::argument(frame, args, at as usize);
                shards.extend(keys.iter().filter_map(|at| router.shard_of(key(at))));
                shards.dedup();
            }
        });
        if shards.len() > 1 || unknown {
            return Err(Scattered);
        }
        transaction.shard = shards.first().copied();
        transaction.router = router.clone();
        Ok(())
    }
}

/// Every server refuses a request for this: without its keys in place it is none of the command's forms.
/// What it refuses in a list of options may be one that a newer server knows.
fn is_certain(command: &Command, error: KeyError) -> bool {
    matches!(command.keys, Keys::Range { .. } | Keys::Count { .. })
        && !matches!(error, KeyError::Refused(..))
}

/// What the replies to a transaction come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict<'r> {
    /// What EXEC is answered.
    pub(crate) answer: Cow<'r, [u8]>,
    /// Nothing was executed, because the server is no master that serves.
    pub(super) refused: bool,
}

/// Judges the `count` replies to MULTI, to each queued request and to EXEC; `sent` is what they answer.
pub(crate) fn judge<'r>(sent: &[u8], count: u32, replies: &'r [u8]) -> Verdict<'r> {
    let mut rest = replies;
    let multi = next_reply(&mut rest);
    let mut error: Option<&[u8]> = None;
    let (mut refused, mut executed) = (false, false);
    for _ in 2..count {
        if let Some(behind) = rest.strip_prefix(QUEUED) {
            rest = behind;
            continue;
        }
        let reply = next_reply(&mut rest);
        if reply.starts_with(b"-") {
            error = error.or(Some(reply));
            refused |= is_refusal(reply);
        } else {
            executed = true;
        }
    }
    let exec = rest;
    if multi != OK {
        return without_multi(multi, executed);
    }
    let (answer, refused) = match exec[0] {
        b'-' if exec.starts_with(b"-EXECABORT") => (
            error.map_or(exec.into(), |line| aborted_by(line).into()),
            refused || is_refusal(&[b"-", cause_of(exec)].concat()),
        ),
        b'-' => (exec.into(), is_refusal(exec)),
        b'*' => (exec.into(), denied(sent, exec)),
        _ => (exec.into(), false),
    };
    Verdict { answer, refused }
}

/// A server that does not take MULTI takes what follows as single requests.
fn without_multi(multi: &[u8], executed: bool) -> Verdict<'_> {
    if !executed {
        return Verdict {
            answer: multi.into(),
            refused: multi.starts_with(b"-") && is_refusal(multi),
        };
    }
    // It may be any reply, of many lines: what is made of it is one.
    let said = dispatch::printable(multi.trim_ascii_end());
    let line = format!(
        "-INDOUBT the server refused MULTI ({}): what was queued may have been executed one by one\r\n",
        said.trim_start_matches('-')
    );
    Verdict {
        answer: line.into_bytes().into(),
        refused: false,
    }
}

/// Why EXEC itself was refused, as its answer says.
fn cause_of(exec: &[u8]) -> &[u8] {
    const OF: &[u8] = b"discarded because of: ";
    memchr::memmem::find(exec, OF).map_or(&[], |at| &exec[at + OF.len()..])
}

/// The answer of an EXEC that a queued request's error aborted: the client was told that it is queued,
/// so this is where it learns of the error.
fn aborted_by(error: &[u8]) -> Vec<u8> {
    let cause = error.strip_prefix(b"-ERR ").unwrap_or(&error[1..]);
    [b"-EXECABORT Transaction discarded because of: ", cause].concat()
}

/// The answers to scripts say that the server takes no writes, and no other write succeeded: a script
/// is queued by any server, and finds out when it is executed.
fn denied(sent: &[u8], exec: &[u8]) -> bool {
    let mut rest = memchr::memchr(b'\n', exec).map_or(&[][..], |end| &exec[end + 1..]);
    let (mut refused, mut wrote) = (false, false);
    if memchr::memmem::find(rest, b"\n-").is_none() && !rest.starts_with(b"-") {
        return false;
    }
    each_request(sent, |frame, args| {
        let reply = next_reply(&mut rest);
        let error = reply.starts_with(b"-");
        refused |= error && is_refusal(reply);
        let command = command::lookup(route::argument(frame, args, 0));
        // What the table lacks is a module's command: it may have written.
        wrote |= !error && command.is_none_or(|command| command.access == Access::Write);
    });
    refused && !wrote
}

/// Takes the reply at the front of `rest`, which is known to be whole.
fn next_reply<'r>(rest: &mut &'r [u8]) -> &'r [u8] {
    let len = match resp::scan_reply(rest, &mut ReplyScan::default()) {
        Ok(ReplyStatus::Complete { len }) => len,
        _ => rest.len(),
    };
    let (reply, behind) = rest.split_at(len);
    *rest = behind;
    reply
}

#[cfg(test)]
mod tests {
    use super::judge;

    /// What is sent, and what it is answered by.
    const SET: &str = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\n1\r\n";
    const GET: &str = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
    const EVAL: &str = "*4\r\n$4\r\nEVAL\r\n$1\r\nx\r\n$1\r\n1\r\n$1\r\nk\r\n";
    const PREVIOUS: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    const READONLY: &str = "-READONLY You can't write against a read only replica.\r\n";

    fn verdict(requests: &[&str], replies: &[&str]) -> Result<String, ()> {
        let sent = format!(
            "*1\r\n$5\r\nMULTI\r\n{}*1\r\n$4\r\nEXEC\r\n",
            requests.concat()
        );
        let count = requests.len() as u32 + 2;
        let replies = replies.concat();
        let verdict = judge(sent.as_bytes(), count, replies.as_bytes());
        if verdict.refused {
            return Err(());
        }
        Ok(String::from_utf8(verdict.answer.into_owned()).expect("text"))
    }

    #[test]
    fn the_answer_of_exec_is_the_answer() {
        let replies = [
            "+OK\r\n",
            "+QUEUED\r\n",
            "+QUEUED\r\n",
            "*2\r\n+OK\r\n$1\r\n1\r\n",
        ];
        let answer = verdict(&[SET, GET], &replies);
        assert_eq!(answer, Ok("*2\r\n+OK\r\n$1\r\n1\r\n".to_owned()));
        let answer = verdict(&[SET], &["+OK\r\n", "+QUEUED\r\n", "*-1\r\n"]);
        assert_eq!(answer, Ok("*-1\r\n".to_owned()));
    }

    #[test]
    fn an_error_that_the_client_has_not_seen_is_told_at_exec() {
        let oom = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        let answer = verdict(&[GET, SET], &["+OK\r\n", "+QUEUED\r\n", oom, PREVIOUS]);
        let told = "-EXECABORT Transaction discarded because of: OOM command not allowed when used \
                    memory > 'maxmemory'.\r\n";
        assert_eq!(answer, Ok(told.to_owned()));
    }

    #[test]
    fn a_transaction_that_a_replica_refuses_was_not_executed() {
        let replies = ["+OK\r\n", "+QUEUED\r\n", READONLY, PREVIOUS];
        assert_eq!(verdict(&[GET, SET], &replies), Err(()));
        let late = "-EXECABORT Transaction discarded because of: READONLY You can't write against a \
                    read only replica.\r\n";
        assert_eq!(verdict(&[SET], &["+OK\r\n", "+QUEUED\r\n", late]), Err(()));
        let loading = "-LOADING Redis is loading the dataset in memory\r\n";
        assert_eq!(verdict(&[GET], &["+OK\r\n", loading, PREVIOUS]), Err(()));
    }

    #[test]
    fn a_script_that_a_replica_refuses_wrote_nothing() {
        let answers = format!("*2\r\n$1\r\n1\r\n{READONLY}");
        let replies = ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", &answers];
        assert_eq!(verdict(&[GET, EVAL], &replies), Err(()));
        let answers = format!("*2\r\n+OK\r\n{READONLY}");
        let replies = ["+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", &answers];
        assert_eq!(
            verdict(&[SET, EVAL], &replies),
            Ok(answers.clone()),
            "it made the words up"
        );
    }

    #[test]
    fn a_server_without_multi_has_executed_what_followed() {
        let no = "-NOPERM this user has no permissions to run the 'multi' command\r\n";
        let none = "-ERR EXEC without MULTI\r\n";
        let answer = verdict(&[SET], &[no, "+OK\r\n", none]);
        assert!(
            answer.is_ok_and(|line| line.starts_with("-INDOUBT the server refused MULTI (NOPERM"))
        );
        assert_eq!(verdict(&[SET], &[no, no, no]), Ok(no.to_owned()));
    }
}
