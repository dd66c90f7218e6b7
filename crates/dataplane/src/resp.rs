//! Where a request or a reply ends: RESP2 and RESP3 frames found in a read buffer, without copying them.
//!
//! Owns the framing of both sides. The rules it keeps: a frame is found in one pass, without allocating; what
//! is not whole yet is resumed where the last look stopped, so a peer that sends single bytes costs as much as
//! one that sends all at once; every length is checked before anyone takes memory for it; any bytes give
//! frames or one error, the same whole and byte by byte. `client` calls [`scan_request`] and
//! [`scan_inline`], `backend` calls [`scan_reply`], `coalesce` looks into replies with [`reply_kind`].
//!
//! Where Redis 7.0 is laxer we are strict, because a frame is forwarded as it came and a peer that has lost
//! count must not be believed: the two bytes after a length and after a bulk must be CRLF (Redis skips them
//! unread), an inline request may not hold a NUL (Redis waits for ever), and a `$` is missed as soon as another
//! byte is there.

use memchr::memchr;

/// What a client may ask for. `Display` of [`ProtocolError`] says which limit was passed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Arguments of one request. Redis: 2^31 - 1; 1024 * 1024 before 7.0.
    pub max_args: u32,
    /// Bytes of one argument. Redis: `proto-max-bulk-len`, 512 MiB.
    pub max_bulk: u32,
    /// Bytes of an inline request or of a line that holds a length. Redis: 64 KiB.
    pub max_inline: u32,
    /// False while a client has yet to give a password: then 10 arguments of 16 KiB are the most, as in Redis.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_args: 1024 * 1024,
            max_bulk: 512 * 1024 * 1024,
            max_inline: 64 * 1024,
            authenticated: true,
        }
    }
}

const UNAUTHENTICATED_ARGS: u32 = 10;
const UNAUTHENTICATED_BULK: u32 = 16 * 1024;

/// A range of the scanned buffer: start, end.
pub type Span = (u32, u32);

/// Why a peer cannot be understood. `Display` is what Redis 7.0 says after `-ERR `; like Redis, the proxy
/// answers with it and closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("Protocol error: invalid multibulk length")]
    MultibulkLength,
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    #[error("Protocol error: too big mbulk count string")]
    MultibulkLine,
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    #[error("Protocol error: too big bulk count string")]
    BulkLine,
    #[error("Protocol error: expected '{}', got '{}'", char::from(*.expected), printable(*.got))]
    Expected { expected: u8, got: u8 },
    #[error("Protocol error: bulk not followed by CRLF")]
    BulkEnd,
    #[error("Protocol error: too big inline request")]
    Inline,
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    #[error("Protocol error: invalid reply")]
    Reply,
}

/// A byte as it may stand in an error line.
fn printable(byte: u8) -> char {
    match byte {
        b' '..=b'~' => char::from(byte),
        b'\r' | b'\n' => ' ',
        _ => '?',
    }
}

/// How far the one incomplete request at the start of a client's buffer is known. `Default` is its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestScan {
    /// Where the next length line begins: may lie beyond the buffer, behind a bulk that is still to come.
    at: u32,
    /// Bytes of the line at `at` that are known to hold no line end.
    searched: u32,
    /// Bulks still to come; meaningless at the start.
    left: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestStatus {
    /// The first `len` bytes of the buffer are a request.
    Complete { len: usize },
    /// The buffer must have at least `needed_hint` bytes before another look can tell more; 0 if unknown.
    Incomplete { needed_hint: usize },
}

/// A line that holds a length, as far as it is there.
enum Line {
    /// The value, if it is one, and where the line's end is.
    Whole(Option<i64>, usize),
    Part(u32),
    TooLong,
}

