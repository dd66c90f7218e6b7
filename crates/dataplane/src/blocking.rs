//! A request that waits at the server until there is something for it: how long it may, and where it is.
//!
//! Owns what a client keeps of its blocking request, the reading of timeouts and their writing. A request
//! that did not certainly end (its shard had no master, the server sent it away) waits again with what is
//! left of its time. `client` keeps the state, `worker/blocking` moves it.

use std::time::Duration;

use crate::command::Wait;
use crate::reactor::Handle;
use crate::resp::{self, Limits, RequestScan, Span};
use crate::route::argument;
use crate::snapshot::{NANOS_A_MILLI, Nanos};

/// Longer waits than this many milliseconds have no end for us: the server refuses them, or outlives us.
const LONGEST_MS: u64 = 1 << 53;

/// Who was sent away after so long had been let wait.
const LET_WAIT: Nanos = 1000 * NANOS_A_MILLI;

/// A client's blocking request, from when it is first looked at; of one that is answered, what is left.
pub(crate) struct Blocking {
    /// When it was first looked at.
    pub(crate) since: Nanos,
    /// When it is over; `None` if it has no end, or if the server will refuse its timeout.
    pub(crate) until: Option<Nanos>,
    /// The connections that are the client's for it, each with its shard.
    pub(crate) own: Vec<(usize, Handle)>,
    /// The slot that waits for its answer, once it is at the server.
    pub(crate) sequence: Option<u32>,
    pub(crate) sent_at: Nanos,
    /// Since when servers have been sending it away without having let it wait.
    pub(crate) refused_since: Option<Nanos>,
    /// Of a WAIT, the numbers that are asked for.
    pub(crate) asked_for: Vec<i64>,
}

impl Blocking {
    pub(crate) fn new(since: Nanos, timeout_ms: Option<u64>) -> Self {
        let until = timeout_ms.map(|it| since.saturating_add(it.saturating_mul(NANOS_A_MILLI)));
        Self {
            since,
            until,
            own: Vec::new(),
            sequence: None,
            sent_at: 0,
            refused_since: None,
            asked_for: Vec::new(),
        }
    }

    /// The connection to this shard.
    pub(crate) fn own_at(&self, shard: usize) -> Option<Handle> {
        let mut own = self.own.iter();
        own.find_map(|&(at, backend)| (at == shard).then_some(backend))
    }

    /// Notes the connection to this shard.
    pub(crate) fn keep(&mut self, shard: usize, backend: Handle) {
        self.own.retain(|&(at, _)| at != shard);
        self.own.push((shard, backend));
    }

    /// The server has sent it away now: what sends it away at once, again and again, holds it no longer than any other
    /// request.
    pub(crate) fn sent_away(&mut self, now: Nanos) {
        if now.saturating_sub(self.sent_at) > LET_WAIT {
            self.refused_since = None;
        }
        self.refused_since.get_or_insert(now);
    }

    /// It was sent, so another request of the client that blocks is a new one.
    pub(crate) fn is_sent(&self) -> bool {
        self.sequence.is_some()
    }

    /// Its time is over before it was sent.
    pub(crate) fn is_over(&self, now: Nanos) -> bool {
        !self.is_sent() && self.until.is_some_and(|until| until <= now)
    }
}

/// Which argument says how long the request waits; `None` if it does not wait.
pub(crate) fn timeout_at(wait: Wait, frame: &[u8], args: &[Span]) -> Option<usize> {
    match wait {
        Wait::Last => Some(args.len() - 1),
        Wait::First => Some(1),
        Wait::Option => {
            let mut at = 1;
            while at + 1 < args.len() {
                let word = argument(frame, args, at).to_ascii_uppercase();
                at += match word.as_slice() {
                    b"BLOCK" => return Some(at + 1),
                    b"COUNT" => 2,
                    b"GROUP" => 3,
                    b"NOACK" => 1,
                    _ => return None,
                };
            }
            None
        }
    }
}

/// Whether it asks for what is added to a stream from now on: another moment would be another question.
pub(crate) fn reads_from_now_on(frame: &[u8]) -> bool {
    let mut args = Vec::new();
    let (limits, mut scan) = (Limits::default(), RequestScan::default());
    if resp::scan_request(frame, &limits, &mut scan, &mut args).is_err() {
        return false;
    }
    let words = || (0..args.len()).map(|at| argument(frame, &args, at));
    let streams = words().position(|word| word.eq_ignore_ascii_case(b"STREAMS"));
    // The second half of what stands behind it are ids.
    let reads = words()
        .next()
        .is_some_and(|name| name.eq_ignore_ascii_case(b"XREAD"));
    reads
        && streams.is_some_and(|at| {
            words()
                .skip(at + 1 + (args.len() - at - 1) / 2)
                .any(|id| id == b"$")
        })
}

