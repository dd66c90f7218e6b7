//! Replies of RESP2 and RESP3: any split gives the same frames, any bytes give frames or one error.

use dataplane::resp::{
    ProtocolError, ReplyKind, ReplyScan, ReplyStatus, error_code, reply_integer, reply_kind,
    scan_reply,
};
use proptest::prelude::*;

/// The replies in `bytes` that arrive in pieces of these sizes, and what was wrong behind them.
fn read(bytes: &[u8], sizes: &[usize]) -> (Vec<Vec<u8>>, Option<ProtocolError>) {
    let (mut buffer, mut progress, mut taken) = (Vec::new(), ReplyScan::default(), Vec::new());
    let mut rest = bytes;
    for &size in sizes.iter().cycle() {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        buffer.extend_from_slice(piece);
        while !buffer.is_empty() {
            match scan_reply(&buffer, &mut progress) {
                Ok(ReplyStatus::Complete { len }) => {
                    assert!(len <= buffer.len());
                    taken.push(buffer.drain(..len).collect());
                }
                Ok(ReplyStatus::Incomplete { needed_hint }) => {
                    assert!(needed_hint == 0 || needed_hint > buffer.len());
                    break;
                }
                Err(error) => return (taken, Some(error)),
            }
        }
        if rest.is_empty() {
            break;
        }
    }
    (taken, None)
}

fn bulk(kind: char, payload: &[u8]) -> Vec<u8> {
    let head = format!("{kind}{}\r\n", payload.len());
    [head.as_bytes(), payload, b"\r\n"].concat()
}

fn aggregate(kind: char, len: usize, values: &[Vec<u8>]) -> Vec<u8> {
    let head = format!("{kind}{len}\r\n");
    [head.as_bytes(), &values.concat()].concat()
}

/// Replies of every type, nested and with attributes.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    let line = "[+(,:-][ -~]{0,20}".prop_map(|text| format!("{text}\r\n").into_bytes());
    let fixed = prop::sample::select(vec![
        "_\r\n", "$-1\r\n", "*-1\r\n", "#t\r\n", "*0\r\n", ":-7\r\n", "%0\r\n",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    let bulks = (prop::sample::select(vec!['$', '=', '!']), payload)
        .prop_map(|(kind, payload)| bulk(kind, &payload));
    let leaf = prop_oneof![line, fixed, bulks];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let lists = (
            prop::sample::select(vec!['*', '~', '>']),
            prop::collection::vec(inner.clone(), 0..6),
        )
            .prop_map(|(kind, values)| aggregate(kind, values.len(), &values));
        let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(|pairs| {
            pairs
                .into_iter()
                .flat_map(|(key, value)| [key, value])
                .collect::<Vec<_>>()
        });
        let maps = pairs
            .clone()
            .prop_map(|values| aggregate('%', values.len() / 2, &values));
        let attributed = (pairs, inner).prop_map(|(values, reply)| {
            [aggregate('|', values.len() / 2, &values), reply].concat()
        });
        prop_oneof![lists, maps, attributed]
    })
}

/// Input that is nearly right.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"*",
        b"$",
        b"|",
        b"%",
        b"\r\n",
        b"\r",
        b"\n",
        b"1",
        b"-1",
        b"+OK\r\n",
        b"$3\r\nfoo\r\n",
        b"*2\r\n",
        b"%1\r\n",
        b"|1\r\n",
        b":1\r\n",
        b"_\r\n",
        b"-ERR x\r\n",
        b"$-2\r\n",
        b"*?\r\n",
        b"$?\r\n",
        b"$4\r\n",
        b"$99999999999\r\n",
        b"*99999999999\r\n",
        b"*01\r\n",
        b"x",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn valid_replies_come_out_as_they_went_in(
        replies in prop::collection::vec(reply(), 0..6),
        sizes in prop::collection::vec(1_usize..20, 1..8),
    ) {
        let bytes = replies.concat();
        prop_assert_eq!(&read(&bytes, &[usize::MAX]), &(replies.clone(), None));
        prop_assert_eq!(&read(&bytes, &[1]), &(replies.clone(), None));
        prop_assert_eq!(read(&bytes, &sizes), (replies, None));
    }

    #[test]
    fn any_bytes_give_the_same_whole_and_byte_by_byte(bytes in nearly(), size in 2_usize..9) {
        let expected = read(&bytes, &[usize::MAX]);
        prop_assert_eq!(&read(&bytes, &[1]), &expected);
        prop_assert_eq!(&read(&bytes, &[size]), &expected);
    }

    #[test]
    fn kinds_and_codes_of_any_bytes_do_not_panic(bytes: Vec<u8>, near in nearly()) {
        for bytes in [bytes, near] {
            reply_kind(&bytes);
            error_code(&bytes);
            reply_integer(&bytes);
        }
    }

    #[test]
    fn an_attribute_changes_no_kind_but_moves_its_positions(reply in reply(), attribute in reply()) {
        let before = aggregate('|', 1, &[b"+a\r\n".to_vec(), attribute]);
        let both = [before.clone(), reply.clone()].concat();
        prop_assert_eq!(reply_kind(&both), moved(reply_kind(&reply), before.len()));
        prop_assert_eq!(error_code(&both), error_code(&reply));
        prop_assert_eq!(reply_integer(&both), reply_integer(&reply));
    }
}

