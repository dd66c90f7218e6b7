//! CLIENT: what a client says of itself, and what it asks about the clients of its pool.
//!
//! The rule it keeps: a client sees and ends the clients of its own pool, of all workers, and no others; what would be
//! about a connection to a server is refused, because clients share those. `muster` asks the other workers.

use std::fmt::Write as _;
use std::os::fd::AsRawFd;

use super::Worker;
use super::dispatch::{Request, Step};
use super::local::{BAD_NAME, OK, SYNTAX, bulk, is_name};
use super::muster::{Act, Filter};
use crate::client::{Client, Gate, Muted};
use crate::command::{ClientCommand, Topic};
use crate::endpoint::Endpoint;
use crate::lane::Protocol;
use crate::reactor::Handle;
use crate::snapshot::NANOS_A_MILLI;
use crate::socket;
use crate::tracking::Tracking;

const SHARED: &[u8] = b"-ERR clients share a connection to the shard: not supported by Shoal\r\n";
const NANOS_A_SECOND: u64 = 1000 * NANOS_A_MILLI;

const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CACHING (YES|NO)",
    "    Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
    "CAPA <option> [options...]",
    "    The client claims capabilities; none of them changes anything here.",
    "GETREDIR",
    "    Return the client ID we are redirecting to when tracking is enabled.",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection, unique in this proxy.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections of this pool. Options are:",
    "    * ID <client-id> [<client-id>...]",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "    * USER <username>",
    "    * SKIPME (YES|NO)",
    "    * MAXAGE <seconds>",
    "LIST [options ...]",
    "    Return information about the client connections of this pool. Options are those of KILL.",
    "NO-EVICT OFF",
    "NO-TOUCH OFF",
    "    ON is refused: clients share connections to the servers.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "SETINFO (LIB-NAME|LIB-VER) <value>",
    "    Say which client library this is.",
    "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
    "         [OPTIN] [OPTOUT]",
    "    Be told when keys change; NOLOOP is refused: clients share connections to the servers.",
    "TRACKINGINFO",
    "    Report tracking status for the current connection.",
    "HELP",
    "    Print this help.",
];

impl Worker {
    pub(super) fn client_command(
        &mut self,
        handle: Handle,
        command: ClientCommand,
        request: Request<'_>,
    ) -> Step {
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let protocol = client.lane.protocol;
        let reply = match command {
            ClientCommand::Caching => self.caching(handle, request.arg(2)).to_vec(),
            ClientCommand::Capa => OK.to_vec(),
            ClientCommand::GetName => match (&client.name, protocol) {
                (Some(name), _) => bulk(name),
                (None, Protocol::Resp2) => b"$-1\r\n".to_vec(),
                (None, Protocol::Resp3) => b"_\r\n".to_vec(),
            },
            ClientCommand::GetRedir => format!(":{}\r\n", redirects_to(client)).into_bytes(),
            ClientCommand::Help => help(),
            ClientCommand::Id => format!(":{}\r\n", client.number).into_bytes(),
            ClientCommand::Info => {
                let line = self.client_line(handle).unwrap_or_default();
                text(protocol, &line)
            }
            ClientCommand::List => return self.list_clients(handle, request),
            ClientCommand::Kill => return self.kill_clients(handle, request),
            ClientCommand::NoEvict | ClientCommand::NoTouch => {
                match request.arg(2).to_ascii_uppercase().as_slice() {
                    b"OFF" => OK.to_vec(),
                    b"ON" => SHARED.to_vec(),
                    _ => SYNTAX.to_vec(),
                }
            }
            ClientCommand::Reply => return self.reply_mode(handle, request),
            ClientCommand::SetInfo => set_info(client, request),
            ClientCommand::SetName => set_name(client, request.arg(2)).to_vec(),
            ClientCommand::Tracking => return self.tracking(handle, request),
            ClientCommand::TrackingInfo => match &client.tracking {
                Some(tracking) => tracking.info(protocol),
                None => Tracking::default().info(protocol),
            },
        };
        self.answer(handle, &reply)
    }

    /// Leaves replies out, or sends them again, once everything before has been answered.
    fn reply_mode(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let once = match request.arg(2).to_ascii_uppercase().as_slice() {
            b"ON" => None,
            b"OFF" => Some(false),
            b"SKIP" => Some(true),
            _ => return self.answer(handle, SYNTAX),
        };
        if !client.slots.is_empty() {
            client.gate = Gate::Full { resume_at: 0 };
            return Step::Kept;
        }
        let Some(once) = once else {
            client.unmute();
            return self.answer(handle, OK);
        };
        let keep = client.output.len();
        let muted = client.muted.get_or_insert(Muted { keep, once });
        muted.once &= once;
        client.gate = client.gate_again();
        Step::Taken
    }

    fn list_clients(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let number = self.client(handle).map_or(0, |client| client.number);
        match Filter::parse(request, number, false) {
            Ok(filter) => self.muster(handle, filter, Act::List),
            Err(line) => self.answer(handle, &line),
        }
    }

    fn kill_clients(&mut self, handle: Handle, request: Request<'_>) -> Step {
        if request.args.len() == 3 {
            let filter = Filter::from_address(request.arg(2));
            return self.muster(handle, filter, Act::KillAny);
        }
        let number = self.client(handle).map_or(0, |client| client.number);
        match Filter::parse(request, number, true) {
            Ok(filter) => self.muster(handle, filter, Act::Kill),
            Err(line) => self.answer(handle, &line),
        }
    }

