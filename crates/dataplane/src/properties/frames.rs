//! Frames: any bytes, in any pieces, give the same frames or the one protocol error.

use super::bounded;
use crate::cursor;
use crate::resp::{
    self, Limits, ProtocolError, ReplyKind, ReplyScan, ReplyStatus, RequestScan, RequestStatus,
    Span,
};

/// Limits low enough that short input passes them.
const TIGHT: Limits = Limits {
    max_args: 20,
    max_bulk: 40,
    max_inline: 30,
    authenticated: true,
};
/// How a stream arrives.
#[derive(Clone, Copy)]
enum Arrival {
    Whole,
    Bytes,
    /// In pieces whose sizes are drawn from this seed.
    Pieces(u64),
    /// Byte by byte, and nobody looks before there are as many as the last look asked for.
    Patient,
}

const ARRIVALS: [fn(&[u8]) -> Arrival; 3] = [
    |_| Arrival::Bytes,
    |bytes| Arrival::Pieces(seed(bytes)),
    |_| Arrival::Patient,
];

/// A number that any change of `bytes` changes: so the pieces are given by the input.
fn seed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What came of a stream: its frames, or what was made of them, and the error that ended it.
type Outcome<T> = (Vec<T>, Option<ProtocolError>);

/// A look at the front of a buffer.
enum Look<T> {
    /// A frame of so many bytes.
    Frame(T, usize),
    /// Nothing before the buffer has so many bytes.
    More(usize),
}

/// Reads `bytes` as they arrive, one look after the other at what is not taken yet.
fn read<T>(
    bytes: &[u8],
    arrival: Arrival,
    mut look: impl FnMut(&[u8]) -> Result<Look<T>, ProtocolError>,
) -> Outcome<T> {
    let (mut taken, mut begin, mut end, mut needed) = (Vec::new(), 0, 0, 0);
    let mut drawn = match arrival {
        Arrival::Pieces(seed) => seed,
        _ => 0,
    };
    while end < bytes.len() {
        let step = match arrival {
            Arrival::Whole => bytes.len(),
            Arrival::Bytes | Arrival::Patient => 1,
            Arrival::Pieces(_) => {
                drawn = drawn
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                1 + (drawn >> 60) as usize
            }
        };
        end = (end + step).min(bytes.len());
        if matches!(arrival, Arrival::Patient) && end - begin < needed {
            continue;
        }
        while begin < end {
            match look(&bytes[begin..end]) {
                Ok(Look::Frame(frame, len)) => {
                    assert!(len > 0 && len <= end - begin, "a frame of {len} bytes");
                    taken.push(frame);
                    begin += len;
                    needed = 0;
                }
                Ok(Look::More(hint)) => {
                    assert!(hint == 0 || hint > end - begin, "asked for what is there");
                    needed = hint;
                    break;
                }
                Err(error) => return (taken, Some(error)),
            }
        }
    }
    (taken, None)
}

/// A request's arguments are where they should be, whatever the split, within every limit, and nothing was taken
/// for what is only announced.
pub(super) fn requests(bytes: &[u8]) {
    let usual = Limits::default();
    let unknown = Limits {
        authenticated: false,
        ..usual
    };
    for limits in [usual, unknown, TIGHT] {
        let expected = read_requests(bytes, &limits, Arrival::Whole);
        for arrival in ARRIVALS {
            let found = read_requests(bytes, &limits, arrival(bytes));
            assert_eq!(found, expected, "the split matters");
        }
        for args in &expected.0 {
            assert!(args.iter().all(|arg| arg.len() <= limits.max_bulk as usize));
        }
    }
}

fn read_requests(bytes: &[u8], limits: &Limits, arrival: Arrival) -> Outcome<Vec<Vec<u8>>> {
    let mut progress = RequestScan::default();
    let mut args = Vec::new();
    read(bytes, arrival, |buffer| {
        if buffer[0] != b'*' {
            return inline(buffer, limits, &mut progress);
        }
        let status = bounded(64 + 4 * buffer.len(), || {
            resp::scan_request(buffer, limits, &mut progress, &mut args)
        })?;
        Ok(match status {
            RequestStatus::Complete { len } => {
                assert_eq!(progress, RequestScan::default(), "the next one begins anew");
                Look::Frame(arguments(&buffer[..len], &args), len)
            }
            RequestStatus::Incomplete { needed_hint } => Look::More(needed_hint),
        })
    })
}