/// The milliseconds that a timeout says, rounded up; `None` if it is none, or for ever.
pub(crate) fn timeout_ms(wait: Wait, text: &[u8]) -> Option<u64> {
    let millis = match wait {
        Wait::Option => u64::try_from(resp::number(text)?).ok()?,
        Wait::Last | Wait::First => {
            let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
            let nanos = Duration::try_from_secs_f64(seconds).ok()?.as_nanos();
            u64::try_from(nanos.div_ceil(u128::from(NANOS_A_MILLI))).ok()?
        }
    };
    (1..LONGEST_MS).contains(&millis).then_some(millis)
}

/// The same timeout with so much left of it: never 0, which would be for ever.
pub(crate) fn remaining(wait: Wait, left: Nanos) -> String {
    let millis = left.div_ceil(NANOS_A_MILLI).max(1);
    match wait {
        Wait::Option => millis.to_string(),
        Wait::Last | Wait::First => format!("{}.{:03}", millis / 1000, millis % 1000),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{Blocking, reads_from_now_on, remaining, timeout_at, timeout_ms};
    use crate::command::Wait;
    use crate::resp::{Limits, RequestScan, scan_request};

    fn place(wait: Wait, words: &[&str]) -> Option<usize> {
        let mut frame = format!("*{}\r\n", words.len());
        for word in words {
            let _ = write!(frame, "${}\r\n{word}\r\n", word.len());
        }
        let mut args = Vec::new();
        let (limits, mut scan) = (Limits::default(), RequestScan::default());
        scan_request(frame.as_bytes(), &limits, &mut scan, &mut args).expect("a whole request");
        timeout_at(wait, frame.as_bytes(), &args)
    }

    #[test]
    fn a_timeout_is_found_where_the_command_has_it() {
        assert_eq!(place(Wait::Last, &["blpop", "a", "b", "3"]), Some(3));
        assert_eq!(
            place(Wait::First, &["blmpop", "3", "1", "a", "left"]),
            Some(1)
        );
        let xread = ["xread", "count", "2", "Block", "7", "streams", "block", "$"];
        assert_eq!(place(Wait::Option, &xread), Some(4));
        let plain = ["xread", "count", "2", "streams", "block", "0"];
        assert_eq!(place(Wait::Option, &plain), None);
        let group = [
            "xreadgroup",
            "group",
            "block",
            "block",
            "block",
            "5",
            "streams",
            "s",
            ">",
        ];
        assert_eq!(place(Wait::Option, &group), Some(5));
        assert_eq!(
            place(Wait::Option, &["xread", "streams", "s", "0", "block"]),
            None
        );
    }

    #[test]
    fn a_dollar_among_the_ids_is_now() {
        let asks = |words: &[&str]| {
            let mut frame = format!("*{}\r\n", words.len());
            for word in words {
                let _ = write!(frame, "${}\r\n{word}\r\n", word.len());
            }
            reads_from_now_on(frame.as_bytes())
        };
        assert!(asks(&["xread", "block", "0", "streams", "s", "$"]));
        assert!(asks(&[
            "xread", "block", "0", "streams", "s", "t", "5-1", "$"
        ]));
        assert!(!asks(&[
            "xread", "block", "0", "streams", "s", "$", "5-1", "0"
        ]));
        assert!(!asks(&["blpop", "streams", "$", "$"]));
    }

    #[test]
    fn who_was_let_wait_is_held_anew() {
        let mut waits = Blocking::new(0, None);
        waits.sent_away(5);
        waits.sent_away(9);
        assert_eq!(waits.refused_since, Some(5));
        waits.sent_at = 10;
        waits.sent_away(10 + 2_000_000_000);
        assert_eq!(waits.refused_since, Some(2_000_000_010));
    }

    #[test]
    fn what_is_no_time_and_what_has_no_end_has_no_deadline() {
        assert_eq!(timeout_ms(Wait::Last, b"1.5"), Some(1500));
        assert_eq!(timeout_ms(Wait::First, b"0.0001"), Some(1));
        assert_eq!(timeout_ms(Wait::Option, b"250"), Some(250));
        for text in [
            &b"0"[..],
            b"-1",
            b"x",
            b"",
            b"nan",
            b"inf",
            b"1e300",
            b"\xff",
        ] {
            assert_eq!(timeout_ms(Wait::Last, text), None, "{text:?}");
        }
        for text in [&b"0"[..], b"-1", b"1.5", b"9223372036854775807"] {
            assert_eq!(timeout_ms(Wait::Option, text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_left_is_never_for_ever() {
        assert_eq!(remaining(Wait::Last, 0), "0.001");
        assert_eq!(remaining(Wait::Last, 2_345_678_901), "2.346");
        assert_eq!(remaining(Wait::Option, 0), "1");
        assert_eq!(remaining(Wait::Option, 12_000_000), "12");
    }
}
