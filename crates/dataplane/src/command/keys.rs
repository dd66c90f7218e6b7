//! Which arguments of a request are keys.
//!
//! Owns the rules ([`Keys`]) and their errors. The rule it keeps: an option that the server would
//! take for something else than we do is an error, never a guess, because a key that is overlooked
//! is a key on the wrong shard. Most commands have one key at a fixed place, which
//! [`Command::first_key`] gives without looking at the request.

use super::Command;
use crate::resp::{self, Span};

/// Where a command's keys are; positions count the command's name as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    None,
    /// From `first` to `last` (negative: from the end, -1 is the last argument), every `step`-th.
    Range {
        first: i16,
        last: i16,
        step: i16,
    },
    /// The number of keys stands at `at`, the keys behind it, every `step`-th; one more, a
    /// destination, may stand at `also`.
    Count {
        at: u16,
        also: Option<u16>,
        step: u16,
        errors: CountErrors,
    },
    /// At 2, if the subcommand at 1 is one of these, given as `command|subcommand`.
    Subcommand(&'static [&'static str]),
    /// The first half of what follows STREAMS: XREAD and XREADGROUP.
    Streams,
    /// At 1, and behind STORE: SORT and its read-only twin.
    Sort,
    /// At 1, and no key to the server: the channel of PUBLISH, which is on a shard as a key is.
    Channel,
    /// At 1, and behind STORE and STOREDIST; the options begin at `options`: GEORADIUS and
    /// GEORADIUSBYMEMBER.
    GeoRadius {
        options: u16,
    },
}

/// How a family of commands words its objections to a number of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountErrors {
    /// EVAL, FCALL and their kin; they alone may have no key.
    Script,
    /// ZUNION and the other operations on sorted sets.
    SortedSets,
    /// LMPOP and ZMPOP.
    Pop,
    /// SINTERCARD.
    Sets,
    /// MSETEX.
    Pairs,
}

