//! How the replies of several shards become one: a rule for each [`Merge`].
//!
//! Every reply here is whole and none is an error. The rule it keeps: what does not have the form that it should is
//! `None`, never half an answer. Works on frames; where RESP2 and RESP3 differ, the form of the first reply is kept.

use std::collections::HashSet;

use super::Given;
use super::info;
use crate::command::Merge;
use crate::resp::{self, ReplyKind, ReplyScan, ReplyStatus};

const DIFFER: &[u8] = b"-ERR the shards' answers differ: ask each server\r\n";
/// Where the time stands in an entry of a slow log.
const LOG_TIME: usize = 1;

/// The one reply for these, each with its shard's name; `order` says for each key of the request which part has it.
pub(super) fn merged(
    merge: Merge,
    replies: &[(&str, &[u8])],
    order: &[u16],
    given: &Given,
) -> Option<Vec<u8>> {
    let bytes = || replies.iter().map(|&(_, reply)| reply);
    let at_most = match given {
        Given::AtMost(count) => *count,
        _ => usize::MAX,
    };
    match merge {
        Merge::Ok => Some(b"+OK\r\n".to_vec()),
        Merge::Array => in_order(bytes(), order),
        Merge::Sum => {
            let counts = integers(bytes())?;
            Some(integer(counts.into_iter().fold(0, i64::saturating_add)))
        }
        Merge::Least => Some(integer(integers(bytes())?.into_iter().min()?)),
        Merge::Chain => Some(array(&all_elements(bytes())?)),
        Merge::Union => {
            let mut seen = HashSet::new();
            let mut all = all_elements(bytes())?;
            all.retain(|element| seen.insert(*element));
            Some(array(&all))
        }
        Merge::Each => each(bytes()),
        Merge::Draw => draw(bytes(), given),
        Merge::Same => {
            let first = bytes().next()?;
            let same = bytes().all(|reply| reply == first);
            Some(if same { first } else { DIFFER }.to_vec())
        }
        Merge::Most => most(bytes()),
        Merge::Settings => settings(replies),
        Merge::Texts => texts(replies),
        Merge::Newest => by_time(bytes(), LOG_TIME, true, at_most),
        Merge::Oldest => by_time(bytes(), 0, false, at_most),
        Merge::Events => events(bytes()),
        Merge::Info => {
            let own = match given {
                Given::Section(text) => text,
                _ => "",
            };
            let bodies: Option<Vec<(&str, &[u8])>> = replies
                .iter()
                .map(|&(name, reply)| Some((name, text(reply)?)))
                .collect();
            let (_, first) = replies.first()?;
            Some(text_like(first, info::merged(&bodies?, own).as_bytes()))
        }
    }
}

/// The elements of an array or a set, the keys and values of a map.
pub(super) fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let (count, body) = match resp::reply_kind(reply) {
        ReplyKind::Array { len, body } | ReplyKind::Set { len, body } => (len, body),
        ReplyKind::Map { len, body } => (2 * len, body),
        _ => return None,
    };
    let mut rest = reply.get(body..)?;
    let mut found = Vec::new();
    for _ in 0..count {
        let ReplyStatus::Complete { len } =
            resp::scan_reply(rest, &mut ReplyScan::default()).ok()?
        else {
            return None;
        };
        found.push(&rest[..len]);
        rest = &rest[len..];
    }
    rest.is_empty().then_some(found)
}

fn all_elements<'r>(replies: impl Iterator<Item = &'r [u8]>) -> Option<Vec<&'r [u8]>> {
    let parts: Option<Vec<_>> = replies.map(elements).collect();
    Some(parts?.concat())
}

fn integers<'r>(replies: impl Iterator<Item = &'r [u8]>) -> Option<Vec<i64>> {
    replies.map(resp::reply_integer).collect()
}

fn integer(value: i64) -> Vec<u8> {
    format!(":{value}\r\n").into_bytes()
}

fn array(elements: &[&[u8]]) -> Vec<u8> {
    let bytes: usize = elements.iter().map(|element| element.len()).sum();
    let mut reply = Vec::with_capacity(bytes + 16);
    reply.extend_from_slice(format!("*{}\r\n", elements.len()).as_bytes());
    for element in elements {
        reply.extend_from_slice(element);
    }
    reply
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut reply = format!("${}\r\n", bytes.len()).into_bytes();
    reply.extend_from_slice(bytes);
    reply.extend_from_slice(b"\r\n");
    reply
}

