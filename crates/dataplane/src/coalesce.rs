//! One request that went to several shards, and its answers made one again.
//!
//! MGET is put back in the order of its keys, counts are added up, MSET is `+OK`; `coalesce/merge.rs` has the
//! rules, `coalesce/info.rs` the long one of INFO. What failed is said with the shard's name; a write that may be
//! partly done is answered INDOUBT, never as if nothing had happened.

mod info;
mod merge;

use crate::command::Merge;
use merge::merged;

/// What became of a request or of one part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The shard's own reply, a whole frame.
    Reply(Box<[u8]>),
    /// Certainly not executed; the error line for it, without CRLF.
    NotSent(String),
    /// Sent, and its fate is not known.
    Unknown,
    /// The same, of one that went out whole the error line for it, without CRLF.
    Unanswered(String),
}

impl Outcome {
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown | Self::Unanswered(_))
    }
}

/// The answer where the replies are not what the command gives.
pub(crate) const UNMERGEABLE: &[u8] = b"-ERR a shard answered in a form that cannot be merged\r\n";

/// One request that went to several shards.
pub(crate) struct Split {
    merge: Merge,
    parts: Vec<Part>,
    /// For each key of the request, the part that has it.
    order: Box<[u16]>,
    given: Given,
    waiting: usize,
}

/// What a merge needs to know besides the replies.
#[derive(Debug, Default)]
pub(crate) enum Given {
    #[default]
    Nothing,
    /// Decides a draw.
    Draw(u64),
    /// So many entries at most.
    AtMost(usize),
    /// The proxy's own section, to stand behind the servers'.
    Section(String),
}

struct Part {
    shard: usize,
    outcome: Option<Outcome>,
}

impl Split {
    pub(crate) fn new(merge: Merge, shards: &[usize], order: Box<[u16]>) -> Self {
        Self {
            merge,
            parts: shards
                .iter()
                .map(|&shard| Part {
                    shard,
                    outcome: None,
                })
                .collect(),
            order,
            given: Given::Nothing,
            waiting: shards.len(),
        }
    }

    /// A request that went to each of these shards as it is.
    pub(crate) fn every(merge: Merge, shards: &[usize], given: Given) -> Self {
        Self {
            given,
            ..Self::new(merge, shards, Box::default())
        }
    }

    /// Records what became of a part; true once all are known.
    pub(crate) fn settle(&mut self, part: u16, outcome: Outcome) -> bool {
        if let Some(part) = self.parts.get_mut(usize::from(part))
            && part.outcome.replace(outcome).is_none()
        {
            self.waiting -= 1;
        }
        self.waiting == 0
    }

    /// Some part has no reply of its server.
    pub(crate) fn lost_a_part(&self) -> bool {
        let replied = |part: &Part| matches!(part.outcome, Some(Outcome::Reply(_)));
        !self.parts.iter().all(replied)
    }

    /// The one answer; `write` says whether the request changes data.
    pub(crate) fn answer<'n>(&self, write: bool, name: impl Fn(usize) -> &'n str) -> Vec<u8> {
        if let Some(failure) = self.failure(write, &name) {
            return failure;
        }
        let replies = self.replies(name);
        merged(self.merge, &replies, &self.order, &self.given)
            .unwrap_or_else(|| UNMERGEABLE.to_vec())
    }

    fn failure<'n>(&self, write: bool, name: &impl Fn(usize) -> &'n str) -> Option<Vec<u8>> {
        let failed = self.parts.iter().find(|part| !part.succeeded())?;
        if let Some(Outcome::Reply(line)) = &failed.outcome
            && self.parts.iter().all(|part| part.outcome == failed.outcome)
        {
            return Some(line.to_vec()); // what is wrong is wrong everywhere: no shard's own
        }
        if write
            && self
                .parts
                .iter()
                .any(|part| part.outcome.as_ref().is_some_and(Outcome::is_unknown))
            || write && self.partly_done() && matches!(failed.outcome, Some(Outcome::NotSent(_)))
        {
            let list: Vec<String> = self
                .parts
                .iter()
                .map(|part| format!("\"{}\" ({})", name(part.shard), part.fate()))
                .collect();
            return Some(format!("-INDOUBT write to shards {}\r\n", list.join(", ")).into_bytes());
        }
        Some(match &failed.outcome {
            Some(Outcome::NotSent(line) | Outcome::Unanswered(line)) => {
                format!("{line}\r\n").into_bytes()
            }
            Some(Outcome::Reply(line)) => self.server_error(line, failed, write, name),
            Some(Outcome::Unknown) | None => format!(
                "-ERR shard \"{}\" was lost before it answered\r\n",
                name(failed.shard)
            )
            .into_bytes(),
        })
    }

    /// The shard's own error with the shard's name, and which other shards did execute their part.
    fn server_error<'n>(
        &self,
        line: &[u8],
        failed: &Part,
        write: bool,
        name: &impl Fn(usize) -> &'n str,
    ) -> Vec<u8> {
        let mut error = line.strip_suffix(b"\r\n").unwrap_or(line).to_vec();
        error.extend_from_slice(format!(" (shard \"{}\"", name(failed.shard)).as_bytes());
        let done: Vec<String> = self
            .parts
            .iter()
            .filter(|part| write && part.succeeded())
            .map(|part| format!("\"{}\"", name(part.shard)))
            .collect();
        if !done.is_empty() {
            error.extend_from_slice(format!("; done on {}", done.join(", ")).as_bytes());
        }
        error.extend_from_slice(b")\r\n");
        error
    }

    fn partly_done(&self) -> bool {
        self.parts.iter().any(Part::succeeded)
    }

    /// Each shard's name and reply.
    fn replies<'n>(&self, name: impl Fn(usize) -> &'n str) -> Vec<(&'n str, &[u8])> {
        self.parts
            .iter()
            .filter_map(|part| match &part.outcome {
                Some(Outcome::Reply(reply)) => Some((name(part.shard), &**reply)),
                _ => None,
            })
            .collect()
    }
}