/// Why the keys of a request cannot be found. `Display` is what Redis 7.0 says after `-ERR `.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("{0}")]
    Invalid(&'static str),
    #[error("wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    #[error("at least 1 input key is needed for '{0}' command")]
    NoInputKey(&'static str),
    /// Not Redis's: the proxy does not serve this form of the command.
    #[error("'{0}' is not supported by Shoal {1}")]
    Refused(&'static str, &'static str),
}

const SYNTAX: KeyError = KeyError::Invalid("syntax error");
const NOT_AN_INTEGER: &str = "value is not an integer or out of range";
const TOO_MANY_KEYS: &str = "Number of keys can't be greater than number of args";

impl Command {
    /// The position of the key of a command that always has exactly one, at a fixed place.
    pub fn first_key(&self) -> Option<usize> {
        match self.keys {
            Keys::Range { first, last, .. } if first == last => usize::try_from(first).ok(),
            Keys::Channel => Some(1),
            _ => None,
        }
    }

    /// Puts into `out` which of `args` (spans of `buf`, the command's name first) are keys. The
    /// caller has seen that [`Command::arity_ok`].
    ///
    /// # Errors
    /// A [`KeyError`] for a request that the server would refuse for its form, or that asks for
    /// what the proxy cannot give; nothing must be sent. `out` is of no use then.
    pub fn key_positions(
        &self,
        buf: &[u8],
        args: &[Span],
        out: &mut Vec<u32>,
    ) -> Result<(), KeyError> {
        out.clear();
        let request = Arguments { buf, args };
        match self.keys {
            Keys::None => Ok(()),
            Keys::Channel => {
                out.push(1);
                Ok(())
            }
            Keys::Range { first, last, step } => self.range(&request, [first, last, step], out),
            Keys::Count {
                at,
                also,
                step,
                errors,
            } => {
                out.extend(also.map(u32::from));
                self.counted(&request, usize::from(at), usize::from(step), errors, out)
            }
            Keys::Subcommand(names) => self.behind_subcommand(&request, names, out),
            Keys::Streams => streams(&request, out),
            Keys::Sort => {
                out.push(1);
                sort_options(&request, |option, value| {
                    if option == b"STORE" {
                        out.push(value);
                    }
                })
            }
            Keys::GeoRadius { options } => georadius(&request, usize::from(options), out),
        }
    }

    /// Puts into `out` which arguments are patterns that the server makes keys of, by putting an element in the
    /// place of `*`: BY and GET of SORT. The caller has seen that [`Self::key_positions`] can be found.
    pub(crate) fn pattern_positions(&self, buf: &[u8], args: &[Span], out: &mut Vec<u32>) {
        if self.keys != Keys::Sort {
            return;
        }
        let request = Arguments { buf, args };
        // A pattern without `*` names no key: the elements stay as they are, or the answer is nil.
        // `#` is the element itself.
        let _ = sort_options(&request, |option, value| {
            if option != b"STORE" && request.get(value as usize).contains(&b'*') {
                out.push(value);
            }
        });
    }

    fn range(
        &self,
        request: &Arguments<'_>,
        [first, last, step]: [i16; 3],
        out: &mut Vec<u32>,
    ) -> Result<(), KeyError> {
        let step = usize::from(step.unsigned_abs()).max(1);
        let first = usize::from(first.unsigned_abs());
        let end = match usize::try_from(last) {
            Ok(last) => (last + 1).min(request.len()),
            Err(_) => (request.len() + 1).saturating_sub(usize::from(last.unsigned_abs())),
        };
        // Keys that alternate with values: the last value must be there.
        if last < 0 && !end.saturating_sub(first).is_multiple_of(step) {
            return Err(KeyError::Arity(self.name));
        }
        out.extend((first..end).step_by(step).map(|at| at as u32));
        Ok(())
    }

    fn counted(
        &self,
        request: &Arguments<'_>,
        at: usize,
        step: usize,
        errors: CountErrors,
        out: &mut Vec<u32>,
    ) -> Result<(), KeyError> {
        let count = resp::number(request.get(at));
        if (errors, count) == (CountErrors::Script, Some(0)) {
            return Ok(());
        }
        let Some(count @ 1..) = count else {
            return Err(self.bad_count(count, errors));
        };
        let first = at + 1;
        let room = (request.len().saturating_sub(first)) / step;
        match usize::try_from(count) {
            Ok(count) if count <= room => {
                out.extend((first..).step_by(step).take(count).map(|at| at as u32));
                Ok(())
            }
            _ => Err(match errors {
                CountErrors::Script | CountErrors::Sets => KeyError::Invalid(TOO_MANY_KEYS),
                CountErrors::SortedSets | CountErrors::Pop | CountErrors::Pairs => SYNTAX,
            }),
        }
    }

    /// What is wrong with a number of keys that is below 1 or no number.
    fn bad_count(&self, count: Option<i64>, errors: CountErrors) -> KeyError {
        match (errors, count) {
            (CountErrors::Script, Some(_)) => KeyError::Invalid("Number of keys can't be negative"),
            (CountErrors::SortedSets, Some(_)) => KeyError::NoInputKey(self.name),
            (CountErrors::Script | CountErrors::SortedSets, None) => {
                KeyError::Invalid(NOT_AN_INTEGER)
            }
            (CountErrors::Pop | CountErrors::Sets, _) => {
                KeyError::Invalid("numkeys should be greater than 0")
            }
            (CountErrors::Pairs, _) => KeyError::Invalid("invalid numkeys value or out of range"),
        }
    }

    fn behind_subcommand(
        &self,
        request: &Arguments<'_>,
        names: &'static [&'static str],
        out: &mut Vec<u32>,
    ) -> Result<(), KeyError> {
        let wanted = request.get(1);
        let known = names.iter().find(|name| {
            let own = name.as_bytes().get(self.name.len() + 1..);
            own.is_some_and(|own| own.eq_ignore_ascii_case(wanted))
        });
        match known {
            None => Err(KeyError::Refused(
                self.name,
                "with this subcommand: it has no key",
            )),
            Some(name) if request.len() < 3 => Err(KeyError::Arity(name)),
            Some(_) => {
                out.push(2);
                Ok(())
            }
        }
    }
}

