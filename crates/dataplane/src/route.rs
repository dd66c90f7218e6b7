//! From the keys of a request to the shards it goes to.

use crate::command::{Command, KeyError, Merge, RouteKind};
use crate::pool::Router;
use crate::resp::Span;

const UNTAGGED: &str =
    "with a pattern that has no hash tag before its *: it would read keys of other shards";

/// Where a request goes; shards are indices into the snapshot's routes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Shard(usize),
    /// Keys on several shards of a command that can be cut.
    Split(Plan),
    /// Keys on several shards of a command that cannot: the first two that differ, as
    /// (argument, shard).
    Crosses([(u32, usize); 2]),
    /// No key at all, for a command that usually has one.
    NoKey,
    /// Every shard is ejected.
    NoShard,
}

/// How a request is cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The shards, in the order in which they first appear.
    pub(crate) shards: Vec<usize>,
    /// For each key, the index into `shards`.
    pub(crate) order: Box<[u16]>,
    pub(crate) merge: Merge,
}

/// Finds the target of a request whose keys are not at one fixed place.
///
/// `keys` is scratch space and holds the positions of the keys afterwards.
pub(crate) fn target(
    router: &Router,
    command: &Command,
    frame: &[u8],
    args: &[Span],
    keys: &mut Vec<u32>,
) -> Result<Target, KeyError> {
    keys.clear();
    command.key_positions(frame, args, keys)?;
    if !router.is_single() {
        let at = keys.len();
        command.pattern_positions(frame, args, keys);
        if keys[at..]
            .iter()
            .any(|&at| !router.owns_pattern(argument(frame, args, at as usize)))
        {
            return Err(KeyError::Refused(command.name, UNTAGGED));
        }
    }
    let Some(&head) = keys.first() else {
        return Ok(Target::NoKey);
    };
    let owner = |at: u32| router.shard_of(argument(frame, args, at as usize));
    let Some(first) = owner(head) else {
        return Ok(Target::NoShard);
    };
    let mut others = keys[1..].iter().filter_map(|&at| Some((at, owner(at)?)));
    let Some(other) = others.find(|&(_, shard)| shard != first) else {
        return Ok(Target::Shard(first));
    };
    match command.route {
        RouteKind::Split(merge) => {
            let owners = keys.iter().filter_map(|&at| owner(at));
            Ok(Target::Split(cut(owners, merge)))
        }
        _ => Ok(Target::Crosses([(head, first), other])),
    }
}

/// The plan for keys with these owners.
fn cut(owners: impl Iterator<Item = usize>, merge: Merge) -> Plan {
    let mut shards: Vec<usize> = Vec::new();
    let order = owners
        .map(|shard| {
            let part = shards.iter().position(|&known| known == shard);
            part.unwrap_or_else(|| {
                shards.push(shard);
                shards.len() - 1
            }) as u16
        })
        .collect();
    Plan {
        shards,
        order,
        merge,
    }
}

/// Writes the request that part `part` of a plan sends: the command's name, and of its keys those
/// of that part, each with what follows it up to the next key.
pub(crate) fn write_fragment(
    out: &mut Vec<u8>,
    frame: &[u8],
    args: &[Span],
    keys: &[u32],
    plan: &Plan,
    part: u16,
) {
    let width = match plan.merge {
        Merge::Ok => 2,
        _ => 1,
    };
    let mine = plan.order.iter().filter(|&&of| of == part).count();
    out.extend_from_slice(format!("*{}\r\n", 1 + mine * width).as_bytes());
    write_argument(out, argument(frame, args, 0));
    for (&at, &of) in keys.iter().zip(&plan.order) {
        if of == part {
            for offset in 0..width {
                write_argument(out, argument(frame, args, at as usize + offset));
            }
        }
    }
}

/// Appends one argument of a request.
pub(crate) fn write_argument(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The bytes of argument `at`.
pub(crate) fn argument<'f>(frame: &'f [u8], args: &[Span], at: usize) -> &'f [u8] {
    let (start, end) = args[at];
    &frame[start as usize..end as usize]
}