/// The bytes of a string, without the format of a verbatim one.
fn text(reply: &[u8]) -> Option<&[u8]> {
    match resp::reply_kind(reply) {
        ReplyKind::Bulk { len, body } => reply.get(body..body + len),
        ReplyKind::Verbatim { len, body } => reply.get(body + 4..body + len),
        ReplyKind::Simple => reply.get(1..reply.len() - 2),
        _ => None,
    }
}

/// A string in the form that `model` has.
fn text_like(model: &[u8], bytes: &[u8]) -> Vec<u8> {
    if !model.starts_with(b"=") {
        return bulk(bytes);
    }
    let mut reply = format!("={}\r\ntxt:", bytes.len() + 4).into_bytes();
    reply.extend_from_slice(bytes);
    reply.extend_from_slice(b"\r\n");
    reply
}

fn in_order<'r>(replies: impl Iterator<Item = &'r [u8]>, order: &[u16]) -> Option<Vec<u8>> {
    let parts: Option<Vec<_>> = replies
        .map(|reply| elements(reply).map(Vec::into_iter))
        .collect();
    let mut parts = parts?;
    let taken: Option<Vec<_>> = order
        .iter()
        .map(|&part| parts.get_mut(usize::from(part))?.next())
        .collect();
    let taken = taken?;
    let whole = parts.iter_mut().all(|part| part.next().is_none());
    whole.then(|| array(&taken))
}

