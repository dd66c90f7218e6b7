//! The table of commands.

use super::{Access, Command, Keys, LocalCommand, Merge, Repeat, RouteKind};

const ONE: Keys = Keys::Range {
    first: 1,
    last: 1,
    step: 1,
};
const ALL: Keys = Keys::Range {
    first: 1,
    last: -1,
    step: 1,
};
const PAIRS: Keys = Keys::Range {
    first: 1,
    last: -1,
    step: 2,
};

const fn read(name: &'static str, arity: i16, keys: Keys, route: RouteKind) -> Command {
    Command {
        name,
        arity,
        keys,
        access: Access::Read,
        repeat: Repeat::Safe,
        route,
    }
}

const fn write(
    name: &'static str,
    arity: i16,
    keys: Keys,
    repeat: Repeat,
    route: RouteKind,
) -> Command {
    Command {
        name,
        arity,
        keys,
        access: Access::Write,
        repeat,
        route,
    }
}

const fn local(name: &'static str, arity: i16, command: LocalCommand) -> Command {
    Command {
        name,
        arity,
        keys: Keys::None,
        access: Access::Read,
        repeat: Repeat::Safe,
        route: RouteKind::Local(command),
    }
}

/// All commands, sorted by name.
pub static COMMANDS: &[Command] = &[
    local("auth", -2, LocalCommand::Auth),
    local("client", -2, LocalCommand::ClientCmd),
    local("command", -1, LocalCommand::Command),
    write("del", -2, ALL, Repeat::Unsafe, RouteKind::Split(Merge::Sum)),
    local("echo", 2, LocalCommand::Echo),
    read("exists", -2, ALL, RouteKind::Split(Merge::Sum)),
    read("get", 2, ONE, RouteKind::Single),
    local("hello", -1, LocalCommand::Hello),
    write("incr", 2, ONE, Repeat::Unsafe, RouteKind::Single),
    read("mget", -2, ALL, RouteKind::Split(Merge::Array)),
    write("mset", -3, PAIRS, Repeat::Safe, RouteKind::Split(Merge::Ok)),
    local("ping", -1, LocalCommand::Ping),
    local("quit", -1, LocalCommand::Quit),
    local("reset", 1, LocalCommand::Reset),
    local("select", 2, LocalCommand::Select),
    write("set", -3, ONE, Repeat::Safe, RouteKind::Single),
];
