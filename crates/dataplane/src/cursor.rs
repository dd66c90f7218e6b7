//! The one cursor of SCAN over all shards of a pool: stateless, and the same through every proxy.
//!
//! ```text
//!  bits  63 .. 30                29 .. 20                  19 .. 0
//!        the server's cursor     place of the shard        hash of the run id of the server
//!                                by sorted name            that the cursor is from
//! ```
//! A server's cursor means something only to that run of it: another run, or another server, hashes keys with
//! another seed. So a shard whose run has changed is scanned again from 0, and SCAN's guarantee holds over failovers,
//! with duplicates. The server's cursor stands highest because it is small in small databases: what a client may
//! round to a double stays exact there. `worker/scan` reads and writes cursors.

use crate::resp;

const HASH_BITS: u32 = 20;
const SHARD_BITS: u32 = 10;
const BELOW: u32 = HASH_BITS + SHARD_BITS;
/// Most shards that a pool may have to be scanned.
pub(crate) const MOST_SHARDS: usize = 1 << SHARD_BITS;

/// Where a scan is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cursor {
    /// The shard's place by sorted name.
    pub(crate) place: usize,
    /// Of the run that `at` is from.
    pub(crate) run: u32,
    /// The server's own cursor; at 0 the shard begins, whatever the run.
    pub(crate) at: u64,
}

impl Cursor {
    /// The beginning of a shard, which is not the beginning of the whole: a client that gets it goes on.
    pub(crate) fn start_of(place: usize) -> Self {
        Self {
            place,
            run: 1,
            at: 0,
        }
    }

    /// Reads what a client sent; `None` if it is no number.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let number: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
        Some(Self {
            place: (number >> HASH_BITS) as usize & (MOST_SHARDS - 1),
            run: number as u32 & ((1 << HASH_BITS) - 1),
            at: number >> BELOW,
        })
    }

    /// What a client is given; `None` if the server's cursor is too large for it.
    pub(crate) fn number(self) -> Option<u64> {
        let fits = self.at < 1 << (u64::BITS - BELOW) && self.place < MOST_SHARDS;
        fits.then(|| self.at << BELOW | (self.place as u64) << HASH_BITS | u64::from(self.run))
    }
}

/// The hash of the run id in a server's INFO, never 0; `None` if there is none.
pub(crate) fn run_hash(info: &[u8]) -> Option<u32> {
    let begin = memchr::memmem::find(info, b"run_id:")? + b"run_id:".len();
    let id = &info[begin..begin + memchr::memchr(b'\r', &info[begin..])?];
    let hash = id.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let folded = (hash ^ hash >> HASH_BITS ^ hash >> (2 * HASH_BITS)) as u32;
    Some((folded & ((1 << HASH_BITS) - 1)).max(1))
}

/// A server's reply to SCAN: its cursor, and the bytes of the keys' array.
pub(crate) fn parts(reply: &[u8]) -> Option<(u64, &[u8])> {
    let resp::ReplyKind::Array { len: 2, body } = resp::reply_kind(reply) else {
        return None;
    };
    let rest = reply.get(body..)?;
    let resp::ReplyKind::Bulk { len, body } = resp::reply_kind(rest) else {
        return None;
    };
    let at = std::str::from_utf8(rest.get(body..body + len)?)
        .ok()?
        .parse()
        .ok()?;
    Some((at, rest.get(body + len + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::{Cursor, MOST_SHARDS, parts, run_hash};

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for place in [0, 1, MOST_SHARDS - 1] {
            for at in [0, 1, (1 << 34) - 1] {
                let cursor = Cursor { place, run: 77, at };
                let number = cursor.number().expect("it fits");
                assert_eq!(Cursor::parse(number.to_string().as_bytes()), Some(cursor));
                assert_ne!(number, 0);
            }
        }
    }

    #[test]
    fn a_servers_cursor_that_is_too_large_is_an_error_and_not_another_cursor() {
        let cursor = Cursor {
            place: 0,
            run: 1,
            at: 1 << 34,
        };
        assert_eq!(cursor.number(), None);
    }

    #[test]
    fn only_the_beginning_is_zero() {
        assert_eq!(
            Cursor::parse(b"0").map(|cursor| (cursor.place, cursor.at)),
            Some((0, 0))
        );
        assert_ne!(Cursor::start_of(0).number(), Some(0));
        for bad in ["", "x", "-1", "18446744073709551616", "1 "] {
            assert_eq!(Cursor::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_run_id_is_found_in_info() {
        let one = run_hash(b"$60\r\n# Server\r\nrun_id:0123456789abcdef\r\ntcp_port:1\r\n\r\n");
        let other = run_hash(b"=60\r\ntxt:# Server\r\nrun_id:0123456789abcdee\r\n\r\n");
        assert!(one.is_some() && other.is_some() && one != other);
        assert_eq!(run_hash(b"-NOPERM no\r\n"), None);
    }

    #[test]
    fn a_reply_has_a_cursor_and_keys() {
        let reply = b"*2\r\n$2\r\n17\r\n*1\r\n$1\r\nk\r\n";
        assert_eq!(parts(reply), Some((17, &b"*1\r\n$1\r\nk\r\n"[..])));
        assert_eq!(parts(b"*0\r\n"), None);
    }
}
