//! Scripts that have passed through a pool, by their SHA-1: what an EVALSHA is spelled out with for a server that
//! does not have its script.
//!
//! Owns that memory, which all workers share, and its bounds; and what each connection is known to have been sent.
//! The rule: what was loaded or asked for by its SHA-1 outlasts what was only ever sent whole, so that texts made
//! anew for each call push out one another and nothing else. `pool` keeps the memory, `backend` what its connection
//! has, `worker/scripts` uses both.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha1::{Digest as _, Sha1};

/// Scripts that a pool remembers, bytes that they may have together, and that one may have.
const MOST_SCRIPTS: usize = 4096;
const MOST_BYTES: usize = 16 << 20;
const LONGEST: usize = 1 << 20;

/// The SHA-1 of a script's text.
pub(crate) type Digest = [u8; 20];

pub(crate) fn digest_of(text: &[u8]) -> Digest {
    Sha1::digest(text).into()
}

/// The digest that a client has written; in any case, as the servers take it.
pub(crate) fn parse_digest(text: &[u8]) -> Option<Digest> {
    let digits: &[u8; 40] = text.try_into().ok()?;
    let mut digest = Digest::default();
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(digest)
}

/// Who leaves first: what nobody asked for by its digest, and of that what was not used for longest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    asked_for: bool,
    used: u64,
}

struct Entry {
    text: Arc<[u8]>,
    rank: Rank,
}

/// The scripts of a pool.
#[derive(Default)]
pub(crate) struct Scripts {
    kept: Mutex<Kept>,
    flushes: AtomicU64,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Digest, Entry>,
    order: BTreeMap<Rank, Digest>,
    bytes: usize,
    uses: u64,
}

impl Scripts {
    /// Remembers a script that was loaded (`asked_for`), or sent whole.
    pub(crate) fn remember(&self, digest: Digest, text: &[u8], asked_for: bool) {
        if text.len() > LONGEST {
            return;
        }
        let mut kept = self.kept();
        if kept.use_again(&digest, asked_for).is_some() {
            return;
        }
        kept.uses += 1;
        let used = kept.uses;
        let rank = Rank { asked_for, used };
        let text: Arc<[u8]> = text.into();
        kept.bytes += text.len();
        kept.order.insert(rank, digest);
        kept.entries.insert(digest, Entry { text, rank });
        while kept.bytes > MOST_BYTES || kept.entries.len() > MOST_SCRIPTS {
            kept.drop_first();
        }
    }

    /// The text of a script that was asked for by its digest.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<[u8]>> {
        self.kept().use_again(digest, true)
    }

    /// Forgets all, as the servers were told to.
    pub(crate) fn flush(&self) {
        let mut kept = self.kept();
        *kept = Kept::default();
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Relaxed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept().entries.is_empty()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn use_again(&mut self, digest: &Digest, asked_for: bool) -> Option<Arc<[u8]>> {
        let entry = self.entries.get_mut(digest)?;
        self.uses += 1;
        self.order.remove(&entry.rank);
        entry.rank.asked_for |= asked_for;
        entry.rank.used = self.uses;
        self.order.insert(entry.rank, *digest);
        Some(entry.text.clone())
    }

    fn drop_first(&mut self) {
        if let Some((_, digest)) = self.order.pop_first()
            && let Some(entry) = self.entries.remove(&digest)
        {
            self.bytes -= entry.text.len();
        }
    }
}

/// Scripts that one connection was sent whole: its server has them, unless it dropped them behind our back.
#[derive(Default)]
pub(crate) struct Sent {
    flushes: u64,
    /// When a use was last noted in the pool's memory, milliseconds of the worker's clock.
    noted: HashMap<Digest, u32>,
}

impl Sent {
    /// What has been sent since the last of so many flushes.
    pub(crate) fn since(&mut self, flushes: u64) -> &mut HashMap<Digest, u32> {
        if self.flushes != flushes || self.noted.len() >= MOST_SCRIPTS {
            self.noted = HashMap::new();
            self.flushes = flushes;
        }
        &mut self.noted
    }

    pub(crate) fn forget(&mut self, digest: &Digest) {
        self.noted.remove(digest);
    }

    pub(crate) fn forget_all(&mut self) {
        self.noted = HashMap::new();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.noted.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST, MOST_BYTES, MOST_SCRIPTS, Scripts, Sent, digest_of, parse_digest};

    fn nth(number: usize) -> Vec<u8> {
        format!("return {number}").into_bytes()
    }

    #[test]
    fn a_digest_is_read_in_any_case() {
        let digest = digest_of(b"return 1");
        let text = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
        assert_eq!(parse_digest(text.as_bytes()), Some(digest));
        assert_eq!(parse_digest(text.to_uppercase().as_bytes()), Some(digest));
        assert_eq!(parse_digest(&text.as_bytes()[1..]), None);
        assert_eq!(parse_digest("é".repeat(20).as_bytes()), None);
    }

    #[test]
    fn texts_that_are_sent_once_push_out_one_another_only() {
        let scripts = Scripts::default();
        let [loaded, asked] = [b"loaded", &b"asked"[..]].map(digest_of);
        scripts.remember(loaded, b"loaded", true);
        scripts.remember(asked, b"asked", false);
        assert_eq!(scripts.find(&asked).as_deref(), Some(&b"asked"[..]));
        for number in 0..2 * MOST_SCRIPTS {
            scripts.remember(digest_of(&nth(number)), &nth(number), false);
        }
        assert!(scripts.find(&loaded).is_some() && scripts.find(&asked).is_some());
        assert!(scripts.find(&digest_of(&nth(0))).is_none());
        let newest = 2 * MOST_SCRIPTS - 1;
        assert!(scripts.find(&digest_of(&nth(newest))).is_some());
        assert_eq!(scripts.kept().entries.len(), MOST_SCRIPTS);
    }

    #[test]
    fn the_least_recently_used_of_those_asked_for_leaves_when_nothing_else_can() {
        let scripts = Scripts::default();
        for number in 0..MOST_SCRIPTS {
            scripts.remember(digest_of(&nth(number)), &nth(number), true);
        }
        assert!(scripts.find(&digest_of(&nth(0))).is_some());
        scripts.remember(digest_of(b"new"), b"new", true);
        assert!(scripts.find(&digest_of(&nth(0))).is_some());
        assert!(scripts.find(&digest_of(&nth(1))).is_none());
    }

    #[test]
    fn the_bytes_are_bounded_whatever_the_number() {
        let scripts = Scripts::default();
        let texts: Vec<Vec<u8>> = (0..20).map(|n| vec![n; LONGEST]).collect();
        for text in &texts {
            scripts.remember(digest_of(text), text, true);
        }
        assert_eq!(scripts.kept().bytes, MOST_BYTES);
        let too_long = vec![b'x'; LONGEST + 1];
        scripts.remember(digest_of(&too_long), &too_long, true);
        assert!(scripts.find(&digest_of(&too_long)).is_none());
        scripts.flush();
        assert!(scripts.is_empty());
        assert_eq!(scripts.kept().bytes, 0);
    }

    #[test]
    fn a_flush_makes_connections_forget() {
        let scripts = Scripts::default();
        let mut sent = Sent::default();
        sent.since(scripts.flushes()).insert(digest_of(b"x"), 0);
        assert!(!sent.since(scripts.flushes()).is_empty());
        scripts.flush();
        assert!(sent.since(scripts.flushes()).is_empty());
    }
}
