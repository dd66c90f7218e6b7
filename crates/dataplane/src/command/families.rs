//! The commands whose subcommands go to different places: a row for each subcommand, called `command|subcommand`.
//!
//! Owns those rows; `table` names them in the rows of the commands. The rule it keeps: every subcommand of the
//! servers here has a row, and one that is not here is unknown. Arities are laxest where servers differ.

use super::table::{
    ADMIN, ONE_SERVER, any, every, guarded, local, lone, range, read, refused, write,
};
use super::{ClientCommand, Command, Keys, LocalCommand, Merge};

const UNBLOCKS: &str =
    "no other connection can end what waits; ending the client with CLIENT KILL does";

/// Behind the subcommand.
const SECOND: Keys = range(2, 2, 1);

const NO_WHOLE: &str = "the answers of several shards make no whole: ask one server";
const RUNNING: &str = "it stops what one server runs: connect to that server";
const PAUSES: &str =
    "clients are not paused on demand: a switchover holds their requests by itself";
const DEBUGS: &str = "it needs a connection of its own to one server";

/// Clients share connections, so all are the one user that Shoal is to the servers.
pub(super) static ACL: &[Command] = &[
    any(sub("acl|cat", -2)),
    refused(sub("acl|deluser", -3), ADMIN),
    refused(sub("acl|dryrun", -4), ADMIN),
    any(sub("acl|genpass", -2)),
    refused(sub("acl|getuser", 3), ADMIN),
    any(sub("acl|help", 2)),
    refused(sub("acl|list", 2), ADMIN),
    refused(sub("acl|load", 2), ADMIN),
    refused(sub("acl|log", -2), ADMIN),
    refused(sub("acl|save", 2), ADMIN),
    refused(sub("acl|setuser", -3), ADMIN),
    refused(sub("acl|users", 2), ADMIN),
    any(sub("acl|whoami", 2)),
];

/// About connections of clients to the proxy; those to the servers are shared.
pub(super) static CLIENT: &[Command] = &[
    client("client|caching", 3, ClientCommand::Caching),
    client("client|capa", -3, ClientCommand::Capa),
    client("client|getname", 2, ClientCommand::GetName),
    client("client|getredir", 2, ClientCommand::GetRedir),
    client("client|help", 2, ClientCommand::Help),
    client("client|id", 2, ClientCommand::Id),
    refused(sub("client|import-source", 3), ADMIN),
    client("client|info", 2, ClientCommand::Info),
    client("client|kill", -3, ClientCommand::Kill),
    client("client|list", -2, ClientCommand::List),
    client("client|no-evict", 3, ClientCommand::NoEvict),
    client("client|no-touch", 3, ClientCommand::NoTouch),
    refused(sub("client|pause", -3), PAUSES),
    client("client|reply", 3, ClientCommand::Reply),
    client("client|setinfo", 4, ClientCommand::SetInfo),
    client("client|setname", 3, ClientCommand::SetName),
    client("client|tracking", -3, ClientCommand::Tracking),
    client("client|trackinginfo", 2, ClientCommand::TrackingInfo),
    refused(sub("client|unblock", -3), UNBLOCKS),
    refused(sub("client|unpause", 2), PAUSES),
];

pub(super) static COMMAND: &[Command] = &[
    any(sub("command|count", 2)),
    any(sub("command|docs", -2)),
    any(sub("command|getkeys", -3)),
    any(sub("command|getkeysandflags", -3)),
    any(sub("command|help", 2)),
    any(sub("command|info", -2)),
    any(sub("command|list", -2)),
];

pub(super) static COMMANDLOG: &[Command] = &[
    every(sub("commandlog|get", 4), Merge::Newest),
    any(sub("commandlog|help", 2)),
    every(sub("commandlog|len", 3), Merge::Sum),
    every(sub("commandlog|reset", 3), Merge::Ok),
];

pub(super) static CONFIG: &[Command] = &[
    every(sub("config|get", -3), Merge::Settings),
    any(sub("config|help", 2)),
    every(sub("config|resetstat", 2), Merge::Ok),
    guarded(every(sub("config|rewrite", 2), Merge::Ok)),
    guarded(every(change("config|set", -4), Merge::Ok)),
];

