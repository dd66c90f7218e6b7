//! The options of CLIENT TRACKING, and what is wrong with them, in Redis's words.

use std::collections::BTreeSet;

use super::Tracking;
use crate::resp;

/// Which keys a client is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Those that it reads.
    Read,
    /// Those that it reads right after CLIENT CACHING YES.
    OptIn,
    /// Those that it reads, but not right after CLIENT CACHING NO.
    OptOut,
    /// All that begin as it wishes, read or not.
    Broadcast,
}

/// CLIENT TRACKING ON as it was asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wish {
    pub(crate) redirect: Option<i64>,
    pub(crate) broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    pub(crate) prefixes: Vec<Box<[u8]>>,
}

const SYNTAX: &str = "syntax error";
const NO_LOOP: &str = "NOLOOP is not supported by Shoal: a server cannot tell whose write it was that came on a \
                       connection that clients share";
const OTHER_BCAST: &str = "You can't switch BCAST mode on/off before disabling tracking for this client, and then \
                           re-enabling it with a different mode.";
const OTHER_OPT: &str = "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
                         re-enabling it with a different mode.";

impl Wish {
    /// What stands behind ON or OFF; or what is wrong with it, in Redis's words.
    pub(crate) fn parse<'f>(options: impl Iterator<Item = &'f [u8]>) -> Result<Self, &'static str> {
        let mut wish = Self::default();
        let mut options = options;
        while let Some(option) = options.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"REDIRECT" => {
                    let value = options.next().ok_or(SYNTAX)?;
                    if wish.redirect.is_some() {
                        return Err("A client can only redirect to a single other client");
                    }
                    let number = resp::number(value);
                    wish.redirect = Some(number.ok_or("value is not an integer or out of range")?);
                }
                b"BCAST" => wish.broadcast = true,
                b"OPTIN" => wish.opt_in = true,
                b"OPTOUT" => wish.opt_out = true,
                b"NOLOOP" => return Err(NO_LOOP),
                b"PREFIX" => wish.prefixes.push(options.next().ok_or(SYNTAX)?.into()),
                _ => return Err(SYNTAX),
            }
        }
        Ok(wish)
    }

    pub(crate) fn mode(&self) -> Mode {
        match (self.broadcast, self.opt_in, self.opt_out) {
            (true, ..) => Mode::Broadcast,
            (_, true, _) => Mode::OptIn,
            (_, _, true) => Mode::OptOut,
            _ => Mode::Read,
        }
    }

    /// Why a client that stands like this cannot have it, in Redis's words.
    pub(crate) fn objection(&self, now: &Tracking) -> Option<String> {
        if !self.broadcast && !self.prefixes.is_empty() {
            return Some("PREFIX option requires BCAST mode to be enabled".to_owned());
        }
        let was = now.mode;
        if was.is_some_and(|was| (was == Mode::Broadcast) != self.broadcast) {
            return Some(OTHER_BCAST.to_owned());
        }
        if self.broadcast && (self.opt_in || self.opt_out) {
            return Some("OPTIN and OPTOUT are not compatible with BCAST".to_owned());
        }
        if self.opt_in && self.opt_out {
            return Some("You can't specify both OPTIN mode and OPTOUT mode".to_owned());
        }
        if self.opt_in && was == Some(Mode::OptOut) || self.opt_out && was == Some(Mode::OptIn) {
            return Some(OTHER_OPT.to_owned());
        }
        self.collision(&now.prefixes)
    }

    /// Prefixes of which one begins with the other.
    fn collision(&self, existing: &BTreeSet<Box<[u8]>>) -> Option<String> {
        let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        let told = |new: &[u8], kind: &str, other: &[u8]| {
            let [new, other] = [new, other].map(String::from_utf8_lossy);
            let line = format!("Prefix '{new}' overlaps with {kind} prefix '{other}'.");
            let line = line.replace(['\r', '\n'], " ");
            Some(line + " Prefixes for a single client must not overlap.")
        };
        for (at, prefix) in self.prefixes.iter().enumerate() {
            if let Some(other) = existing.iter().find(|it| overlap(it, prefix)) {
                return told(prefix, "an existing", other);
            }
            let mut behind = self.prefixes[at + 1..].iter();
            if let Some(other) = behind.find(|it| overlap(it, prefix)) {
                return told(prefix, "another provided", other);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Tracking, Wish};

    fn wish(words: &str) -> Result<Wish, &'static str> {
        Wish::parse(words.split_whitespace().map(str::as_bytes))
    }

    #[test]
    fn prefixes_that_overlap_are_refused() {
        let mut now = Tracking::default();
        now.begin(wish("BCAST PREFIX a PREFIX b").expect("options"), None);
        let clash = |words| wish(words).expect("options").objection(&now).is_some();
        assert!(clash("BCAST PREFIX ab"));
        assert!(clash("BCAST PREFIX c PREFIX cd"));
        assert!(!clash("BCAST PREFIX c PREFIX d"));
        assert!(clash("OPTIN"), "another mode");
    }
}
