//! What the proxy answers itself: the commands about the connection, not about data.

use super::Worker;
use super::dispatch::{Request, Step};
use crate::client::Gate;
use crate::command::LocalCommand;
use crate::lane::Protocol;
use crate::pool::Dialect;
use crate::reactor::Handle;
use crate::resp;
use crate::snapshot::DATABASES;

/// The level of Redis that clients are told to expect.
const REDIS_VERSION: &str = "7.0.0";
/// Longest name a client may give itself.
const LONGEST_NAME: usize = 1024;

pub(super) const OK: &[u8] = b"+OK\r\n";
const BETWEEN_WATCH_AND_EXEC: &[u8] = b"-ERR SELECT and HELLO between WATCH and EXEC are not \
supported by Shoal: the connection that watches has its database and protocol\r\n";
pub(super) const SYNTAX: &[u8] = b"-ERR syntax error\r\n";
const WRONG_PASSWORD: &[u8] = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
const TWEMPROXY_WRONG_PASSWORD: &[u8] = b"-ERR invalid password\r\n";
const TWEMPROXY_NO_PASSWORD_SET: &[u8] = b"-ERR Client sent AUTH, but no password is set\r\n";
const NO_PASSWORD_SET: &[u8] = b"-ERR AUTH <password> called without any password configured for \
the default user. Are you sure your configuration is correct?\r\n";

impl Worker {
    /// Answers a local command. Those that change how later requests are sent wait until all earlier
    /// ones are answered, so that no request overtakes another by taking a different connection.
    pub(super) fn local(
        &mut self,
        handle: Handle,
        command: LocalCommand,
        request: Request<'_>,
    ) -> Step {
        let changes_lane = matches!(
            command,
            LocalCommand::Hello | LocalCommand::Select | LocalCommand::Reset
        );
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        if changes_lane && !client.slots.is_empty() {
            client.gate = Gate::Full { resume_at: 0 };
            return Step::Kept;
        }
        if changes_lane && client.watch.is_some() && command != LocalCommand::Reset {
            return self.answer(handle, BETWEEN_WATCH_AND_EXEC);
        }
        match command {
            LocalCommand::Ping => self.ping(handle, request),
            LocalCommand::Echo => self.answer(handle, &bulk(request.arg(1))),
            LocalCommand::Hello => self.hello(handle, request),
            LocalCommand::Auth => self.auth(handle, request),
            LocalCommand::Select => self.select(handle, request),
            LocalCommand::Quit => {
                self.answer(handle, OK);
                self.end(handle)
            }
            LocalCommand::Reset => self.reset(handle),
            LocalCommand::Multi => self.multi(handle),
            LocalCommand::Exec => self.exec_without_multi(handle),
            LocalCommand::Discard => self.discard_without_multi(handle),
            LocalCommand::Watch => self.watch(handle, request),
            LocalCommand::Unwatch => {
                self.unwatch(handle);
                self.answer(handle, OK)
            }
            LocalCommand::Subscribe(topic) => self.subscribe(handle, topic, request),
            LocalCommand::Unsubscribe(topic) => self.unsubscribe(handle, topic, request),
            LocalCommand::Client(command) => self.client_command(handle, command, request),
            LocalCommand::Time => self.answer(handle, time_reply().as_bytes()),
        }
    }

    fn ping(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let subscribes = self.client(handle).is_some_and(|client| {
            client.subscriptions.is_some() && client.lane.protocol == Protocol::Resp2
        });
        match request.args.len() {
            1 if subscribes => self.pong(handle, b""),
            2 if subscribes => self.pong(handle, request.arg(1)),
            1 => self.answer(handle, b"+PONG\r\n"),
            2 => self.answer(handle, &bulk(request.arg(1))),
            _ => self.answer(
                handle,
                b"-ERR wrong number of arguments for 'ping' command\r\n",
            ),
        }
    }

    /// Takes nothing more; closes once everything is sent.
    fn end(&mut self, handle: Handle) -> Step {
        if let Some(client) = self.client(handle) {
            client.closing = true;
            let pool = usize::from(client.pool);
            self.pools[pool].counters.left.add(1);
        }
        self.touch_client(handle);
        Step::Taken
    }

    /// Whose words the client's pool answers with.
    pub(super) fn dialect(&mut self, handle: Handle) -> Dialect {
        let pool = self.client(handle).map(|client| usize::from(client.pool));
        pool.map_or(Dialect::Redis, |pool| {
            self.snapshot.pools[pool].config.dialect
        })
    }

    fn password(&mut self, handle: Handle) -> Option<String> {
        let pool = usize::from(self.client(handle)?.pool);
        self.snapshot.pools[pool].config.password.clone()
    }

    fn auth(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let (user, given) = match request.args.len() {
            2 => (&b"default"[..], request.arg(1)),
            3 => (request.arg(1), request.arg(2)),
            _ => return self.answer(handle, SYNTAX),
        };
        let twemproxy = self.dialect(handle) == Dialect::Twemproxy;
        let reply = match self.password(handle) {
            None if request.args.len() == 2 && twemproxy => TWEMPROXY_NO_PASSWORD_SET,
            None if request.args.len() == 2 => NO_PASSWORD_SET,
            None if user == b"default" => OK,
            Some(password) if user == b"default" && same(password.as_bytes(), given) => OK,
            _ if twemproxy => TWEMPROXY_WRONG_PASSWORD,
            _ => WRONG_PASSWORD,
        };
        if let Some(client) = self.client(handle) {
            // A wrong password takes the right one back at Twemproxy, and not at Redis.
            let kept = client.authenticated && reply != TWEMPROXY_WRONG_PASSWORD;
            client.authenticated = reply == OK || kept;
        }
        self.answer(handle, reply)
    }

