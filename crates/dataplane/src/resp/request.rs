//! Requests as clients' libraries send them: `*2\r\n$3\r\nGET\r\n$1\r\na\r\n`.

use memchr::memchr;

use super::{ProtocolError, Span, number, short_length};

/// What a client may ask for; `Default` is Redis's own measure.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Arguments of one request. Redis before 7.0: 1024 * 1024, as here; since then 2^31 - 1.
    pub max_args: u32,
    /// Bytes of one argument. Redis: `proto-max-bulk-len`, 512 MiB.
    pub max_bulk: u32,
    /// Bytes of an inline request, or of a line that holds a length. Redis: 64 KiB.
    pub max_inline: u32,
    /// False while the client has yet to give a password: until then a request may have 10
    /// arguments of 16 KiB, as in Redis.
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

/// How far the one incomplete request at the start of a client's buffer is known. `Default` is its
/// start.
///
/// ```text
/// *2\r\n $3\r\n GET\r\n $5\r\n hel
///        at:0  →  at:4, left:2  →  at:13, left:1  →  at:24 (the bulk's end, not there yet), left:0
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestScan {
    /// Where the next length line begins; beyond the buffer while a bulk is still to come. 0 at
    /// the start only.
    at: u32,
    /// Bytes of the line at `at` that are known to hold no line end.
    pub(super) searched: u32,
    /// Arguments whose length is not known yet.
    left: u32,
}

/// What [`scan_request`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestStatus {
    /// The first `len` bytes of the buffer are a request.
    Complete { len: usize },
    /// Another look can tell more once the buffer has `needed_hint` bytes, at the least; 0 if that
    /// is unknown.
    Incomplete { needed_hint: usize },
}

const MORE: RequestStatus = RequestStatus::Incomplete { needed_hint: 0 };

/// Finds the request at the start of `buf`, which begins with `*`; any other byte is for
/// [`scan_inline`](super::scan_inline).
///
/// On `Complete`, `args` holds the spans of all arguments (none for `*0` and `*-1`, which are
/// ignored as Redis ignores them) and `progress` is at the start again. On `Incomplete`, `progress`
/// knows where to go on when `buf` has grown, and `args` says nothing. `args` grows with the
/// arguments that are there, never by what a length announces.
///
/// # Errors
/// The [`ProtocolError`] to answer with; the connection is of no further use.
pub fn scan_request(
    buf: &[u8],
    limits: &Limits,
    progress: &mut RequestScan,
    args: &mut Vec<Span>,
) -> Result<RequestStatus, ProtocolError> {
    args.clear();
    let resumed = progress.at > 0;
    if !resumed && !start(buf, limits, progress)? {
        return Ok(MORE);
    }
    loop {
        let at = progress.at as usize;
        if at > buf.len() {
            return Ok(RequestStatus::Incomplete { needed_hint: at });
        }
        if !buf[..at].ends_with(b"\r\n") {
            return Err(ProtocolError::Crlf);
        }
        if progress.left == 0 {
            break;
        }
        let Some(span) = next_argument(buf, limits, progress)? else {
            return Ok(MORE);
        };
        if !resumed {
            args.push(span);
        }
    }
    let len = progress.at as usize;
    *progress = RequestScan::default();
    if resumed {
        // Earlier calls saw the earlier arguments: one more walk over the lengths finds them all.
        return scan_request(&buf[..len], limits, progress, args);
    }
    Ok(RequestStatus::Complete { len })
}

/// Reads the line with the number of arguments; false if it is not whole yet.
fn start(buf: &[u8], limits: &Limits, progress: &mut RequestScan) -> Result<bool, ProtocolError> {
    let too_long = ProtocolError::MultibulkLine;
    let (count, end) = match length(buf, b'*', too_long, limits, progress.searched)? {
        Length::Whole(count, end) => (count, end),
        Length::Part(searched) => {
            progress.searched = searched;
            return Ok(false);
        }
    };
    let count = count
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

/// Reads the line with the length of an argument and steps behind that argument, which need not be
/// there yet; `None` if the line is not whole.
fn next_argument(
    buf: &[u8],
    limits: &Limits,
    progress: &mut RequestScan,
) -> Result<Option<Span>, ProtocolError> {
    let line = &buf[progress.at as usize..];
    let too_long = ProtocolError::BulkLine;
    let (len, end) = match length(line, b'$', too_long, limits, progress.searched)? {
        Length::Whole(len, end) => (len, end),
        Length::Part(searched) => {
            progress.searched = searched;
            return Ok(None);
        }
    };
    let len = len
        .and_then(|n| u32::try_from(n).ok())
        .filter(|&n| n <= limits.max_bulk)
        .ok_or(ProtocolError::BulkLength)?;
    if len > UNAUTHENTICATED_BULK && !limits.authenticated {
        return Err(ProtocolError::UnauthenticatedBulkLength);
    }
    // Spans are 32 bits wide: a request of 4 GiB is too long whatever the limits say.
    let behind = (end as u32 + 2).checked_add(len);
    let next = behind
        .and_then(|n| progress.at.checked_add(n))
        .ok_or(ProtocolError::BulkLength)?;
    let start = progress.at + end as u32;
    *progress = RequestScan {
        at: next,
        searched: 0,
        left: progress.left - 1,
    };
    Ok(Some((start, start + len)))
}

/// What a line says that should hold a length.
enum Length {
    /// The number, if it is one, and where the line ends.
    Whole(Option<i64>, usize),
    /// The line is not whole: so many bytes of it hold no end.
    Part(u32),
}

/// Reads a line of `kind`, a number and CRLF, of which `searched` bytes are known to hold no end.
#[inline]
fn length(
    line: &[u8],
    kind: u8,
    too_long: ProtocolError,
    limits: &Limits,
    searched: u32,
) -> Result<Length, ProtocolError> {
    match line.first() {
        None => return Ok(Length::Part(0)),
        Some(&got) if got != kind => {
            return Err(ProtocolError::Expected {
                expected: kind,
                got,
            });
        }
        Some(_) => {}
    }
    match short_length(line) {
        Some((value, end)) => Ok(Length::Whole(Some(i64::from(value)), end)),
        None => slow_length(
            line,
            too_long,
            limits.max_inline as usize,
            searched as usize,
        ),
    }
}

/// [`length`] for lines that are incomplete, wrong or very long.
#[cold]
fn slow_length(
    line: &[u8],
    too_long: ProtocolError,
    max_line: usize,
    searched: usize,
) -> Result<Length, ProtocolError> {
    let searched = searched.min(line.len());
    let found = memchr(b'\r', &line[searched..]).map(|at| searched + at);
    let end = found.unwrap_or(line.len());
    if end > max_line {
        return Err(too_long);
    }
    match found.and_then(|at| line.get(at + 1)) {
        None => Ok(Length::Part(end as u32)),
        Some(b'\n') => Ok(Length::Whole(number(&line[1..end]), end + 2)),
        Some(_) => Err(ProtocolError::Crlf),
    }
}
