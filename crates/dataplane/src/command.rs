//! Every command that a client may send: its arity, its keys, and what the proxy does with it.
//!
//! Owns the one table of commands ([`COMMANDS`], rows in `command/table.rs`), the search in it, and
//! the finding of keys (`command/keys.rs`); `command/families.rs` has the subcommands that
//! go to different places, `command/modules.rs` what a pool's settings add. The rules it keeps: a command that is not in the table
//! nor in the pool's settings is unknown, one that cannot be answered right across shards is refused with its reason, and keys
//! are found exactly as the server finds them, so that nothing is sent to a shard that does not own
//! it. `worker` looks commands up, `route` asks for keys, the bindings show the table to Python,
//! where `tests/compat/test_command_table.py` holds it against the real servers.

mod families;
mod keys;
mod modules;
mod table;

pub use keys::{CountErrors, KeyError, Keys};
pub use modules::ModuleCommand;
pub use table::COMMANDS;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Lower case, as in Redis's own error messages.
    pub name: &'static str,
    /// Number of arguments with the name, as Redis states it; negative: at least so many.
    pub arity: i16,
    pub keys: Keys,
    pub access: Access,
    pub repeat: Repeat,
    pub route: RouteKind,
    /// Refused unless the pool allows it by name.
    pub guarded: bool,
}

/// Whether a command may change data: writes need a lease, and one that was sent and not answered
/// is in doubt. Scripts are writes unless their name ends in `_ro`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Whether a command that was sent and not answered may be sent again: only if a second run right
/// behind the first leaves the same data (but for a time to live that starts anew) and gives the
/// same reply. So DEL, SADD and HSET are unsafe: run twice, they say that there was nothing to do.
/// Another client's write between the two runs is overwritten even by a safe one; who cannot have
/// that never repeats a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Every read, and few writes.
    Safe,
    /// Safe without options, that is with as few arguments as the command takes: SET, whose NX, GET
    /// and comparisons answer a second run otherwise than the first.
    Bare,
    Unsafe,
}

/// What the proxy does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// To the shard of its keys, which must be one: else CROSSSLOT.
    Single,
    /// The same, on a connection of the client's own if it waits there.
    Blocking(Wait),
    /// The same, and without keys to a shard chosen for good: what runs scripts.
    Script(ScriptGiven),
    /// Cut by shard, the replies merged.
    Split(Merge),
    /// To every shard as it is, the replies merged.
    Every(Merge),
    /// To any one shard: all would say the same.
    Any,
    /// To the shard of a pool that has only one; else refused, for the answers of several make no
    /// whole. The text is a clause that says why.
    Lone(&'static str),
    /// To one shard after the other: SCAN.
    Scan,
    /// By its subcommand: rows of their own, called `command|subcommand`. Without one, to any shard.
    Family(&'static [Command]),
    /// To the shards that the client has written to, the replies merged: WAIT.
    Wait(Merge),
    /// Answered by the proxy.
    Local(LocalCommand),
    /// Refused; the text is a clause that says why.
    Unsupported(&'static str),
}

/// Where a command that waits says for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Seconds, the last argument.
    Last,
    /// Seconds, the first argument.
    First,
    /// Milliseconds behind BLOCK; without that it does not wait: XREAD.
    Option,
}

/// How a request names the script that it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptGiven {
    /// By its text: EVAL.
    Whole,
    /// By the SHA-1 of that: EVALSHA.
    Digest,
    /// By the name of a function, which its server has or not: FCALL.
    Name,
}

/// How the replies of several shards become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Elements in the order of the request's keys: MGET.
    Array,
    /// Integers added up: DEL, UNLINK, TOUCH, EXISTS, DBSIZE.
    Sum,
    /// `+OK` if all are: MSET, FLUSHALL.
    Ok,
    /// The least integer: LASTSAVE, WAIT.
    Least,
    /// The elements of all, one shard's behind the other's: KEYS.
    Chain,
    /// The elements of all, equal ones once: FUNCTION LIST.
    Union,
    /// Place by place the least: SCRIPT EXISTS, where 1 is yes, and WAITAOF.
    Each,
    /// One of those that are not null, drawn: RANDOMKEY.
    Draw,
    /// What all say; that they differ is an error.
    Same,
    /// The greatest integer, or place by place the greatest: PUBSUB NUMPAT and NUMSUB.
    Most,
    /// Settings with the value that all have, or with each shard's: CONFIG GET.
    Settings,
    /// Texts, each under its shard's name: MEMORY DOCTOR.
    Texts,
    /// Entries of logs whose time is at this place, the newest first, as many as were asked for: SLOWLOG GET.
    Newest,
    /// Samples whose time comes first, the oldest first: LATENCY HISTORY.
    Oldest,
    /// Events with their newest time and their highest peak: LATENCY LATEST.
    Events,
    /// Sections of INFO, added up where that makes sense.
    Info,
}