    /// A client as CLIENT LIST shows it, in Redis's own words.
    pub(super) fn client_line(&self, handle: Handle) -> Option<String> {
        let client = self.clients.get(handle.index as usize)?;
        let [address, local] = self.addresses(client);
        let seconds = |since: u64| self.now.nanos.saturating_sub(since) / NANOS_A_SECOND;
        let transaction = client.transaction.as_ref();
        let queued = transaction.map_or(-1, |it| i64::from(it.queued()));
        let queued_bytes = transaction.map_or(0, |it| it.len());
        let (input, output) = (client.input.len(), client.output.len());
        let name = |name: &Option<Box<[u8]>>| {
            name.as_ref().map_or_else(String::new, |name| {
                String::from_utf8_lossy(name).into_owned()
            })
        };
        let subscriptions = client.subscriptions.as_ref();
        let names = |topic| subscriptions.map_or(0, |it| it.names_of(topic));
        let subscribed = format!(
            "sub={} psub={} ssub={}",
            names(Topic::Channel),
            names(Topic::Pattern),
            names(Topic::ShardChannel)
        );
        Some(format!(
            "id={} addr={address} laddr={local} fd={} name={} age={} idle={} flags={} db={} {subscribed} \
             multi={queued} qbuf={input} qbuf-free={} argv-mem=0 multi-mem={queued_bytes} rbs=0 rbp=0 obl={output} \
             oll={} omem={output} tot-mem={} events={} cmd={} user=default redir={} resp={} lib-name={} lib-ver={}\n",
            client.number,
            client.socket.as_raw_fd(),
            name(&client.name),
            seconds(client.born),
            seconds(client.active),
            self.flags(client),
            client.lane.database,
            client.input.spare_len(),
            client.slots.len(),
            size_of::<Client>() + input + output + queued_bytes,
            if output > 0 { "rw" } else { "r" },
            client.last.map_or("NULL", |command| command.name),
            redirects_to(client),
            match client.lane.protocol {
                Protocol::Resp2 => 2,
                Protocol::Resp3 => 3,
            },
            name(&client.library.name),
            name(&client.library.version),
        ))
    }

    /// `b`: it waits at a server, or is held as one that does.
    fn flags(&self, client: &Client) -> String {
        let unix = matches!(self.listens_at(client), Some(Endpoint::Unix(_)));
        let tracking = client.tracking.as_ref();
        let all = [
            (client.transaction.is_some(), 'x'),
            (client.is_held() || client.blocks(), 'b'),
            (client.subscriptions.is_some(), 'P'),
            (tracking.is_some_and(|it| it.mode.is_some()), 't'),
            (tracking.is_some_and(|it| it.broken), 'R'),
            (tracking.is_some_and(|it| it.is_broadcast()), 'B'),
            (client.closing, 'c'),
            (unix, 'U'),
        ];
        let flags: String = all.iter().filter(|it| it.0).map(|it| it.1).collect();
        if flags.is_empty() {
            "N".to_owned()
        } else {
            flags
        }
    }

    fn listens_at(&self, client: &Client) -> Option<Endpoint> {
        let pool = &self.snapshot.pools[usize::from(client.pool)];
        pool.config.endpoint().ok()
    }

    /// Where it is connected from and to.
    pub(super) fn addresses(&self, client: &Client) -> [String; 2] {
        match self.listens_at(client) {
            Some(Endpoint::Unix(path)) => {
                let path = format!("{}:0", path.display());
                [path.clone(), path]
            }
            _ => socket::both_ends(&client.socket),
        }
    }
}

fn set_name(client: &mut Client, name: &[u8]) -> &'static [u8] {
    if !is_name(name) {
        return BAD_NAME;
    }
    client.name = (!name.is_empty()).then(|| name.into());
    OK
}

fn set_info(client: &mut Client, request: Request<'_>) -> Vec<u8> {
    let attribute = String::from_utf8_lossy(request.arg(2)).to_ascii_lowercase();
    let value = request.arg(3);
    let place = match attribute.as_str() {
        "lib-name" => &mut client.library.name,
        "lib-ver" => &mut client.library.version,
        _ => {
            let shown = super::dispatch::printable(request.arg(2));
            return format!("-ERR Unrecognized option '{shown}'\r\n").into_bytes();
        }
    };
    if !is_name(value) {
        let what = "cannot contain spaces, newlines or special characters.";
        return format!("-ERR {attribute} {what}\r\n").into_bytes();
    }
    *place = (!value.is_empty()).then(|| value.into());
    OK.to_vec()
}

/// The number of the client that is told in its place; 0 if it is told itself, -1 if it does not track.
fn redirects_to(client: &Client) -> i64 {
    client.tracking.as_ref().map_or(-1, |it| it.redirects_to())
}

/// A text for people: with RESP3 that is a type of its own.
pub(super) fn text(protocol: Protocol, text: &str) -> Vec<u8> {
    match protocol {
        Protocol::Resp2 => bulk(text.as_bytes()),
        Protocol::Resp3 => format!("={}\r\ntxt:{text}\r\n", text.len() + 4).into_bytes(),
    }
}

fn help() -> Vec<u8> {
    let mut reply = format!("*{}\r\n", HELP.len());
    for line in HELP {
        let _ = write!(reply, "+{line}\r\n");
    }
    reply.into_bytes()
}