/// Finds the request at the start of `buf`, which begins with `*`.
///
/// On `Complete`, `args` holds the spans of all its arguments (none for `*0`, `*-1` and empty lines, which
/// are ignored as Redis ignores them) and `progress` is at the start again. On `Incomplete`, `progress`
/// remembers where to go on when `buf` has grown; `args` says nothing.
///
/// # Errors
/// The [`ProtocolError`] that Redis would answer with; the connection is of no further use.
pub fn scan_request(
    buf: &[u8],
    limits: &Limits,
    progress: &mut RequestScan,
    args: &mut Vec<Span>,
) -> Result<RequestStatus, ProtocolError> {
    args.clear();
    let resumed = progress.at > 0;
    if !resumed && !start_request(buf, limits, progress)? {
        return Ok(RequestStatus::Incomplete { needed_hint: 0 });
    }
    loop {
        let at = progress.at as usize;
        if at > buf.len() {
            return Ok(RequestStatus::Incomplete { needed_hint: at });
        }
        if !buf[..at].ends_with(b"\r\n") {
            return Err(ProtocolError::BulkEnd);
        }
        if progress.left == 0 {
            break;
        }
        let Some(span) = next_bulk(buf, limits, progress)? else {
            return Ok(RequestStatus::Incomplete { needed_hint: 0 });
        };
        if !resumed {
            args.push(span);
        }
    }
    let len = progress.at as usize;
    *progress = RequestScan::default();
    if resumed {
        // The earlier arguments were seen by earlier calls: one more walk over the headers finds them all.
        return scan_request(&buf[..len], limits, progress, args);
    }
    Ok(RequestStatus::Complete { len })
}

/// Reads the line with the number of arguments; false if it is not whole yet.
fn start_request(
    buf: &[u8],
    limits: &Limits,
    progress: &mut RequestScan,
) -> Result<bool, ProtocolError> {
    match buf.first() {
        None => return Ok(false),
        Some(b'*') => {}
        Some(&got) => {
            return Err(ProtocolError::Expected {
                expected: b'*',
                got,
            });
        }
    }
    let (value, end) = match length_line(buf, progress.searched, limits) {
        Line::Whole(value, end) => (value, end),
        Line::Part(searched) => {
            progress.searched = searched;
            return Ok(false);
        }
        Line::TooLong => return Err(ProtocolError::MultibulkLine),
    };
    let count = value
        .filter(|&n| n <= i64::from(limits.max_args))
        .ok_or(ProtocolError::MultibulkLength)?;
    let count = u32::try_from(count).unwrap_or(0);
    if count > UNAUTHENTICATED_ARGS && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedMultibulkLength);
    }
    *progress = RequestScan {
        at: end as u32,
        searched: 0,
        left: count,
    };
    Ok(true)
}

/// Reads the bulk's length at `progress.at` and steps behind the bulk, which need not be there yet.
fn next_bulk(
    buf: &[u8],
    limits: &Limits,
    progress: &mut RequestScan,
) -> Result<Option<Span>, ProtocolError> {
    let rest = &buf[progress.at as usize..];
    match rest.first() {
        None => return Ok(None),
        Some(b'$') => {}
        Some(&got) => {
            return Err(ProtocolError::Expected {
                expected: b'$',
                got,
            });
        }
    }
    let (value, end) = match length_line(rest, progress.searched, limits) {
        Line::Whole(value, end) => (value, end),
        Line::Part(searched) => {
            progress.searched = searched;
            return Ok(None);
        }
        Line::TooLong => return Err(ProtocolError::BulkLine),
    };
    let len = value
        .and_then(|n| u32::try_from(n).ok())
        .filter(|&n| n <= limits.max_bulk)
        .ok_or(ProtocolError::BulkLength)?;
    if len > UNAUTHENTICATED_BULK && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedBulkLength);
    }
    let start = progress.at + end as u32;
    let next = start
        .checked_add(len)
        .and_then(|n| n.checked_add(2))
        .ok_or(ProtocolError::BulkLength)?;
    *progress = RequestScan {
        at: next,
        searched: 0,
        left: progress.left - 1,
    };
    Ok(Some((start, next - 2)))
}

