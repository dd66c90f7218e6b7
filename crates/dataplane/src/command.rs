//! Every command that a client may send: how its keys are found and what the proxy does with it.

mod table;

pub use table::COMMANDS;

use crate::resp::Span;

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    /// Lower case, as in Redis's own error messages.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least so many.
    pub arity: i16,
    pub keys: Keys,
    pub access: Access,
    pub repeat: Repeat,
    pub route: RouteKind,
}

/// Where a command's keys are; positions count the name as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    None,
    /// From `first` to `last` (negative: from the end, -1 is the last argument), every `step`-th.
    Range {
        first: i16,
        last: i16,
        step: i16,
    },
    /// The number of keys stands at `at`, the keys behind it; `also` is one more key (a destination).
    Count {
        at: u16,
        also: Option<u16>,
    },
    /// The first half of what follows STREAMS.
    Streams,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Whether a command that was sent and not answered may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    Safe,
    Unsafe,
}

/// What the proxy does with a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteKind {
    /// To the shard of its keys, which must be one: else CROSSSLOT.
    Single,
    /// Split by shard, the replies merged.
    Split(Merge),
    /// Answered by the proxy.
    Local(LocalCommand),
    /// Refused; the text says why.
    Unsupported(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Elements in the order of the request's keys: MGET.
    Array,
    /// Integers added up: DEL, UNLINK, TOUCH, EXISTS.
    Sum,
    /// `+OK` if all are: MSET.
    Ok,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalCommand {
    Ping,
    Echo,
    Hello,
    Auth,
    Select,
    Quit,
    ClientCmd,
    Command,
    Reset,
    ReadOnly,
    ReadWrite,
}

/// Why the keys of a request cannot be found. `Display` is what Redis says after `-ERR `.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("value is not an integer or out of range")]
    NotAnInteger,
    #[error("numkeys should be greater than 0")]
    NoKeys,
    #[error("syntax error")]
    Syntax,
    #[error("{0}")]
    Refused(&'static str),
}

/// The command called `name` in any case, or `None`.
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    COMMANDS
        .iter()
        .find(|c| c.name.as_bytes().eq_ignore_ascii_case(name))
}

impl Command {
    /// Whether `argc` arguments, the name included, are enough and not too many.
    pub fn arity_ok(&self, argc: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            argc >= wanted
        } else {
            argc == wanted
        }
    }

    /// The position of the only key of a command that has exactly one, at a fixed place; the fast path.
    pub fn first_key(&self) -> Option<usize> {
        match self.keys {
            Keys::Range { first, last, .. } if first == last => usize::try_from(first).ok(),
            _ => None,
        }
    }

    /// Puts into `out` which of `args` (spans in `buf`, the name first) are keys, in their order.
    pub fn key_positions(
        &self,
        buf: &[u8],
        args: &[Span],
        out: &mut Vec<u32>,
    ) -> Result<(), KeyError> {
        out.clear();
        let _ = buf;
        if let Keys::Range { first, last, step } = self.keys {
            let argc = args.len() as i64;
            let last = if last < 0 {
                argc + i64::from(last)
            } else {
                i64::from(last)
            };
            let mut at = i64::from(first);
            while at <= last {
                out.push(at as u32);
                at += i64::from(step);
            }
        }
        Ok(())
    }
}