fn each<'r>(replies: impl Iterator<Item = &'r [u8]>) -> Option<Vec<u8>> {
    let rows: Option<Vec<Vec<i64>>> = replies
        .map(|reply| integers(elements(reply)?.into_iter()))
        .collect();
    let rows = rows?;
    let width = rows.first()?.len();
    if rows.iter().any(|row| row.len() != width) {
        return None;
    }
    let all: Option<Vec<Vec<u8>>> = (0..width)
        .map(|at| rows.iter().map(|row| row[at]).min().map(integer))
        .collect();
    let all = all?;
    Some(array(&all.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

/// The greatest of integers; of arrays, at each place the greatest, and what is no integer as the first has it.
fn most<'r>(replies: impl Iterator<Item = &'r [u8]>) -> Option<Vec<u8>> {
    let replies: Vec<&[u8]> = replies.collect();
    let (first, others) = replies.split_first()?;
    if resp::reply_kind(first) == ReplyKind::Integer {
        return Some(integer(integers(replies.into_iter())?.into_iter().max()?));
    }
    let mut row: Vec<Vec<u8>> = elements(first)?.into_iter().map(<[u8]>::to_vec).collect();
    for other in others {
        let other = elements(other)?;
        if other.len() != row.len() {
            return None;
        }
        for (here, there) in row.iter_mut().zip(other) {
            match (resp::reply_integer(here), resp::reply_integer(there)) {
                (Some(a), Some(b)) => *here = integer(a.max(b)),
                _ if here == there => {}
                _ => return None,
            }
        }
    }
    Some(array(&row.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

fn draw<'r>(replies: impl Iterator<Item = &'r [u8]>, given: &Given) -> Option<Vec<u8>> {
    let all: Vec<&[u8]> = replies.collect();
    let there: Vec<&[u8]> = all
        .iter()
        .copied()
        .filter(|reply| resp::reply_kind(reply) != ReplyKind::Null)
        .collect();
    let lot = match given {
        Given::Draw(lot) => *lot,
        _ => 0,
    };
    let place = (lot % there.len().max(1) as u64) as usize;
    there.get(place).or(all.first()).map(|reply| reply.to_vec())
}

/// A setting's name, and the value of each shard that has it.
type Setting<'r> = (&'r [u8], Vec<(&'r str, &'r [u8])>);

/// Each setting that some shard has: its value where all have the same, else `shard=value` of each.
fn settings(replies: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let mut known: Vec<Setting<'_>> = Vec::new();
    for &(shard, reply) in replies {
        for pair in elements(reply)?.chunks(2) {
            let &[name, value] = pair else { return None };
            match known.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push((shard, value)),
                None => known.push((name, vec![(shard, value)])),
            }
        }
    }
    let (_, first) = replies.first()?;
    let mut merged = match resp::reply_kind(first) {
        ReplyKind::Map { .. } => format!("%{}\r\n", known.len()),
        _ => format!("*{}\r\n", 2 * known.len()),
    }
    .into_bytes();
    for (name, values) in known {
        merged.extend_from_slice(name);
        let (_, value) = values[0];
        if values.len() == replies.len() && values.iter().all(|&(_, other)| other == value) {
            merged.extend_from_slice(value);
        } else {
            let of_each: Option<Vec<Vec<u8>>> = values
                .iter()
                .map(|&(shard, value)| Some([shard.as_bytes(), b"=", text(value)?].concat()))
                .collect();
            merged.extend_from_slice(&bulk(&of_each?.join(&b' ')));
        }
    }
    Some(merged)
}

fn texts(replies: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    for &(shard, reply) in replies {
        all.extend_from_slice(format!("# shard \"{shard}\"\n").as_bytes());
        all.extend_from_slice(text(reply)?.trim_ascii_end());
        all.push(b'\n');
    }
    let (_, first) = replies.first()?;
    Some(text_like(first, &all))
}

fn by_time<'r>(
    replies: impl Iterator<Item = &'r [u8]>,
    place: usize,
    newest_first: bool,
    at_most: usize,
) -> Option<Vec<u8>> {
    let entries: Option<Vec<(i64, &[u8])>> = all_elements(replies)?
        .into_iter()
        .map(|entry| Some((resp::reply_integer(elements(entry)?.get(place)?)?, entry)))
        .collect();
    let mut entries = entries?;
    if newest_first {
        entries.sort_by_key(|&(time, _)| std::cmp::Reverse(time));
    } else {
        entries.sort_by_key(|&(time, _)| time);
    }
    let kept: Vec<&[u8]> = entries.iter().map(|&(_, entry)| entry).collect();
    Some(array(&kept[..kept.len().min(at_most)]))
}

/// Rows of name, time, latest, highest, and in Valkey numbers behind them, which are kept of the newest.
fn events<'r>(replies: impl Iterator<Item = &'r [u8]>) -> Option<Vec<u8>> {
    let mut known: Vec<(Vec<&[u8]>, i64)> = Vec::new();
    for event in all_elements(replies)? {
        let fields = elements(event)?;
        let (time, peak) = match fields[..] {
            [_, time, _, peak, ..] => (resp::reply_integer(time)?, resp::reply_integer(peak)?),
            _ => return None,
        };
        match known.iter_mut().find(|(known, _)| known[0] == fields[0]) {
            Some((known, highest)) => {
                *highest = peak.max(*highest);
                if resp::reply_integer(known[1])? < time {
                    *known = fields;
                }
            }
            None => known.push((fields, peak)),
        }
    }
    let rows: Vec<Vec<u8>> = known
        .iter()
        .map(|(fields, peak)| {
            let peak = integer(*peak);
            let mut row = fields.clone();
            row[3] = &peak;
            array(&row)
        })
        .collect();
    Some(array(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Given, Merge, ReplyScan, ReplyStatus, merged, resp};

    fn two(merge: Merge, first: &str, second: &str, given: &Given) -> String {
        let frame = |text: &str| text.replace('\n', "\r\n").into_bytes();
        let (first, second) = (frame(first), frame(second));
        let reply = merged(merge, &[("a", &first), ("b", &second)], &[], given).expect("merged");
        String::from_utf8(reply)
            .expect("text")
            .replace("\r\n", "\n")
    }

    #[test]
    fn keys_are_chained_and_libraries_are_listed_once() {
        let (one, other) = ("*2\n$1\nx\n$1\ny\n", "*1\n$1\nx\n");
        let nothing = Given::Nothing;
        assert_eq!(
            two(Merge::Chain, one, other, &nothing),
            "*3\n$1\nx\n$1\ny\n$1\nx\n"
        );
        assert_eq!(two(Merge::Union, one, other, &nothing), one);
    }

    #[test]
    fn a_script_exists_where_all_have_it() {
        let reply = two(Merge::Each, "*2\n:1\n:1\n", "*2\n:0\n:1\n", &Given::Nothing);
        assert_eq!(reply, "*2\n:0\n:1\n");
    }

    #[test]
    fn a_key_is_drawn_from_those_that_have_one() {
        for lot in 0..4 {
            let given = Given::Draw(lot);
            assert_eq!(two(Merge::Draw, "$-1\n", "$1\nk\n", &given), "$1\nk\n");
            assert_eq!(two(Merge::Draw, "_\n", "_\n", &given), "_\n");
        }
        assert_eq!(
            two(Merge::Draw, "$1\nj\n", "$1\nk\n", &Given::Draw(1)),
            "$1\nk\n"
        );
    }

    #[test]
    fn a_setting_that_differs_is_shown_with_its_shards() {
        let (one, other) = (
            "%2\n$1\nx\n$1\n1\n$1\ny\n$1\n1\n",
            "%2\n$1\ny\n$1\n2\n$1\nx\n$1\n1\n",
        );
        assert_eq!(
            two(Merge::Settings, one, other, &Given::Nothing),
            "%2\n$1\nx\n$1\n1\n$1\ny\n$7\na=1 b=2\n"
        );
    }

    #[test]
    fn of_counts_the_greatest_is_taken() {
        let nothing = Given::Nothing;
        assert_eq!(two(Merge::Most, ":2\n", ":5\n", &nothing), ":5\n");
        let (one, other) = ("*4\n$1\na\n:1\n$1\nb\n:0\n", "*4\n$1\na\n:0\n$1\nb\n:3\n");
        assert_eq!(
            two(Merge::Most, one, other, &nothing),
            "*4\n$1\na\n:1\n$1\nb\n:3\n"
        );
    }

    #[test]
    fn what_should_be_the_same_everywhere_is_an_error_if_it_is_not() {
        let differ = two(Merge::Same, "$1\nx\n", "$1\ny\n", &Given::Nothing);
        assert!(differ.starts_with("-ERR"), "{differ}");
    }

    #[test]
    fn logs_come_newest_first_and_no_more_than_asked_for() {
        let entry = |time: u32| format!("*2\n:0\n:{time}\n");
        let (one, other) = (
            format!("*2\n{}{}", entry(9), entry(5)),
            format!("*1\n{}", entry(7)),
        );
        assert_eq!(
            two(Merge::Newest, &one, &other, &Given::AtMost(2)),
            format!("*2\n{}{}", entry(9), entry(7))
        );
    }

    #[test]
    fn an_event_has_its_newest_time_and_its_highest_peak() {
        let event = |time: u32, peak: u32| format!("*1\n*4\n$1\ne\n:{time}\n:1\n:{peak}\n");
        assert_eq!(
            two(Merge::Events, &event(8, 5), &event(9, 3), &Given::Nothing),
            event(9, 5)
        );
    }

    /// Replies as servers might give them, and as none would.
    fn replies() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            "[+:,#(][a-z0-9.-]{0,4}".prop_map(|line| format!("{line}\r\n").into_bytes()),
            "[a-z:,=#\\r\\n]{0,9}".prop_map(|text| super::bulk(text.as_bytes())),
            "[a-z]{0,5}".prop_map(|text| format!("={}\r\n{text}\r\n", text.len()).into_bytes()),
            Just(b"$-1\r\n".to_vec()),
            Just(b"_\r\n".to_vec()),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            ("[*~%]", prop::collection::vec(inner, 0..6)).prop_map(|(kind, mut elements)| {
                let map = kind == "%";
                if map && elements.len() % 2 == 1 {
                    elements.pop();
                }
                let count = if map {
                    elements.len() / 2
                } else {
                    elements.len()
                };
                [format!("{kind}{count}\r\n").into_bytes(), elements.concat()].concat()
            })
        })
    }

    proptest! {
        /// Any replies of any form give one whole frame or none.
        #[test]
        fn what_is_merged_is_one_frame(first in replies(), second in replies(), order in prop::collection::vec(0_u16..3, 0..4)) {
            const MERGES: [Merge; 16] = [
                Merge::Array, Merge::Sum, Merge::Ok, Merge::Least, Merge::Chain, Merge::Union,
                Merge::Each, Merge::Draw, Merge::Same, Merge::Settings, Merge::Texts,
                Merge::Newest, Merge::Oldest, Merge::Events, Merge::Info, Merge::Most,
            ];
            for merge in MERGES {
                let both: [(&str, &[u8]); 2] = [("a", &first), ("b", &second)];
                if let Some(reply) = merged(merge, &both, &order, &Given::Nothing) {
                    let found = resp::scan_reply(&reply, &mut ReplyScan::default());
                    prop_assert_eq!(found, Ok(ReplyStatus::Complete { len: reply.len() }), "{:?}", merge);
                }
            }
        }
    }

    #[test]
    fn a_reply_in_another_form_is_not_merged() {
        let mixed: [(&str, &[u8]); 2] = [("a", b":1\r\n"), ("b", b"$1\r\n1\r\n")];
        for merge in [Merge::Sum, Merge::Chain, Merge::Each, Merge::Settings] {
            assert_eq!(
                merged(merge, &mixed, &[], &Given::Nothing),
                None,
                "{merge:?}"
            );
        }
    }
}
