//! What is made of frames: the keys of a request and the parts it is cut into, the replies of several shards as one,
//! and the answer of EXEC.

use std::sync::LazyLock;

use super::bounded;
use super::frames::framed;
use crate::coalesce::{Given, Outcome, Split};
use crate::command::{self, Command, Merge};
use crate::pool::{PoolConfig, Router};
use crate::resp::{self, Limits, ReplyScan, ReplyStatus, RequestScan, RequestStatus, Span};
use crate::route::{self, Plan, Target};
use crate::worker::judge;

const SHARDS: [&str; 3] = ["a", "b", "c"];

static ROUTER: LazyLock<Router> = LazyLock::new(|| {
    let shards = SHARDS.map(|name| (name.to_owned(), 1)).to_vec();
    Router::new(
        &PoolConfig::new("p", "127.0.0.1:1", shards),
        &[0, 1, 2],
        |_| true,
    )
});

/// The request at the front of `bytes`, typed or framed, as a frame, and how many bytes it had.
fn request(bytes: &[u8]) -> Option<(Vec<u8>, Vec<Span>, usize)> {
    let (limits, mut args) = (Limits::default(), Vec::new());
    let mut progress = RequestScan::default();
    let (frame, used) = if bytes.first()? == &b'*' {
        let status = resp::scan_request(bytes, &limits, &mut progress, &mut args);
        let Ok(RequestStatus::Complete { len }) = status else {
            return None;
        };
        (bytes[..len].to_vec(), len)
    } else {
        let (len, words) = resp::scan_inline(bytes, &limits, &mut progress).ok()??;
        (framed(&words), len)
    };
    resp::scan_request(&frame, &limits, &mut RequestScan::default(), &mut args).ok()?;
    Some((frame, args, used))
}

/// Each request goes to the shards of its keys, all of it and nothing else.
pub(super) fn keys(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((frame, args, used)) = request(rest) {
        rest = &rest[used..];
        if let Some(&(start, end)) = args.first()
            && let Some(command) = command::lookup(&frame[start as usize..end as usize])
            && command.arity_ok(args.len())
        {
            routed(command, &frame, &args);
            let word = args.get(1).and_then(|_| {
                let row = command.subcommand(route::argument(&frame, &args, 1))?;
                row.arity_ok(args.len()).then_some(row)
            });
            if let Some(row) = word {
                routed(row, &frame, &args);
            }
        }
    }
}

fn routed(command: &Command, frame: &[u8], args: &[Span]) {
    let mut keys = Vec::new();
    let router = &*ROUTER;
    let found = bounded(256 + 64 * args.len(), || {
        route::target(router, command, frame, args, &mut keys)
    });
    let owner = |at: u32| router.shard_of(route::argument(frame, args, at as usize));
    if found.is_ok() {
        let mut places = keys.clone();
        places.sort_unstable();
        places.dedup();
        let among = |&at: &u32| at > 0 && (at as usize) < args.len();
        assert!(places.iter().all(among), "a key that is no argument");
        if let Some(at) = command.first_key() {
            assert_eq!(keys, [at as u32], "two ways to the key differ");
        }
    }
    match found {
        Ok(Target::Shard(shard)) => assert!(keys.iter().all(|&at| owner(at) == Some(shard))),
        Ok(Target::Crosses([(a, at_a), (b, at_b)])) => {
            assert_ne!(at_a, at_b);
            assert_eq!((owner(a), owner(b)), (Some(at_a), Some(at_b)));
        }
        Ok(Target::Split(plan)) => is_cut_right(&plan, frame, args, &keys),
        Ok(Target::NoKey) => assert!(keys.is_empty()),
        Ok(Target::NoShard) => panic!("all shards are there"),
        Err(error) => assert!(!error.to_string().contains(['\r', '\n'])),
    }
}