/// A command that the proxy answers without asking a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalCommand {
    Auth,
    Client(ClientCommand),
    Discard,
    Echo,
    Exec,
    Hello,
    Multi,
    Ping,
    Quit,
    Reset,
    Select,
    Subscribe(Topic),
    Time,
    Unsubscribe(Topic),
    Unwatch,
    Watch,
}

/// A subcommand of CLIENT that the proxy answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCommand {
    Caching,
    Capa,
    GetName,
    GetRedir,
    Help,
    Id,
    Info,
    Kill,
    List,
    NoEvict,
    NoTouch,
    Reply,
    SetInfo,
    SetName,
    Tracking,
    TrackingInfo,
}

/// What a client can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Channel,
    /// All channels whose names match.
    Pattern,
    /// A channel of SSUBSCRIBE and SPUBLISH: a name for itself, and another channel than SUBSCRIBE's of that name.
    ShardChannel,
}

impl Command {
    /// Whether a replica's answer is as good as that of its master some time ago: it reads keys, and neither how they
    /// lie in the server's memory nor where a walk through one has come, which are each server's own.
    pub(crate) fn may_read_a_replica(&self) -> bool {
        let with_keys = matches!(
            self.route,
            RouteKind::Single | RouteKind::Split(_) | RouteKind::Script(_) | RouteKind::Blocking(_)
        );
        let own = matches!(self.name, "hscan" | "sscan" | "zscan" | "touch");
        self.access == Access::Read && with_keys && !own && !self.name.contains('|')
    }

    /// Whether `argc` arguments, the name included, are enough and not too many.
    pub fn arity_ok(&self, argc: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            argc >= wanted
        } else {
            argc == wanted
        }
    }

    /// The row of a subcommand of this family.
    pub fn subcommand(&self, word: &[u8]) -> Option<&'static Self> {
        let RouteKind::Family(rows) = self.route else {
            return None;
        };
        rows.iter().find(|row| {
            let own = row.name.as_bytes().get(self.name.len() + 1..);
            own.is_some_and(|own| own.eq_ignore_ascii_case(word))
        })
    }

    /// The name of its family, or its own.
    pub fn family(&self) -> &'static str {
        self.name.split('|').next().unwrap_or(self.name)
    }

    /// Whether a request of this command with `argc` arguments may be sent twice; see [`Repeat`].
    pub fn repeat_safe(&self, argc: usize) -> bool {
        match self.repeat {
            Repeat::Safe => true,
            Repeat::Bare => argc == usize::from(self.arity.unsigned_abs()),
            Repeat::Unsafe => false,
        }
    }
}

/// The command called `name` in any case; `None` if there is no such command.
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    let mut slot = slot_of(name);
    loop {
        let command = COMMANDS.get(usize::from(INDEX[slot]))?;
        if command.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(command);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// The row with this name, `command` or `command|subcommand` in small letters.
pub fn named(name: &str) -> Option<&'static Command> {
    match name.split_once('|') {
        None => lookup(name.as_bytes()).filter(|row| row.name == name),
        Some((family, word)) => lookup(family.as_bytes())?.subcommand(word.as_bytes()),
    }
}

/// Every row: the commands, and behind each family its subcommands.
pub fn rows() -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().flat_map(|command| {
        let rows = match command.route {
            RouteKind::Family(rows) => rows,
            _ => &[],
        };
        std::iter::once(command).chain(rows)
    })
}

/// Whether a request's first word shows that the peer speaks HTTP: a web page that makes a browser
/// post to the proxy. Redis closes such a connection at once, before a body can carry commands.
pub fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Four times the number of commands, so that nearly every search ends in the first slot.
const SLOTS: usize = 1024;
const EMPTY: u16 = u16::MAX;

/// Positions in [`COMMANDS`], open addressing: a name is in its own slot or in the next ones before
/// an empty one.
static INDEX: [u16; SLOTS] = {
    let mut index = [EMPTY; SLOTS];
    let mut at = 0;
    while at < COMMANDS.len() {
        let mut slot = slot_of(COMMANDS[at].name.as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = at as u16;
        at += 1;
    }
    index
};

/// A hash of the first and the last bytes and the length, the same in upper and lower case.
const fn slot_of(name: &[u8]) -> usize {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    const LOWER_CASE: u64 = 0x2020_2020_2020_2020;
    let (head, tail) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            (Some(head), Some(tail)) => (
                u32::from_le_bytes(*head) as u64,
                u32::from_le_bytes(*tail) as u64,
            ),
            _ => match *name {
                [] => (0, 0),
                [a] => (a as u64, 0),
                [a, b] => (u16::from_le_bytes([a, b]) as u64, 0),
                [a, b, c, ..] => (u32::from_le_bytes([a, b, c, 0]) as u64, 0),
            },
        },
    };
    let mixed = ((head | LOWER_CASE) ^ (tail | LOWER_CASE).rotate_left(29) ^ name.len() as u64)
        .wrapping_mul(MIX);
    (mixed >> (u64::BITS - SLOTS.trailing_zeros())) as usize
}