/// The bytes of a request's arguments; the request is nothing else.
fn arguments(frame: &[u8], args: &[Span]) -> Vec<Vec<u8>> {
    let of = |&(start, end): &Span| frame[start as usize..end as usize].to_vec();
    let words: Vec<Vec<u8>> = args.iter().map(of).collect();
    if !words.is_empty() {
        assert_eq!(framed(&words), frame, "more or less than its arguments");
    }
    words
}

/// A request as libraries send it.
pub(super) fn framed(words: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        crate::route::write_argument(&mut frame, word);
    }
    frame
}

fn inline(
    buffer: &[u8],
    limits: &Limits,
    progress: &mut RequestScan,
) -> Result<Look<Vec<Vec<u8>>>, ProtocolError> {
    // A word of one byte costs a vector; nothing costs more.
    let line = bounded(256 + 64 * buffer.len(), || {
        resp::scan_inline(buffer, limits, progress)
    })?;
    let Some((len, words)) = line else {
        return Ok(Look::More(0));
    };
    assert_eq!(buffer[len - 1], b'\n', "a line ends at its end");
    assert_eq!(
        *progress,
        RequestScan::default(),
        "the next one begins anew"
    );
    let bytes: usize = words.iter().map(Vec::len).sum();
    assert!(bytes < len, "words of more bytes than their line");
    Ok(Look::Frame(words, len))
}

/// A reply is the same whatever the split, alone and with those that belong to it, and what it is can be said.
pub(super) fn replies(bytes: &[u8]) {
    for count in [1, 3] {
        let expected = read_replies(bytes, count, Arrival::Whole);
        for arrival in ARRIVALS {
            let found = read_replies(bytes, count, arrival(bytes));
            assert_eq!(found, expected, "the split matters");
        }
        for reply in &expected.0 {
            looked_at(reply);
        }
    }
    looked_at(bytes);
}

fn read_replies(bytes: &[u8], count: u32, arrival: Arrival) -> Outcome<Vec<u8>> {
    let mut progress = ReplyScan::default();
    read(bytes, arrival, |buffer| {
        let status = bounded(0, || resp::scan_replies(buffer, count, &mut progress))?;
        Ok(match status {
            ReplyStatus::Complete { len } => {
                assert_eq!(progress, ReplyScan::default(), "the next one begins anew");
                assert!(buffer[..len].ends_with(b"\r\n"));
                Look::Frame(buffer[..len].to_vec(), len)
            }
            ReplyStatus::Incomplete { needed_hint } => Look::More(needed_hint),
        })
    })
}

/// All that is asked of a reply; what is none gives an answer, too.
fn looked_at(reply: &[u8]) {
    let whole = resp::scan_reply(reply, &mut ReplyScan::default())
        == Ok(ReplyStatus::Complete { len: reply.len() });
    let kind = bounded(0, || resp::reply_kind(reply));
    match kind {
        ReplyKind::Bulk { len, body }
        | ReplyKind::BulkError { len, body }
        | ReplyKind::Verbatim { len, body }
            if whole =>
        {
            assert_eq!(reply.len(), body + len + 2, "a string of other bytes");
        }
        ReplyKind::Array { len, body } | ReplyKind::Set { len, body } if whole => {
            assert!(body + 3 * len <= reply.len(), "elements of no bytes");
        }
        _ => {}
    }
    let error = bounded(0, || resp::error_code(reply));
    assert!(error.is_none() || matches!(kind, ReplyKind::Error | ReplyKind::BulkError { .. }));
    let number = bounded(0, || resp::reply_integer(reply));
    assert!(number.is_none() || kind == ReplyKind::Integer);
    let run = bounded(0, || cursor::run_hash(reply));
    assert_ne!(run, Some(0));
    let parts = bounded(0, || cursor::parts(reply));
    assert!(parts.is_none_or(|(_, keys)| reply.ends_with(keys)));
}