/// The parts have, in order, all that the request has, and each is one request to the shard of its keys.
fn is_cut_right(plan: &Plan, frame: &[u8], args: &[Span], keys: &[u32]) {
    assert_eq!(plan.order.len(), keys.len());
    let width = (args.len() - 1) / keys.len();
    let mut parts = Vec::new();
    for part in 0..plan.shards.len() as u16 {
        let mut fragment = Vec::new();
        bounded(1024 + 4 * frame.len(), || {
            route::write_fragment(&mut fragment, frame, args, keys, plan, part);
        });
        let (_, spans, used) = request(&fragment).expect("a part is a request");
        assert_eq!(used, fragment.len(), "a part is one request");
        let words = spans[1..].chunks(width);
        let own: Vec<Vec<Vec<u8>>> = words
            .map(|words| {
                let bytes = |&(start, end): &Span| fragment[start as usize..end as usize].to_vec();
                words.iter().map(bytes).collect()
            })
            .collect();
        let here = |words: &Vec<Vec<u8>>| {
            ROUTER.shard_of(&words[0]) == Some(plan.shards[usize::from(part)])
        };
        assert!(own.iter().all(here), "a key on another's shard");
        parts.push(own.into_iter());
    }
    for (&at, &part) in keys.iter().zip(&plan.order) {
        let words = parts[usize::from(part)].next().expect("its key");
        let sent = (0..width).map(|next| route::argument(frame, args, at as usize + next));
        assert!(sent.eq(words.iter().map(Vec::as_slice)));
    }
    assert!(parts.iter_mut().all(|part| part.next().is_none()));
}

const MERGES: [Merge; 15] = [
    Merge::Array,
    Merge::Sum,
    Merge::Ok,
    Merge::Least,
    Merge::Chain,
    Merge::Union,
    Merge::Each,
    Merge::Draw,
    Merge::Same,
    Merge::Settings,
    Merge::Texts,
    Merge::Newest,
    Merge::Oldest,
    Merge::Events,
    Merge::Info,
];

/// Whatever the shards reply, the client gets one whole reply. The first byte chooses the merge, the second what is
/// given to it, the third is the number of those behind it that say which part has each key; then come the replies.
pub(super) fn merge(bytes: &[u8]) {
    let [merge, given, width, rest @ ..] = bytes else {
        return;
    };
    let (order, mut rest) = rest.split_at(usize::from(*width).min(rest.len()));
    let merge = MERGES[usize::from(*merge) % MERGES.len()];
    let write = given & 4 > 0;
    let given = match given % 4 {
        0 => Given::Nothing,
        1 => Given::Draw(u64::from(*given)),
        2 => Given::AtMost(usize::from(*given)),
        _ => Given::Section("# Shoal\r\nversion:1\r\n".to_owned()),
    };
    let mut split = if order.is_empty() {
        Split::every(merge, &[0, 1, 2], given)
    } else {
        let order = order.iter().map(|&part| u16::from(part % 4)).collect();
        Split::new(merge, &[0, 1, 2], order)
    };
    for part in 0..3 {
        let outcome = match resp::scan_reply(rest, &mut ReplyScan::default()) {
            Ok(ReplyStatus::Complete { len }) => {
                let (reply, behind) = rest.split_at(len);
                rest = behind;
                Outcome::Reply(reply.into())
            }
            _ if rest.is_empty() => Outcome::NotSent("-MASTERDOWN none".to_owned()),
            _ => Outcome::Unknown,
        };
        assert_eq!(split.settle(part, outcome), part == 2);
    }
    // Numbers are printed with all their digits: up to 309 of one that has an exponent.
    let answer = bounded((1 << 16) + 512 * bytes.len(), || {
        split.answer(write, |shard| SHARDS[shard])
    });
    assert_one_reply(&answer);
}

fn assert_one_reply(answer: &[u8]) {
    let found = resp::scan_reply(answer, &mut ReplyScan::default());
    let whole = ReplyStatus::Complete { len: answer.len() };
    assert_eq!(found, Ok(whole), "{}", answer.escape_ascii());
}

/// Whatever a server replies to a transaction, EXEC is answered by one whole reply. The first byte is the number of
/// requests in it; behind them come the replies.
pub(super) fn exec(bytes: &[u8]) {
    let Some((&most, mut rest)) = bytes.split_first() else {
        return;
    };
    let mut sent = b"*1\r\n$5\r\nMULTI\r\n".to_vec();
    let mut count = 2;
    while count - 2 < u32::from(most)
        && let Some((frame, args, used)) = request(rest)
    {
        rest = &rest[used..];
        if !args.is_empty() {
            sent.extend_from_slice(&frame);
            count += 1;
        }
    }
    sent.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
    let status = resp::scan_replies(rest, count, &mut ReplyScan::default());
    if let Ok(ReplyStatus::Complete { len }) = status {
        let verdict = bounded(1024 + 8 * bytes.len(), || judge(&sent, count, &rest[..len]));
        assert_one_reply(&verdict.answer);
    }
}
