//! What subscribers are told: messages, confirmations, and how the two protocols write them.
//!
//! A push is the same in RESP2 and RESP3 but for its first byte, so it is passed on as it came. Called by
//! `subscriptions`, `tracking` and `worker/pubsub`.

use crate::command::Topic;
use crate::lane::Protocol;
use crate::resp::{self, ReplyKind};
use crate::route::write_argument;

/// What came from a server on an ear.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard<'f> {
    /// A message for who is subscribed to this.
    Message(Topic, &'f [u8]),
    /// That something is subscribed to, or is no more.
    Confirmation,
    /// A request was refused.
    Error,
    /// Something else that answers no request.
    Push,
    /// Nothing that should come there.
    Stray,
}

/// Looks at a whole frame of a connection that subscribes.
pub(crate) fn hear(frame: &[u8]) -> Heard<'_> {
    match frame.first() {
        Some(b'-' | b'!') => return Heard::Error,
        Some(b'*' | b'>') => {}
        _ => return Heard::Stray,
    }
    let words = memchr::memchr(b'\n', frame).and_then(|end| {
        let (word, rest) = bulk(&frame[end + 1..])?;
        Some((word, bulk(rest).map_or(&[][..], |(name, _)| name)))
    });
    match words {
        Some((b"message", name)) => Heard::Message(Topic::Channel, name),
        Some((b"pmessage", name)) => Heard::Message(Topic::Pattern, name),
        Some((b"smessage", name)) => Heard::Message(Topic::ShardChannel, name),
        Some((
            b"subscribe" | b"psubscribe" | b"ssubscribe" | b"unsubscribe" | b"punsubscribe"
            | b"sunsubscribe",
            _,
        )) => Heard::Confirmation,
        _ if frame[0] == b'>' => Heard::Push,
        _ => Heard::Stray,
    }
}

/// The string at the start of `frame`, and what is behind it.
pub(crate) fn bulk(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    match resp::reply_kind(frame) {
        ReplyKind::Bulk { len, body } => {
            Some((frame.get(body..body + len)?, frame.get(body + len + 2..)?))
        }
        _ => None,
    }
}

/// What a message begins with: the rest is the same in both protocols.
pub(crate) fn push_mark(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Resp2 => b'*',
        Protocol::Resp3 => b'>',
    }
}

pub(crate) fn write_confirmation(
    out: &mut Vec<u8>,
    protocol: Protocol,
    word: &str,
    name: Option<&[u8]>,
    count: usize,
) {
    out.push(push_mark(protocol));
    out.extend_from_slice(b"3\r\n");
    write_argument(out, word.as_bytes());
    match (name, protocol) {
        (Some(name), _) => write_argument(out, name),
        (None, Protocol::Resp2) => out.extend_from_slice(b"$-1\r\n"),
        (None, Protocol::Resp3) => out.extend_from_slice(b"_\r\n"),
    }
    out.extend_from_slice(format!(":{count}\r\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Heard, Topic, hear};
    use crate::resp::{ReplyScan, ReplyStatus, scan_reply};

    proptest! {
        /// Any frame is one thing or another.
        #[test]
        fn any_frame_is_heard(frame in "[*>+:$-][0-3]\r\n(\\$[0-9]\r\n(message|subscribe)\r\n){0,3}") {
            let mut scan = ReplyScan::default();
            if let Ok(ReplyStatus::Complete { len }) = scan_reply(frame.as_bytes(), &mut scan) {
                hear(&frame.as_bytes()[..len]);
            }
        }
    }

    #[test]
    fn messages_are_told_from_confirmations_in_both_protocols() {
        let message = b">4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$2\r\nab\r\n$0\r\n\r\n";
        assert_eq!(hear(message), Heard::Message(Topic::Pattern, b"a*"));
        let ended = b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n";
        assert_eq!(hear(ended), Heard::Confirmation);
        assert_eq!(hear(b"-NOPERM no\r\n"), Heard::Error);
        assert_eq!(hear(b">2\r\n$10\r\ninvalidate\r\n_\r\n"), Heard::Push);
        for stray in [&b"+OK\r\n"[..], b"*0\r\n", b"*1\r\n$1\r\nx\r\n"] {
            assert_eq!(hear(stray), Heard::Stray);
        }
    }
}