fn streams(request: &Arguments<'_>, out: &mut Vec<u32>) -> Result<(), KeyError> {
    let mut at = 1;
    while at < request.len() {
        at += match request.option(at) {
            b"BLOCK" | b"COUNT" => 2,
            b"GROUP" => 3,
            b"NOACK" => 1,
            b"STREAMS" => {
                let behind = request.len() - at - 1;
                if behind == 0 {
                    return Err(SYNTAX);
                }
                if !behind.is_multiple_of(2) {
                    return Err(KeyError::Invalid(
                        "Unbalanced XREAD list of streams: for each stream key an ID or '$' \
                         must be specified.",
                    ));
                }
                out.extend((at + 1..).take(behind / 2).map(|at| at as u32));
                return Ok(());
            }
            _ => return Err(SYNTAX),
        };
    }
    Err(SYNTAX)
}

/// Calls `found` with STORE, BY and GET, and the position of what stands behind each.
fn sort_options(
    request: &Arguments<'_>,
    mut found: impl FnMut(&'static [u8], u32),
) -> Result<(), KeyError> {
    let mut at = 2;
    while at < request.len() {
        let (option, values) = match request.option(at) {
            option @ (b"ASC" | b"DESC" | b"ALPHA") => (option, 0),
            option @ (b"STORE" | b"BY" | b"GET") => (option, 1),
            option @ b"LIMIT" => (option, 2),
            _ => return Err(SYNTAX),
        };
        if at + values >= request.len() {
            return Err(SYNTAX);
        }
        if values == 1 {
            found(option, at as u32 + 1);
        }
        at += 1 + values;
    }
    Ok(())
}

fn georadius(request: &Arguments<'_>, options: usize, out: &mut Vec<u32>) -> Result<(), KeyError> {
    out.push(1);
    let mut at = options;
    while at < request.len() {
        at += match request.option(at) {
            b"WITHCOORD" | b"WITHDIST" | b"WITHHASH" | b"ASC" | b"DESC" | b"ANY" => 1,
            b"COUNT" => 2,
            b"STORE" | b"STOREDIST" if at + 1 < request.len() => {
                out.push(at as u32 + 1);
                2
            }
            _ => return Err(SYNTAX),
        };
    }
    Ok(())
}

/// A request's arguments.
struct Arguments<'a> {
    buf: &'a [u8],
    args: &'a [Span],
}

impl<'a> Arguments<'a> {
    fn len(&self) -> usize {
        self.args.len()
    }

    /// The bytes of argument `at`; none if there is no such argument.
    fn get(&self, at: usize) -> &'a [u8] {
        self.args
            .get(at)
            .and_then(|&(start, end)| self.buf.get(start as usize..end as usize))
            .unwrap_or_default()
    }

    /// The word at `at` in upper case, if it is one of the options that a rule here knows.
    fn option(&self, at: usize) -> &'static [u8] {
        const OPTIONS: [&[u8]; 17] = [
            b"ALPHA",
            b"ANY",
            b"ASC",
            b"BLOCK",
            b"BY",
            b"COUNT",
            b"DESC",
            b"GET",
            b"GROUP",
            b"LIMIT",
            b"NOACK",
            b"STORE",
            b"STOREDIST",
            b"STREAMS",
            b"WITHCOORD",
            b"WITHDIST",
            b"WITHHASH",
        ];
        let word = self.get(at);
        OPTIONS
            .into_iter()
            .find(|option| option.eq_ignore_ascii_case(word))
            .unwrap_or_default()
    }
}
