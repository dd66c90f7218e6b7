//! Replies of RESP2 and RESP3: where one ends, and what it is. RESP3's streamed types, which no
//! server sends, are refused.

use memchr::memchr;

use super::{ProtocolError, number, short_length};

/// How far the incomplete reply at the start of a backend's buffer is known. `Default` is its
/// start. Nesting needs no stack: values that are still to come are counted, and an aggregate adds
/// its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplyScan {
    /// Where the next value begins; beyond the buffer while a bulk is still to come. 0 at the start
    /// only.
    at: usize,
    /// Bytes of the line at `at` that are known to hold no line end.
    searched: usize,
    /// Values still to come, of all nestings together.
    left: u64,
}

/// What [`scan_reply`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyStatus {
    /// The first `len` bytes of the buffer are a reply, its attributes included.
    Complete { len: usize },
    /// Another look can tell more once the buffer has `needed_hint` bytes, at the least; 0 if that
    /// is unknown.
    Incomplete { needed_hint: usize },
}

/// Finds the reply at the start of `buf`. Attributes belong to the reply behind them. On
/// `Incomplete`, `progress` knows where to go on when `buf` has grown; on `Complete` it is at the
/// start again.
///
/// # Errors
/// [`ProtocolError::Reply`]: nothing that comes on this connection can be understood any more.
pub fn scan_reply(buf: &[u8], progress: &mut ReplyScan) -> Result<ReplyStatus, ProtocolError> {
    scan_replies(buf, 1, progress)
}

/// [`scan_reply`] for `count` replies that belong together: complete once all of them are. `count`
/// is the same until then.
///
/// # Errors
/// As [`scan_reply`].
pub fn scan_replies(
    buf: &[u8],
    count: u32,
    progress: &mut ReplyScan,
) -> Result<ReplyStatus, ProtocolError> {
    if progress.at == 0 {
        progress.left = u64::from(count);
    }
    values(buf, progress)
}

/// Passes over the `progress.left` values at `progress.at`.
fn values(buf: &[u8], progress: &mut ReplyScan) -> Result<ReplyStatus, ProtocolError> {
    loop {
        let at = progress.at;
        if at > buf.len() {
            return Ok(ReplyStatus::Incomplete { needed_hint: at });
        }
        // Behind a header this was checked already; behind a bulk it was not.
        if at > 0 && !buf[..at].ends_with(b"\r\n") {
            return Err(ProtocolError::Reply);
        }
        if progress.left == 0 {
            *progress = ReplyScan::default();
            return Ok(ReplyStatus::Complete { len: at });
        }
        let Some(header) = header(&buf[at..], &mut progress.searched)? else {
            return Ok(ReplyStatus::Incomplete { needed_hint: 0 });
        };
        let left = (progress.left - 1).checked_add(header.values);
        *progress = ReplyScan {
            at: at.saturating_add(header.bytes),
            searched: 0,
            left: left.ok_or(ProtocolError::Reply)?,
        };
    }
}

/// What a value's first line says: how many bytes it takes together with a bulk behind it, and how
/// many values follow that belong to it.
struct Header {
    bytes: usize,
    values: u64,
}

/// Reads the line at the start of `rest`; `None` if it is not whole, and `searched` bytes then hold
/// no end of it.
fn header(rest: &[u8], searched: &mut usize) -> Result<Option<Header>, ProtocolError> {
    let Some(&kind) = rest.first() else {
        return Ok(None);
    };
    if rest.starts_with(b"+OK\r\n") {
        return Ok(Some(Header {
            bytes: 5,
            values: 0,
        }));
    }
    if let Some((length, end)) = short_length(rest) {
        return sized(kind, Some(u64::from(length)), end).map(Some);
    }
    known(kind)?;
    let from = (*searched).min(rest.len());
    let Some(end) = memchr(b'\r', &rest[from..]).map(|at| from + at) else {
        *searched = rest.len();
        return Ok(None);
    };
    match rest.get(end + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(ProtocolError::Reply),
        None => {
            *searched = end;
            return Ok(None);
        }
    }
    let text = &rest[1..end];
    if matches!(kind, b'$' | b'*') && text == b"-1" {
        return Ok(Some(Header {
            bytes: end + 2,
            values: 0,
        }));
    }
    // Far above what any server sends, and low enough that sums of lengths do not overflow.
    let length = number(text).and_then(|n| u32::try_from(n).ok());
    sized(kind, length.map(u64::from), end + 2).map(Some)
}