/// Reads a line of a type byte, a number and CRLF.
fn length_line(line: &[u8], searched: u32, limits: &Limits) -> Line {
    let from = (searched as usize).max(1).min(line.len());
    let Some(cr) = memchr(b'\r', &line[from..]).map(|i| from + i) else {
        return if line.len() > limits.max_inline as usize {
            Line::TooLong
        } else {
            Line::Part(line.len() as u32)
        };
    };
    if cr > limits.max_inline as usize {
        return Line::TooLong;
    }
    match line.get(cr + 1) {
        None => Line::Part(cr as u32),
        Some(b'\n') => Line::Whole(number(&line[1..cr]), cr + 2),
        Some(_) => Line::Whole(None, cr + 2),
    }
}

/// A number as Redis takes it: no sign but `-`, no leading zeros, within 64 bits.
fn number(digits: &[u8]) -> Option<i64> {
    let (negative, magnitude) = match digits {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, digits),
    };
    if magnitude.is_empty() || magnitude.len() > 19 || (magnitude[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut value = 0_i64;
    for &digit in magnitude {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        value = value.checked_mul(10)?;
        value = if negative {
            value.checked_sub(digit)?
        } else {
            value.checked_add(digit)?
        };
    }
    Some(value)
}

/// An inline request: its length in the buffer and its words.
pub type Inline = (usize, Vec<Vec<u8>>);

/// Finds the inline request at the start of `buf`: a line that does not begin with `*`. `None` while its end
/// is not there; an empty line has no words and is ignored.
///
/// # Errors
/// [`ProtocolError::Inline`] for a line above the limit, [`ProtocolError::Quotes`] for quotes that do not
/// close or are not followed by a blank.
pub fn scan_inline(
    buf: &[u8],
    limits: &Limits,
    progress: &mut RequestScan,
) -> Result<Option<Inline>, ProtocolError> {
    let from = (progress.searched as usize).min(buf.len());
    let Some(end) = memchr(b'\n', &buf[from..]).map(|i| from + i) else {
        if buf.len() > limits.max_inline as usize {
            return Err(ProtocolError::Inline);
        }
        progress.searched = buf.len() as u32;
        return Ok(None);
    };
    if end > limits.max_inline as usize {
        return Err(ProtocolError::Inline);
    }
    *progress = RequestScan::default();
    let line = buf[..end].strip_suffix(b"\r").unwrap_or(&buf[..end]);
    Ok(Some((end + 1, split_words(line)?)))
}

fn split_words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    Ok(line
        .split(u8::is_ascii_whitespace)
        .filter(|w| !w.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

/// How far the incomplete reply at the start of a backend's buffer is known. `Default` is its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplyScan {
    at: u64,
    searched: u64,
    /// Values still to come, all nestings together.
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyStatus {
    /// The first `len` bytes of the buffer are a reply, attributes included.
    Complete { len: usize },
    /// The buffer must have at least `needed_hint` bytes before another look can tell more; 0 if unknown.
    Incomplete { needed_hint: usize },
}

/// Finds the reply at the start of `buf`.
pub fn scan_reply(buf: &[u8], progress: &mut ReplyScan) -> Result<ReplyStatus, ProtocolError> {
    if progress.at == 0 {
        progress.left = 1;
    }
    loop {
        let at = progress.at as usize;
        if at > buf.len() {
            return Ok(ReplyStatus::Incomplete { needed_hint: at });
        }
        if at > 0 && !buf[..at].ends_with(b"\r\n") {
            return Err(ProtocolError::Reply);
        }
        if progress.left == 0 {
            *progress = ReplyScan::default();
            return Ok(ReplyStatus::Complete { len: at });
        }
        let rest = &buf[at..];
        let from = (progress.searched as usize).min(rest.len());
        let Some(cr) = memchr(b'\r', &rest[from..]).map(|i| from + i) else {
            progress.searched = rest.len() as u64;
            return Ok(ReplyStatus::Incomplete { needed_hint: 0 });
        };
        match rest.get(cr + 1) {
            None => {
                progress.searched = cr as u64;
                return Ok(ReplyStatus::Incomplete { needed_hint: 0 });
            }
            Some(b'\n') => {}
            Some(_) => return Err(ProtocolError::Reply),
        }
        let (skip, more) = element(&rest[..cr])?;
        progress.at += cr as u64 + 2 + skip;
        progress.searched = 0;
        progress.left = (progress.left - 1)
            .checked_add(more)
            .ok_or(ProtocolError::Reply)?;
    }
}

/// What a header line announces: bytes of a bulk behind it, values behind it.
fn element(line: &[u8]) -> Result<(u64, u64), ProtocolError> {
    let (&kind, rest) = line.split_first().ok_or(ProtocolError::Reply)?;
    let len = || match number(rest) {
        Some(n @ 0..=0xffff_ffff) => Ok(n.unsigned_abs()),
        _ => Err(ProtocolError::Reply),
    };
    Ok(match kind {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => (0, 0),
        b'$' | b'*' if rest == b"-1" => (0, 0),
        b'$' | b'=' | b'!' => (len()? + 2, 0),
        b'*' | b'~' | b'>' => (0, len()?),
        b'%' => (0, 2 * len()?),
        b'|' => (0, 2 * len()? + 1),
        _ => return Err(ProtocolError::Reply),
    })
}

/// What a reply is, from its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    Simple,
    Error,
    Integer,
    /// `body` is where its bytes begin.
    Bulk {
        len: usize,
        body: usize,
    },
    /// RESP3's `_`, RESP2's `$-1` and `*-1`.
    Null,
    /// `body` is where its first element begins.
    Array {
        len: usize,
        body: usize,
    },
    Map {
        len: usize,
        body: usize,
    },
    Set {
        len: usize,
        body: usize,
    },
    Push,
    Double,
    Boolean,
    BigNumber,
    BulkError,
    Verbatim {
        len: usize,
        body: usize,
    },
}

/// The kind of the complete reply `buf`; attributes before it are passed over.
pub fn reply_kind(buf: &[u8]) -> ReplyKind {
    let end = memchr(b'\r', buf).unwrap_or(buf.len());
    let body = end + 2;
    let len = buf.get(1..end).and_then(number);
    let size = len.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    match buf.first() {
        Some(b'+') => ReplyKind::Simple,
        Some(b'-') => ReplyKind::Error,
        Some(b':') => ReplyKind::Integer,
        Some(b'$' | b'*') if len == Some(-1) => ReplyKind::Null,
        Some(b'$') => ReplyKind::Bulk { len: size, body },
        Some(b'*') => ReplyKind::Array { len: size, body },
        Some(b'%') => ReplyKind::Map { len: size, body },
        Some(b'~') => ReplyKind::Set { len: size, body },
        Some(b'>') => ReplyKind::Push,
        Some(b',') => ReplyKind::Double,
        Some(b'#') => ReplyKind::Boolean,
        Some(b'(') => ReplyKind::BigNumber,
        Some(b'!') => ReplyKind::BulkError,
        Some(b'=') => ReplyKind::Verbatim { len: size, body },
        _ => ReplyKind::Null,
    }
}

/// The value of a complete integer reply.
pub fn reply_integer(buf: &[u8]) -> Option<i64> {
    let line = buf.strip_prefix(b":")?;
    number(&line[..memchr(b'\r', line)?])
}

/// The code of an error reply: `READONLY` of `-READONLY You can't write ...`; `None` for other replies.
pub fn error_code(buf: &[u8]) -> Option<&[u8]> {
    let line = buf.strip_prefix(b"-")?;
    let end = line.iter().position(|b| matches!(b, b' ' | b'\r'))?;
    Some(&line[..end])
}
