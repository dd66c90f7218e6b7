//! Where a request or a reply ends: RESP2 and RESP3 frames found in a read buffer, not copied.
//!
//! Owns the framing of both sides: `resp/request.rs`, `resp/inline.rs` and `resp/reply.rs`. The
//! rules it keeps: a frame is found in one pass and without allocating; what is not whole yet is
//! resumed where the last look stopped, so that a peer that sends single bytes costs as much as one
//! that sends all at once; every length is checked before anyone takes memory for it; any bytes
//! give frames or one error, the same whole and byte by byte. `worker` scans what clients and
//! backends send, `coalesce` takes replies apart.
//!
//! Errors and limits are Redis 7.0's, with these exceptions. A frame goes to a shard as it came, so
//! a peer that has lost count must not be believed: the two bytes after a length and after a bulk
//! must be CRLF, as Valkey 9 demands it and in its words (Redis 7.0 skips them unread). What can
//! only be wrong is refused at once, in the words that Redis has for it in the end: a byte that
//! stands where `$` must (Redis waits for the line's end), and a NUL in a line typed by hand, behind
//! which Redis never looks for the line's end. So TLS on this port fails, and does not hang. And a
//! request has 1024 * 1024 arguments at most, as in Redis before 7.0.

mod inline;
mod reply;
mod request;

pub use inline::{Inline, scan_inline};
pub use reply::{
    ReplyKind, ReplyScan, ReplyStatus, error_code, reply_integer, reply_kind, scan_replies,
    scan_reply,
};
pub use request::{Limits, RequestScan, RequestStatus, scan_request};

/// A range of the scanned buffer: start, end.
pub type Span = (u32, u32);

/// Why a peer cannot be understood. `Display` is what Redis says after `-ERR `; like Redis, the
/// proxy answers with it and closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// No line end within [`Limits::max_inline`] bytes.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkLine,
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// No line end within [`Limits::max_inline`] bytes.
    #[error("Protocol error: too big bulk count string")]
    BulkLine,
    #[error("Protocol error: expected '{}', got '{}'", printable(*.expected), printable(*.got))]
    Expected { expected: u8, got: u8 },
    /// A length or a bulk is not followed by CRLF.
    #[error("Protocol error: invalid CRLF in request")]
    Crlf,
    /// Also a line with a NUL in it.
    #[error("Protocol error: too big inline request")]
    Inline,
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// A server sent what is no RESP2 or RESP3 reply. Never shown to clients in these words.
    #[error("Protocol error: invalid reply")]
    Reply,
}

/// A byte as it may stand in an error line. Redis puts a byte of 0x80 and above there raw; a `?`
/// keeps the line valid UTF-8.
fn printable(byte: u8) -> char {
    match byte {
        b' '..=b'~' => char::from(byte),
        b'\r' | b'\n' => ' ',
        _ => '?',
    }
}

/// A number as Redis reads it: digits with at most a `-` before them, no leading zero, 64 bits.
pub(crate) fn number(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0', ..] if text.len() > 1 => return None,
        _ => {}
    }
    digits.iter().try_fold(0_i64, |value, &byte| {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        let value = value.checked_mul(10).filter(|_| digit <= 9)?;
        if negative {
            value.checked_sub(digit)
        } else {
            value.checked_add(digit)
        }
    })
}

/// The fast path for the line of a length, `$12\r\n`: the length and where the line ends. `None` if
/// the line is anything but whole, correct and below a thousand million.
#[inline]
fn short_length(line: &[u8]) -> Option<(u32, usize)> {
    // Nearly all lengths have one digit or two.
    match *line {
        [_, a @ b'0'..=b'9', b'\r', b'\n', ..] => Some((u32::from(a - b'0'), 4)),
        [_, a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((u32::from(a - b'0') * 10 + u32::from(b - b'0'), 5))
        }
        _ => longer_length(line),
    }
}

/// [`short_length`] for up to nine digits.
fn longer_length(line: &[u8]) -> Option<(u32, usize)> {
    let digits = line.get(1..)?;
    let count = digits
        .iter()
        .take(10)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let whole = digits.get(count..count + 2)? == b"\r\n";
    if !whole || !matches!(count, 1..=9) || (digits[0] == b'0' && count > 1) {
        return None;
    }
    let value = digits[..count]
        .iter()
        .fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
    Some((value, count + 3))
}
