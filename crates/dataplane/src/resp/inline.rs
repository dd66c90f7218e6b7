//! Requests typed by hand: a line of words, as `nc` or `telnet` sends it.

use memchr::memchr;

use super::{Limits, ProtocolError, RequestScan};

/// An inline request: its length in the buffer, and its words.
pub type Inline = (usize, Vec<Vec<u8>>);

/// Finds the inline request at the start of `buf`, a line that does not begin with `*`. It ends
/// with LF or CRLF. An empty line has no words and is ignored, as Redis ignores it.
///
/// On `None` the line's end is not there yet, and `progress` remembers how far it was looked for.
///
/// # Errors
/// [`ProtocolError::Inline`] for a line above [`Limits::max_inline`], or one with a NUL in it;
/// [`ProtocolError::Quotes`] for a quote that is not closed, or not followed by a blank.
pub fn scan_inline(
    buf: &[u8],
    limits: &Limits,
    progress: &mut RequestScan,
) -> Result<Option<Inline>, ProtocolError> {
    let searched = (progress.searched as usize).min(buf.len());
    let found = memchr(b'\n', &buf[searched..]).map(|at| searched + at);
    let end = found.unwrap_or(buf.len());
    if end > limits.max_inline as usize || memchr(0, &buf[searched..end]).is_some() {
        return Err(ProtocolError::Inline);
    }
    if found.is_none() {
        progress.searched = end as u32;
        return Ok(None);
    }
    *progress = RequestScan::default();
    let line = buf[..end].strip_suffix(b"\r").unwrap_or(&buf[..end]);
    Ok(Some((end + 1, words(line)?)))
}

/// Splits a line as Redis 7.0 does: blanks part words; a quote may begin within a word and ends it;
/// `"` knows escapes, `'` only `\'`.
fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // ASCII blanks of Rust do not know the vertical tab; C's do.
        if let [b'\x0b', behind @ ..] = rest {
            rest = behind;
            continue;
        }
        if rest.is_empty() {
            return Ok(words);
        }
        let (word, behind) = first_word(rest)?;
        words.push(word);
        rest = behind;
    }
}

/// The word that `text` begins with, and what is behind it.
fn first_word(text: &[u8]) -> Result<(Vec<u8>, &[u8]), ProtocolError> {
    let mut word = Vec::new();
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => break,
            b'"' | b'\'' => {
                rest = quoted(byte, behind, &mut word)?;
                let parted = matches!(rest, [] | [b' ' | b'\t'..=b'\r', ..]);
                return parted.then_some((word, rest)).ok_or(ProtocolError::Quotes);
            }
            _ => word.push(byte),
        }
        rest = behind;
    }
    Ok((word, rest))
}

/// Takes what stands between quotes into `word`; gives what is behind the closing one.
fn quoted<'a>(quote: u8, text: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = text;
    loop {
        let (byte, behind) = match *rest {
            [] => return Err(ProtocolError::Quotes),
            [byte, ref behind @ ..] if byte == quote => return Ok(behind),
            [b'\\', b'\'', ref behind @ ..] if quote == b'\'' => (b'\'', behind),
            [b'\\', b'x', high, low, ref behind @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(high) << 4 | hex(low), behind)
            }
            [b'\\', byte, ref behind @ ..] if quote == b'"' => (unescaped(byte), behind),
            [byte, ref behind @ ..] => (byte, behind),
        };
        word.push(byte);
        rest = behind;
    }
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}
