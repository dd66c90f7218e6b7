//! Requests and inline requests: any split gives the same frames, any bytes give frames or one
//! error.

use dataplane::resp::{
    Limits, ProtocolError, RequestScan, RequestStatus, Span, scan_inline, scan_request,
};
use proptest::prelude::*;

type Request = Vec<Vec<u8>>;

/// A client's end of a connection as the proxy sees it: bytes come in pieces, whole requests go.
#[derive(Default)]
struct Connection {
    buffer: Vec<u8>,
    progress: RequestScan,
    taken: Vec<Request>,
    error: Option<ProtocolError>,
}

impl Connection {
    fn feed(&mut self, piece: &[u8], limits: &Limits) {
        self.buffer.extend_from_slice(piece);
        while self.error.is_none() && !self.buffer.is_empty() {
            match self.take(limits) {
                Ok(Some(used)) => drop(self.buffer.drain(..used)),
                Ok(None) => break,
                Err(error) => self.error = Some(error),
            }
        }
    }

    fn take(&mut self, limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        let buf = &self.buffer;
        if buf[0] != b'*' {
            let line = scan_inline(buf, limits, &mut self.progress)?;
            return Ok(line.map(|(len, words)| {
                assert!(len <= buf.len());
                self.taken.push(words);
                len
            }));
        }
        let mut args: Vec<Span> = Vec::new();
        match scan_request(buf, limits, &mut self.progress, &mut args)? {
            RequestStatus::Complete { len } => {
                assert!(len <= buf.len());
                assert_eq!(self.progress, RequestScan::default());
                let bytes = |&(start, end): &Span| buf[start as usize..end as usize].to_vec();
                self.taken.push(args.iter().map(bytes).collect());
                Ok(Some(len))
            }
            RequestStatus::Incomplete { needed_hint } => {
                assert!(needed_hint == 0 || needed_hint > buf.len());
                Ok(None)
            }
        }
    }
}

/// What comes of `bytes` that arrive in pieces of these sizes, again and again.
fn read(bytes: &[u8], limits: &Limits, sizes: &[usize]) -> (Vec<Request>, Option<ProtocolError>) {
    let mut connection = Connection::default();
    let mut rest = bytes;
    for &size in sizes.iter().cycle() {
        let (piece, behind) = rest.split_at(size.clamp(1, rest.len().max(1)).min(rest.len()));
        connection.feed(piece, limits);
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    (connection.taken, connection.error)
}

fn whole(bytes: &[u8]) -> (Vec<Request>, Option<ProtocolError>) {
    read(bytes, &Limits::default(), &[usize::MAX])
}

fn encode(request: &Request) -> Vec<u8> {
    let mut frame = format!("*{}\r\n", request.len()).into_bytes();
    for arg in request {
        frame.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        frame.extend_from_slice(arg);
        frame.extend_from_slice(b"\r\n");
    }
    frame
}

/// Limits low enough that generated input passes them.
const TIGHT: Limits = Limits {
    max_args: 20,
    max_bulk: 40,
    max_inline: 30,
    authenticated: true,
};

/// Input that is nearly right: pieces of the protocol in any order, between any bytes.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"*",
        b"$",
        b"\r\n",
        b"\r",
        b"\n",
        b"0",
        b"1",
        b"2",
        b"-1",
        b"+3",
        b"99999999999",
        b"*1\r\n",
        b"*2\r\n",
        b"*3\r\n",
        b"$0\r\n\r\n",
        b"$1\r\na\r\n",
        b"$3\r\nGET\r\n",
        b"$4\r\n",
        b"PING",
        b" ",
        b"\"",
        b"'",
        b"\\x4",
        b"\\",
        b"*0\r\n",
        b"*-1\r\n",
        b"PING\r\n",
        b"\0",
        b"*21\r\n",
        b"$41\r\n",
        b"00000000000000000000000000000000000",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1_usize..20, 1..8)
}

fn request() -> impl Strategy<Value = Request> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12)
}

proptest! {
    #[test]
    fn valid_requests_come_out_as_they_went_in(
        requests in prop::collection::vec(request(), 0..8),
        sizes in sizes(),
    ) {
        let bytes: Vec<u8> = requests.iter().flat_map(encode).collect();
        prop_assert_eq!(&read(&bytes, &Limits::default(), &[usize::MAX]), &(requests.clone(), None));
        prop_assert_eq!(read(&bytes, &Limits::default(), &sizes), (requests, None));
    }

    #[test]
    fn any_bytes_give_the_same_whole_and_in_pieces(bytes in nearly(), sizes in sizes(), secret: bool) {
        let limits = Limits { authenticated: secret, ..TIGHT };
        let expected = read(&bytes, &limits, &[usize::MAX]);
        prop_assert_eq!(&read(&bytes, &limits, &[1]), &expected);
        prop_assert_eq!(&read(&bytes, &limits, &sizes), &expected);
    }

    #[test]
    fn any_bytes_at_all_give_the_same_whole_and_byte_by_byte(bytes: Vec<u8>) {
        let bytes = [b"*", bytes.as_slice()].concat();
        prop_assert_eq!(read(&bytes, &TIGHT, &[1]), read(&bytes, &TIGHT, &[usize::MAX]));
    }

    /// What is cut off never counts as a request, and what is behind one is never part of it.
    #[test]
    fn a_request_is_whole_at_its_last_byte_and_not_before(request in request(), behind: Vec<u8>) {
        let frame = encode(&request);
        let mut args = Vec::new();
        for cut in 0..frame.len() {
            let status = scan_request(&frame[..cut], &Limits::default(), &mut RequestScan::default(), &mut args);
            prop_assert!(matches!(status, Ok(RequestStatus::Incomplete { .. })), "{:?}", status);
        }
        let more = [frame.as_slice(), &behind].concat();
        let status = scan_request(&more, &Limits::default(), &mut RequestScan::default(), &mut args);
        prop_assert_eq!(status, Ok(RequestStatus::Complete { len: frame.len() }));
    }
}