impl Part {
    fn succeeded(&self) -> bool {
        matches!(&self.outcome, Some(Outcome::Reply(reply)) if reply.first() != Some(&b'-'))
    }

    fn fate(&self) -> &'static str {
        match &self.outcome {
            Some(Outcome::Reply(reply)) if reply.first() == Some(&b'-') => "refused",
            Some(Outcome::Reply(_)) => "done",
            Some(Outcome::NotSent(_)) => "not sent",
            Some(Outcome::Unknown | Outcome::Unanswered(_)) | None => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Merge, Outcome, Split};

    fn name(shard: usize) -> &'static str {
        ["a", "b", "c"][shard]
    }

    fn reply(bytes: &[u8]) -> Outcome {
        Outcome::Reply(bytes.into())
    }

    fn two(merge: Merge, order: &[u16]) -> Split {
        Split::new(merge, &[0, 1], order.into())
    }

    #[test]
    fn mget_comes_back_in_the_order_of_its_keys() {
        let mut split = two(Merge::Array, &[1, 0, 1]);
        assert!(!split.settle(0, reply(b"*1\r\n$1\r\nx\r\n")));
        assert!(split.settle(1, reply(b"*2\r\n$-1\r\n$2\r\nyy\r\n")));
        assert_eq!(
            split.answer(false, name),
            b"*3\r\n$-1\r\n$1\r\nx\r\n$2\r\nyy\r\n"
        );
    }

    #[test]
    fn counts_are_added_up() {
        let mut split = two(Merge::Sum, &[0, 1]);
        split.settle(1, reply(b":2\r\n"));
        split.settle(0, reply(b":40\r\n"));
        assert_eq!(split.answer(true, name), b":42\r\n");
    }

    #[test]
    fn a_write_that_may_be_partly_done_is_in_doubt() {
        let mut split = two(Merge::Ok, &[0, 1]);
        split.settle(0, reply(b"+OK\r\n"));
        split.settle(1, Outcome::Unknown);
        assert_eq!(
            split.answer(true, name),
            b"-INDOUBT write to shards \"a\" (done), \"b\" (unknown)\r\n"
        );
        let mut split = two(Merge::Ok, &[0, 1]);
        split.settle(0, reply(b"+OK\r\n"));
        split.settle(1, Outcome::NotSent("-MASTERDOWN x".into()));
        assert_eq!(
            split.answer(true, name),
            b"-INDOUBT write to shards \"a\" (done), \"b\" (not sent)\r\n"
        );
    }

    #[test]
    fn a_part_that_was_not_answered_in_time_may_have_been_done() {
        let line = || Outcome::Unanswered("-ERR Connection timed out".into());
        let mut split = two(Merge::Ok, &[0, 1]);
        split.settle(0, reply(b"+OK\r\n"));
        split.settle(1, line());
        assert_eq!(
            split.answer(true, name),
            b"-INDOUBT write to shards \"a\" (done), \"b\" (unknown)\r\n"
        );
        let mut split = two(Merge::Array, &[0, 1]);
        split.settle(0, reply(b"*1\r\n$-1\r\n"));
        split.settle(1, line());
        assert_eq!(split.answer(false, name), b"-ERR Connection timed out\r\n");
    }

    #[test]
    fn a_write_that_went_nowhere_fails_cleanly() {
        let mut split = two(Merge::Ok, &[0, 1]);
        split.settle(0, Outcome::NotSent("-MASTERDOWN x".into()));
        split.settle(1, Outcome::NotSent("-MASTERDOWN y".into()));
        assert_eq!(split.answer(true, name), b"-MASTERDOWN x\r\n");
    }

    #[test]
    fn an_error_that_all_shards_have_is_none_of_a_shards() {
        let mut split = two(Merge::Ok, &[0, 1]);
        split.settle(0, reply(b"-ERR syntax error\r\n"));
        split.settle(1, reply(b"-ERR syntax error\r\n"));
        assert_eq!(split.answer(true, name), b"-ERR syntax error\r\n");
    }

    #[test]
    fn a_shards_own_error_is_passed_on_with_its_name() {
        let mut split = two(Merge::Ok, &[0, 1]);
        split.settle(0, reply(b"+OK\r\n"));
        split.settle(1, reply(b"-OOM no memory\r\n"));
        assert_eq!(
            split.answer(true, name),
            b"-OOM no memory (shard \"b\"; done on \"a\")\r\n"
        );
    }

    #[test]
    fn a_part_with_the_wrong_number_of_elements_is_refused() {
        let mut split = two(Merge::Array, &[0, 1]);
        split.settle(0, reply(b"*2\r\n$1\r\nx\r\n$1\r\nx\r\n"));
        split.settle(1, reply(b"*1\r\n$1\r\ny\r\n"));
        assert!(split.answer(false, name).starts_with(b"-ERR"));
    }
}