    fn hello(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        let mut protocol = client.lane.protocol;
        let mut authenticated = client.authenticated;
        let mut name = None;
        let mut at = 2;
        if request.args.len() > 1 {
            protocol = match resp::number(request.arg(1)) {
                Some(2) => Protocol::Resp2,
                Some(3) => Protocol::Resp3,
                Some(_) => {
                    return self.answer(handle, b"-NOPROTO unsupported protocol version\r\n");
                }
                None => {
                    let reply = b"-ERR Protocol version is not an integer or out of range\r\n";
                    return self.answer(handle, reply);
                }
            };
        }
        while at < request.args.len() {
            let option = request.arg(at).to_ascii_uppercase();
            match (option.as_slice(), request.args.len() - at) {
                (b"AUTH", 3..) => {
                    let right = match self.password(handle) {
                        Some(password) => same(password.as_bytes(), request.arg(at + 2)),
                        None => true,
                    };
                    if !right || request.arg(at + 1) != b"default" {
                        return self.answer(handle, WRONG_PASSWORD);
                    }
                    authenticated = true;
                    at += 3;
                }
                (b"SETNAME", 2..) => {
                    let given = request.arg(at + 1);
                    if !is_name(given) {
                        return self.answer(handle, BAD_NAME);
                    }
                    name = Some(given);
                    at += 2;
                }
                _ => {
                    let line = format!(
                        "-ERR Syntax error in HELLO option '{}'\r\n",
                        String::from_utf8_lossy(request.arg(at)).replace(['\r', '\n'], " ")
                    );
                    return self.answer(handle, line.as_bytes());
                }
            }
        }
        if !authenticated {
            return self.answer(
                handle,
                b"-NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
                select the RESP protocol version at the same time\r\n",
            );
        }
        let Some(client) = self.client(handle) else {
            return Step::Taken;
        };
        client.authenticated = true;
        client.lane.protocol = protocol;
        if let Some(name) = name {
            client.name = Some(name.into());
        }
        let id = self.client_number(handle);
        self.answer(handle, hello_reply(protocol, id).as_bytes())
    }

    fn select(&mut self, handle: Handle, request: Request<'_>) -> Step {
        let Some(index) = resp::number(request.arg(1)) else {
            return self.answer(handle, b"-ERR value is not an integer or out of range\r\n");
        };
        let database = u16::try_from(index).ok().filter(|&at| at < DATABASES);
        let Some(database) = database else {
            return self.answer(handle, b"-ERR DB index is out of range\r\n");
        };
        if let Some(client) = self.client(handle) {
            client.lane.database = database;
        }
        self.answer(handle, OK)
    }

    fn reset(&mut self, handle: Handle) -> Step {
        self.end_transaction(handle);
        self.unsubscribe_all(handle);
        self.stop_tracking(handle);
        let needs_password = self.password(handle).is_some();
        if let Some(client) = self.client(handle) {
            client.unmute();
            client.name = None;
            client.authenticated = !needs_password;
        }
        if let Some(client) = self.clients.get_mut(handle.index as usize) {
            let config = &self.snapshot.pools[usize::from(client.pool)].config;
            client.lane = config.lane(client.number);
        }
        self.answer(handle, b"+RESET\r\n")
    }

    /// A number that no other client of this process has or will have.
    fn client_number(&mut self, handle: Handle) -> u64 {
        self.client(handle).map_or(0, |client| client.number)
    }
}

pub(super) const BAD_NAME: &[u8] =
    b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n";

pub(super) fn is_name(name: &[u8]) -> bool {
    name.len() <= LONGEST_NAME && name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

pub(super) fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut reply = format!("${}\r\n", bytes.len()).into_bytes();
    reply.extend_from_slice(bytes);
    reply.extend_from_slice(b"\r\n");
    reply
}

fn hello_reply(protocol: Protocol, id: u64) -> String {
    let (head, version) = match protocol {
        Protocol::Resp2 => ("*14", 2),
        Protocol::Resp3 => ("%7", 3),
    };
    let length = REDIS_VERSION.len();
    format!(
        "{head}\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n${length}\r\n{REDIS_VERSION}\r\n\
         $5\r\nproto\r\n:{version}\r\n$2\r\nid\r\n:{id}\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n\
         $4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
    )
}

/// The proxy's own clock: the servers' clocks are several.
fn time_reply() -> String {
    let micros = super::wall_micros();
    let (seconds, rest) = (
        (micros / 1_000_000).to_string(),
        (micros % 1_000_000).to_string(),
    );
    format!(
        "*2\r\n${}\r\n{seconds}\r\n${}\r\n{rest}\r\n",
        seconds.len(),
        rest.len()
    )
}

/// Compares without telling by the time it takes where the difference is.
fn same(secret: &[u8], given: &[u8]) -> bool {
    let differences = secret
        .iter()
        .zip(given.iter().chain(std::iter::repeat(&0)))
        .fold(0_u8, |sum, (a, b)| sum | (a ^ b));
    differences == 0 && secret.len() == given.len()
}