/// 80,000 arguments byte by byte: half a million looks, of which each must be short. Were the
/// request read from its start each time, this test would not end.
#[test]
fn a_byte_at_a_time_costs_one_pass() {
    let request: Request = vec![b"x".to_vec(); 80_000];
    assert_eq!(read_in_place(&encode(&request)), request);
}

/// A client's buffer that grows byte by byte.
fn read_in_place(frame: &[u8]) -> Request {
    let mut progress = RequestScan::default();
    let mut args = Vec::new();
    for end in 1..=frame.len() {
        let status = scan_request(&frame[..end], &Limits::default(), &mut progress, &mut args);
        match status.expect("a valid request") {
            RequestStatus::Complete { len } => assert_eq!(len, frame.len()),
            RequestStatus::Incomplete { .. } => assert!(end < frame.len()),
        }
    }
    args.iter()
        .map(|&(start, end)| frame[start as usize..end as usize].to_vec())
        .collect()
}

#[test]
fn a_bulk_that_is_to_come_is_announced_and_takes_no_memory() {
    let mut progress = RequestScan::default();
    let mut args = Vec::new();
    let start = b"*1000000\r\n$500000000\r\n";
    let status = scan_request(start, &Limits::default(), &mut progress, &mut args);
    let needed_hint = start.len() + 500_000_002;
    assert_eq!(status, Ok(RequestStatus::Incomplete { needed_hint }));
    assert!(args.capacity() < 10, "memory for what is only announced");
}

#[test]
fn requests_without_arguments_are_passed_over() {
    let ping = vec![b"PING".to_vec()];
    for empty in [
        "*0\r\n",
        "*-1\r\n",
        "*-9223372036854775808\r\n",
        "\r\n",
        "\n",
        "  \r\n",
    ] {
        let bytes = [empty.as_bytes(), b"*1\r\n$4\r\nPING\r\n"].concat();
        assert_eq!(
            whole(&bytes),
            (vec![vec![], ping.clone()], None),
            "{empty:?}"
        );
    }
}

/// Redis looks for the end of a line up to the NUL only, and waits: a `ClientHello` of TLS would hang there.
#[test]
fn a_line_with_a_nul_is_refused_before_its_end() {
    for text in ["PING\0\r\n", "\x16\x03\x01\x02\x00\x01\x00", "\0"] {
        assert_eq!(
            whole(text.as_bytes()),
            (vec![], Some(ProtocolError::Inline))
        );
    }
    let ping = vec![b"PING".to_vec()];
    assert_eq!(
        whole(b"PING\n\0"),
        (vec![ping], Some(ProtocolError::Inline))
    );
}

#[test]
fn a_limit_is_the_last_length_that_is_allowed() {
    let fails = |limits: &Limits, text: &str| read(text.as_bytes(), limits, &[usize::MAX]).1;
    assert_eq!(fails(&TIGHT, "*20\r\n"), None);
    assert_eq!(
        fails(&TIGHT, "*21\r\n"),
        Some(ProtocolError::MultibulkLength)
    );
    assert_eq!(fails(&TIGHT, "*1\r\n$40\r\n"), None);
    assert_eq!(
        fails(&TIGHT, "*1\r\n$41\r\n"),
        Some(ProtocolError::BulkLength)
    );
    assert_eq!(fails(&TIGHT, &"a".repeat(30)), None);
    assert_eq!(fails(&TIGHT, &"a".repeat(31)), Some(ProtocolError::Inline));
    let unknown = Limits {
        authenticated: false,
        ..Limits::default()
    };
    assert_eq!(fails(&unknown, "*10\r\n$16384\r\n"), None);
    assert_eq!(
        fails(&unknown, "*11\r\n"),
        Some(ProtocolError::UnauthenticatedMultibulkLength)
    );
    assert_eq!(
        fails(&unknown, "*1\r\n$16385\r\n"),
        Some(ProtocolError::UnauthenticatedBulkLength)
    );
}

/// Spans are 32 bits wide, so the whole request has to end below 4 GiB.
#[test]
fn a_request_of_four_gibibytes_is_refused_before_it_comes() {
    let limits = Limits {
        max_bulk: u32::MAX,
        ..Limits::default()
    };
    assert_eq!(
        read(b"*1\r\n$4294967295\r\n", &limits, &[64]).1,
        Some(ProtocolError::BulkLength)
    );
    assert_eq!(read(b"*1\r\n$4294967270\r\n", &limits, &[64]).1, None);
}