/// The header of a value of `kind` whose line is `line` bytes long and says `length`, if it is a
/// number at all.
fn sized(kind: u8, length: Option<u64>, line: usize) -> Result<Header, ProtocolError> {
    let (bulk, values) = match kind {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => (None, Some(0)),
        b'$' | b'=' | b'!' => (length, Some(0)),
        b'*' | b'~' | b'>' => (None, length),
        b'%' => (None, length.map(|n| 2 * n)),
        // The value that the attribute belongs to is still to come.
        b'|' => (None, length.map(|n| 2 * n + 1)),
        _ => return Err(ProtocolError::Reply),
    };
    if matches!(kind, b'$' | b'=' | b'!') && bulk.is_none() {
        return Err(ProtocolError::Reply);
    }
    Ok(Header {
        bytes: line + bulk.map_or(0, |n| n as usize + 2),
        values: values.ok_or(ProtocolError::Reply)?,
    })
}

/// Whether a value can begin with this byte: what is wrong is said before the line's end is there.
fn known(kind: u8) -> Result<(), ProtocolError> {
    if b"+-:_,#($=!*~>%|".contains(&kind) {
        Ok(())
    } else {
        Err(ProtocolError::Reply)
    }
}

/// What a reply is, from its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    Simple,
    Error,
    Integer,
    /// `len` bytes from `body` on.
    Bulk {
        len: usize,
        body: usize,
    },
    /// RESP3's `_`, and RESP2's `$-1` and `*-1`.
    Null,
    /// `len` elements, the first at `body`.
    Array {
        len: usize,
        body: usize,
    },
    /// `len` pairs, the first at `body`.
    Map {
        len: usize,
        body: usize,
    },
    /// `len` elements, the first at `body`.
    Set {
        len: usize,
        body: usize,
    },
    /// Answers no request: a message of a subscription, or an invalidation.
    Push,
    Double,
    Boolean,
    BigNumber,
    /// An error with any bytes in it.
    BulkError {
        len: usize,
        body: usize,
    },
    /// `len` bytes from `body` on, the first four a format such as `txt:`.
    Verbatim {
        len: usize,
        body: usize,
    },
}

/// The kind of the reply that `buf` begins with, of which at least the first line is there (behind
/// attributes: the attributes and the line). Positions count from the start of `buf`.
pub fn reply_kind(buf: &[u8]) -> ReplyKind {
    let start = behind_attributes(buf);
    let reply = &buf[start..];
    let end = memchr(b'\r', reply).unwrap_or(reply.len());
    let number = reply.get(1..end).and_then(number);
    let len = number.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let body = start + end + 2;
    match reply.first() {
        Some(b'+') => ReplyKind::Simple,
        Some(b'-') => ReplyKind::Error,
        Some(b':') => ReplyKind::Integer,
        Some(b'$' | b'*') if number == Some(-1) => ReplyKind::Null,
        Some(b'$') => ReplyKind::Bulk { len, body },
        Some(b'*') => ReplyKind::Array { len, body },
        Some(b'%') => ReplyKind::Map { len, body },
        Some(b'~') => ReplyKind::Set { len, body },
        Some(b'>') => ReplyKind::Push,
        Some(b',') => ReplyKind::Double,
        Some(b'#') => ReplyKind::Boolean,
        Some(b'(') => ReplyKind::BigNumber,
        Some(b'!') => ReplyKind::BulkError { len, body },
        Some(b'=') => ReplyKind::Verbatim { len, body },
        _ => ReplyKind::Null,
    }
}

/// Where the reply itself begins.
fn behind_attributes(buf: &[u8]) -> usize {
    let mut start = 0;
    while let Some(attribute @ [b'|', ..]) = buf.get(start..) {
        let Ok(Some(header)) = header(attribute, &mut 0) else {
            break;
        };
        let mut pairs = ReplyScan {
            at: header.bytes,
            searched: 0,
            left: header.values - 1,
        };
        let Ok(ReplyStatus::Complete { len }) = values(attribute, &mut pairs) else {
            break;
        };
        start += len;
    }
    start
}

/// The value of an integer reply; `None` for other replies.
pub fn reply_integer(buf: &[u8]) -> Option<i64> {
    let line = buf.get(behind_attributes(buf)..)?.strip_prefix(b":")?;
    number(&line[..memchr(b'\r', line)?])
}

/// The code of an error reply: `READONLY` of `-READONLY You can't write ...`; `None` for other
/// replies.
#[inline]
pub fn error_code(buf: &[u8]) -> Option<&[u8]> {
    let text = match buf.first()? {
        b'-' => &buf[1..],
        b'!' | b'|' => match reply_kind(buf) {
            ReplyKind::Error => &buf[behind_attributes(buf) + 1..],
            ReplyKind::BulkError { len, body } => buf.get(body..body + len)?,
            _ => return None,
        },
        _ => return None,
    };
    let end = text.iter().position(|byte| matches!(byte, b' ' | b'\r'));
    Some(&text[..end.unwrap_or(text.len())])
}