pub(super) static FUNCTION: &[Command] = &[
    every(change("function|delete", 3), Merge::Ok),
    lone(sub("function|dump", 2), NO_WHOLE),
    every(change("function|flush", -2), Merge::Ok),
    any(sub("function|help", 2)),
    refused(sub("function|kill", 2), RUNNING),
    every(sub("function|list", -2), Merge::Union),
    every(change("function|load", -3), Merge::Same),
    every(change("function|restore", -3), Merge::Ok),
    every(sub("function|stats", 2), Merge::Same),
];

pub(super) static LATENCY: &[Command] = &[
    every(sub("latency|doctor", 2), Merge::Texts),
    lone(sub("latency|graph", 3), NO_WHOLE),
    any(sub("latency|help", 2)),
    lone(sub("latency|histogram", -2), NO_WHOLE),
    every(sub("latency|history", 3), Merge::Oldest),
    every(sub("latency|latest", 2), Merge::Events),
    every(sub("latency|reset", -2), Merge::Sum),
];

pub(super) static MEMORY: &[Command] = &[
    every(sub("memory|doctor", 2), Merge::Texts),
    any(sub("memory|help", 2)),
    every(sub("memory|malloc-stats", 2), Merge::Texts),
    every(sub("memory|purge", 2), Merge::Ok),
    lone(sub("memory|stats", 2), NO_WHOLE),
    read("memory|usage", -3, SECOND),
];

pub(super) static MODULE: &[Command] = &[
    any(sub("module|help", 2)),
    every(sub("module|list", 2), Merge::Union),
    refused(sub("module|load", -3), ADMIN),
    refused(sub("module|loadex", -3), ADMIN),
    refused(sub("module|unload", 3), ADMIN),
];

pub(super) static OBJECT: &[Command] = &[
    read("object|encoding", 3, SECOND),
    read("object|freq", 3, SECOND),
    any(sub("object|help", 2)),
    read("object|idletime", 3, SECOND),
    read("object|refcount", 3, SECOND),
];

/// A channel has its subscribers on one shard, and so has one count that is not 0; what is subscribed to everywhere
/// has the same count on each.
pub(super) static PUBSUB: &[Command] = &[
    every(sub("pubsub|channels", -2), Merge::Union),
    any(sub("pubsub|help", 2)),
    every(sub("pubsub|numpat", 2), Merge::Most),
    every(sub("pubsub|numsub", -2), Merge::Most),
    every(sub("pubsub|shardchannels", -2), Merge::Union),
    every(sub("pubsub|shardnumsub", -2), Merge::Most),
];

/// Scripts are no data: a server that restarts or is promoted has none, and clients load them again.
pub(super) static SCRIPT: &[Command] = &[
    refused(sub("script|debug", -3), DEBUGS),
    every(sub("script|exists", -3), Merge::Each),
    every(sub("script|flush", -2), Merge::Ok),
    any(sub("script|help", 2)),
    refused(sub("script|kill", 2), RUNNING),
    every(sub("script|load", 3), Merge::Same),
    lone(sub("script|show", 3), ONE_SERVER),
];

pub(super) static SLOWLOG: &[Command] = &[
    every(sub("slowlog|get", -2), Merge::Newest),
    any(sub("slowlog|help", 2)),
    every(sub("slowlog|len", 2), Merge::Sum),
    every(sub("slowlog|reset", 2), Merge::Ok),
];

pub(super) static XGROUP: &[Command] = &[
    write("xgroup|create", -5, SECOND),
    write("xgroup|createconsumer", 5, SECOND),
    write("xgroup|delconsumer", 5, SECOND),
    write("xgroup|destroy", 4, SECOND),
    any(sub("xgroup|help", 2)),
    write("xgroup|setid", -5, SECOND),
];

pub(super) static XINFO: &[Command] = &[
    read("xinfo|consumers", 4, SECOND),
    read("xinfo|groups", 3, SECOND),
    any(sub("xinfo|help", 2)),
    read("xinfo|stream", -3, SECOND),
];

const fn sub(name: &'static str, arity: i16) -> Command {
    read(name, arity, Keys::None)
}

const fn client(name: &'static str, arity: i16, command: ClientCommand) -> Command {
    local(name, arity, LocalCommand::Client(command))
}

/// A subcommand that changes what the servers keep.
const fn change(name: &'static str, arity: i16) -> Command {
    write(name, arity, Keys::None)
}