fn moved(kind: ReplyKind, by: usize) -> ReplyKind {
    match kind {
        ReplyKind::Bulk { len, body } => ReplyKind::Bulk {
            len,
            body: body + by,
        },
        ReplyKind::Array { len, body } => ReplyKind::Array {
            len,
            body: body + by,
        },
        ReplyKind::Map { len, body } => ReplyKind::Map {
            len,
            body: body + by,
        },
        ReplyKind::Set { len, body } => ReplyKind::Set {
            len,
            body: body + by,
        },
        ReplyKind::BulkError { len, body } => ReplyKind::BulkError {
            len,
            body: body + by,
        },
        ReplyKind::Verbatim { len, body } => ReplyKind::Verbatim {
            len,
            body: body + by,
        },
        other => other,
    }
}

#[test]
fn each_type_has_its_kind() {
    for (reply, kind) in [
        ("+OK\r\n", ReplyKind::Simple),
        ("-ERR no\r\n", ReplyKind::Error),
        (":5\r\n", ReplyKind::Integer),
        ("$3\r\nfoo\r\n", ReplyKind::Bulk { len: 3, body: 4 }),
        ("$-1\r\n", ReplyKind::Null),
        ("*-1\r\n", ReplyKind::Null),
        ("_\r\n", ReplyKind::Null),
        ("*2\r\n:1\r\n:2\r\n", ReplyKind::Array { len: 2, body: 4 }),
        ("%1\r\n:1\r\n:2\r\n", ReplyKind::Map { len: 1, body: 4 }),
        ("~0\r\n", ReplyKind::Set { len: 0, body: 4 }),
        (">1\r\n+x\r\n", ReplyKind::Push),
        (",1.5\r\n", ReplyKind::Double),
        ("#t\r\n", ReplyKind::Boolean),
        ("(123\r\n", ReplyKind::BigNumber),
        ("!5\r\nERR x\r\n", ReplyKind::BulkError { len: 5, body: 4 }),
        ("=7\r\ntxt:foo\r\n", ReplyKind::Verbatim { len: 7, body: 4 }),
    ] {
        assert_eq!(reply_kind(reply.as_bytes()), kind, "{reply:?}");
        assert_eq!(
            read(reply.as_bytes(), &[1]),
            (vec![reply.into()], None),
            "{reply:?}"
        );
    }
}

#[test]
fn an_error_has_a_code_and_nothing_else_has() {
    let code = |reply: &'static str| error_code(reply.as_bytes()).map(<[u8]>::to_vec);
    assert_eq!(
        code("-READONLY You can't write\r\n"),
        Some(b"READONLY".to_vec())
    );
    assert_eq!(code("-LOADING\r\n"), Some(b"LOADING".to_vec()));
    assert_eq!(code("!9\r\nSYNTAX no\r\n"), Some(b"SYNTAX".to_vec()));
    for other in ["+OK\r\n", "$4\r\n-ERR\r\n", ":1\r\n", ""] {
        assert_eq!(code(other), None, "{other:?}");
    }
}

#[test]
fn only_integers_have_a_value() {
    assert_eq!(reply_integer(b":-42\r\n"), Some(-42));
    assert_eq!(reply_integer(b"$1\r\n4\r\n"), None);
    assert_eq!(reply_integer(b":4"), None);
}

/// A server that answers with a hundred thousand nested arrays must not take stack or memory.
#[test]
fn nesting_takes_no_memory() {
    let deep = [b"*1\r\n".repeat(100_000), b":1\r\n".to_vec()].concat();
    assert_eq!(read(&deep, &[usize::MAX]).0.len(), 1);
}

#[test]
fn a_long_string_says_how_long_it_will_be() {
    let mut progress = ReplyScan::default();
    let status = scan_reply(b"$1048576\r\nabc", &mut progress);
    assert_eq!(
        status,
        Ok(ReplyStatus::Incomplete {
            needed_hint: 10 + 1_048_576 + 2
        })
    );
}

#[test]
fn what_is_no_reply_is_an_error() {
    for bytes in [
        "x",
        "GET\r\n",
        "$x\r\n",
        "$-2\r\n",
        "$3\r\nfooxx",
        "+OK\rx",
        "*?\r\n",
        "$?\r\n",
        "%-1\r\n",
        ";4\r\n",
        "$5000000000\r\n",
    ] {
        assert_eq!(
            read(bytes.as_bytes(), &[1]).1,
            Some(ProtocolError::Reply),
            "{bytes:?}"
        );
    }
}
