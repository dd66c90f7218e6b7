//! Errors and keys against a real redis-server: what it says to a client, the proxy says too.
//!
//! Starts Debian's redis-server 7.0 on a socket file and kills it by its handle. Where there is
//! none, the comparison is left out and says so; what it compares with is checked in the other
//! tests too.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use dataplane::command::lookup;
use dataplane::resp::{
    Limits, ProtocolError, RequestScan, RequestStatus, Span, scan_inline, scan_request,
};

const PROGRAM: &str = "/usr/bin/redis-server";

struct Redis {
    process: Child,
    directory: PathBuf,
}

impl Redis {
    /// A server with these options; `None` if there is none of the version whose words these are.
    fn start(name: &str, options: &[&str]) -> Option<Self> {
        let version = Process::new(PROGRAM).arg("--version").output();
        if !version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("v=7.0.")) {
            eprintln!("left out: {PROGRAM} is not a Redis 7.0");
            return None;
        }
        let directory = std::env::temp_dir().join(format!("shoal-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let process = Process::new(PROGRAM)
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--unixsocket",
                "socket",
                "--dir",
            ])
            .arg(&directory)
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server");
        let redis = Self { process, directory };
        let started = Instant::now();
        while UnixStream::connect(redis.socket()).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "redis-server does not start"
            );
            std::thread::yield_now();
        }
        Some(redis)
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// All that the server answers to `bytes` before it sees the end of them.
    fn answer(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("a connection");
        // The server may close before it has read everything.
        let _ = stream
            .write_all(bytes)
            .and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What the proxy says of these bytes: the error, or nothing.
fn objection(bytes: &[u8], authenticated: bool) -> Option<ProtocolError> {
    let limits = Limits {
        max_args: i32::MAX as u32,
        authenticated,
        ..Limits::default()
    };
    let mut rest = bytes;
    let mut args: Vec<Span> = Vec::new();
    while let Some(first) = rest.first() {
        let mut progress = RequestScan::default();
        let taken = if *first == b'*' {
            scan_request(rest, &limits, &mut progress, &mut args).map(|status| match status {
                RequestStatus::Complete { len } => Some(len),
                RequestStatus::Incomplete { .. } => None,
            })
        } else {
            scan_inline(rest, &limits, &mut progress).map(|line| line.map(|(len, _)| len))
        };
        match taken {
            Ok(Some(len)) => rest = &rest[len..],
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
    None
}

/// The protocol error in a server's answer.
fn server_objection(answer: &str) -> Option<&str> {
    let at = answer.find("-ERR Protocol error")?;
    answer[at + "-ERR ".len()..].lines().next()
}

/// Requests that Redis 7.0 and the proxy judge alike, in the same words.
fn judged_alike() -> Vec<Vec<u8>> {
    let short = [
        "*0\r\n",
        "*-1\r\n",
        "*-7\r\n",
        "\r\n",
        "\n",
        "   \r\n",
        "*\r\n",
        "*+1\r\n",
        "*01\r\n",
        "*00\r\n",
        "*1 \r\n",
        "* 1\r\n",
        "*-0\r\n",
        "*-\r\n",
        "*a\r\n",
        "*2147483647\r\n",
        "*2147483648\r\n",
        "*99999999999999999999\r\n",
        "*9223372036854775807\r\n",
        "*-9223372036854775808\r\n",
        "*-9223372036854775809\r\n",
        "*1\n$4\nPING\n",
        "*1\n$4\r\nPING\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$+4\r\n",
        "*1\r\n$04\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$4 \r\n",
        "*1\r\n$0\r\n\r\n",
        "*1\r\n:4\r\n",
        "*1\r\nPING\r\n",
        "*1\r\n\r\n",
        "*1\r\n\n\r\n",
        "*1\r\n$536870912\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\n$4294967296\r\n",
        "*2\r\n$4\r\nECHO\r\n*1\r\n",
        "PING\r\n",
        "PING\n",
        "ECHO \"a\r\n",
        "ECHO \"a\"b\r\n",
        "ECHO a\"b\"c\r\n",
        "ECHO 'a\r\n",
        "ECHO 'a\\'\r\n",
        "ECHO \"a\\\"\r\n",
        "ECHO \"a\" \r\n",
        "ECHO \"a\"\tb\r\n",
        "$4\r\n",
        "*1\r\n$4\r\nPING\r\n*1\r\n$x\r\n",
    ];
    let digits = |before: &str, count| format!("{before}{}", "1".repeat(count));
    let long = [
        digits("*", 65_535),
        digits("*", 65_536),
        digits("*", 65_000) + "\r\n",
        digits("*1\r\n$", 65_535),
        digits("*1\r\n$", 65_536),
        digits("P", 65_535),
        digits("P", 65_536),
        digits("P", 65_535) + "\n",
    ];
    short
        .map(str::to_owned)
        .into_iter()
        .chain(long)
        .map(String::into_bytes)
        .collect()
}

#[test]
fn malformed_requests_are_refused_in_redis_words() {
    let Some(redis) = Redis::start("protocol", &[]) else {
        return;
    };
    for bytes in judged_alike() {
        let ours = objection(&bytes, true).map(|error| error.to_string());
        let answer = redis.answer(&bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert_eq!(
            server_objection(&answer),
            ours.as_deref(),
            "{shown:?} of {} bytes",
            bytes.len()
        );
    }
}

#[test]
fn clients_without_a_password_get_redis_smaller_limits() {
    let Some(redis) = Redis::start("limits", &["--requirepass", "x"]) else {
        return;
    };
    for text in [
        "*10\r\n",
        "*11\r\n",
        "*2147483648\r\n",
        "*2\r\n$16384\r\n",
        "*2\r\n$16385\r\n",
        "*1\r\n$-4\r\n",
    ] {
        let ours = objection(text.as_bytes(), false).map(|error| error.to_string());
        assert_eq!(
            server_objection(&redis.answer(text.as_bytes())),
            ours.as_deref(),
            "{text:?}"
        );
    }
}

/// Where the proxy is stricter than Redis 7.0, and why is said in `resp.rs`.
#[test]
fn what_has_lost_count_is_refused_although_redis_goes_on() {
    let stricter = [
        ("*1\r\n$4\r\nPINGxx", ProtocolError::Crlf),
        ("*1\rX$4\rYPINGZZ", ProtocolError::Crlf),
        (
            "*1\r\nx",
            ProtocolError::Expected {
                expected: b'$',
                got: b'x',
            },
        ),
        (
            "*1\r\n\0\r\n",
            ProtocolError::Expected {
                expected: b'$',
                got: 0,
            },
        ),
    ];
    let redis = Redis::start("stricter", &[]);
    for (text, error) in stricter {
        assert_eq!(objection(text.as_bytes(), true), Some(error), "{text:?}");
        if let Some(redis) = &redis {
            assert_eq!(
                server_objection(&redis.answer(text.as_bytes())),
                None,
                "{text:?}"
            );
        }
    }
}

#[test]
fn inline_words_are_split_as_redis_splits_them() {
    let Some(redis) = Redis::start("inline", &[]) else {
        return;
    };
    for text in [
        "a",
        "  a  ",
        "\"\"",
        "''",
        "\"a b\"",
        "'a b'",
        "a\"b c\"",
        "a'b c'",
        "\"\\x41\\xg1\\x4\"",
        "\"\\n\\r\\t\\b\\a\\q\\\\\"",
        "'a\\'b\\n'",
        "\"a'b\"",
        "'a\"b'",
        "a\u{b}b",
        "\u{b}b",
        "\u{c}b",
        "a\\x41",
        "\\",
        "\"\\\"\"",
        "é",
        "\t\ta",
    ] {
        let line = format!("ECHO {text}\r\n");
        let mut progress = RequestScan::default();
        let (len, words) = scan_inline(line.as_bytes(), &Limits::default(), &mut progress)
            .expect("quotes that close")
            .expect("a whole line");
        assert_eq!((len, words.len()), (line.len(), 2), "{text:?}");
        let echoed = format!(
            "${}\r\n{}\r\n",
            words[1].len(),
            String::from_utf8_lossy(&words[1])
        );
        assert_eq!(redis.answer(line.as_bytes()), echoed, "{text:?}");
    }
}

/// Requests whose keys are not at fixed places.
const KEYED: &[&str] = &[
    "MGET a b c",
    "MSET a 1 b 2",
    "RENAME a b",
    "COPY a b REPLACE",
    "BITOP AND d a b",
    "BLPOP a b c 0",
    "LCS a b LEN",
    "EVAL s 2 a b c",
    "EVALSHA s 1 a",
    "EVAL_RO s 1 a b",
    "FCALL f 2 a b",
    "ZUNION 2 a b",
    "ZINTER 1 a WITHSCORES",
    "ZUNIONSTORE d 2 a b WEIGHTS 1 2",
    "ZDIFFSTORE d 1 a",
    "ZINTERCARD 2 a b LIMIT 1",
    "SINTERCARD 1 a",
    "LMPOP 2 a b LEFT",
    "ZMPOP 1 a MIN",
    "BLMPOP 0 2 a b LEFT",
    "BZMPOP 0 1 a MAX COUNT 2",
    "XREAD STREAMS a b 0 0",
    "XREAD COUNT 2 STREAMS a 0",
    "XREADGROUP GROUP g c COUNT 1 NOACK STREAMS a b > >",
    "SORT a",
    "SORT a BY nosort STORE d",
    "SORT a LIMIT 0 1 GET # DESC ALPHA",
    "SORT a GET store",
    "SORT a BY store STORE b",
    "SORT_RO a BY nosort",
    "GEORADIUS a 1 2 3 m",
    "GEORADIUS a 1 2 3 m COUNT 1 STORE d",
    "GEORADIUSBYMEMBER a store 3 m STOREDIST d",
    "GEORADIUSBYMEMBER a m 3 m ASC",
    "OBJECT ENCODING a",
    "OBJECT FREQ a",
    "XGROUP CREATE a g $",
    "XGROUP DELCONSUMER a g c",
    "XINFO STREAM a",
    "XINFO GROUPS a",
    "MEMORY USAGE a",
    "PFCOUNT a b",
    "PFMERGE a b",
    "SMOVE a b m",
    "GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 m",
    "MIGRATE h 1 a 0 1",
    "PFDEBUG ENCODING a",
    "WATCH a b",
];

#[test]
fn keys_are_those_of_command_getkeys() {
    let Some(redis) = Redis::start("keys", &[]) else {
        return;
    };
    for request in KEYED {
        let (command, args) = parsed(request);
        let mut found = Vec::new();
        command
            .key_positions(request.as_bytes(), &args, &mut found)
            .expect(request);
        let words: Vec<&str> = request.split(' ').collect();
        let mut ours: Vec<&str> = found.iter().map(|&at| words[at as usize]).collect();
        let answer = redis.answer(format!("COMMAND GETKEYS {request}\r\n").as_bytes());
        let mut theirs: Vec<&str> = answer.lines().skip(2).step_by(2).collect();
        // A destination comes first here and last there: which keys they are is what counts.
        ours.sort_unstable();
        theirs.sort_unstable();
        assert_eq!(ours, theirs, "{request}");
    }
}

/// Requests that are wrong before any key is looked at.
const WRONG: &[&str] = &[
    "EVAL return abc a",
    "EVAL return -1 a",
    "EVAL return 5 a",
    "EVAL return 01 a",
    "EVAL return +1 a",
    "EVAL return 99999999999999999999 a",
    "SINTERCARD 0 a",
    "SINTERCARD abc a",
    "SINTERCARD -1 a",
    "SINTERCARD 5 a",
    "ZUNION 0 a",
    "ZUNION abc a",
    "ZUNION -1 a",
    "ZUNION 5 a",
    "ZUNIONSTORE d 0 a",
    "ZUNIONSTORE d abc a",
    "ZUNIONSTORE d 5 a",
    "ZINTERSTORE d 0 a",
    "ZDIFF 0 a",
    "ZDIFF 5 a",
    "ZDIFFSTORE d 0 a",
    "ZINTERCARD 0 a",
    "ZINTERCARD abc a",
    "ZINTERCARD 5 a",
    "LMPOP 0 a LEFT",
    "LMPOP abc a LEFT",
    "LMPOP 5 a LEFT",
    "ZMPOP 0 a MIN",
    "ZMPOP 5 a MIN",
    "XREAD COUNT 1 STREAMS a",
    "XREAD COUNT 1 STREAMS a b c",
    "XREAD COUNT 1 a b",
    "XREAD FOO 1 STREAMS a 0",
    "XREAD COUNT 1 STREAMS",
    "XREADGROUP GROUP g c COUNT 1 STREAMS a",
    "SORT a FOO",
    "SORT a STORE",
    "SORT a BY",
    "SORT a GET",
    "SORT a LIMIT 1",
    "GEORADIUS a 1 1 1 m FOO",
    "GEORADIUS a 1 1 1 m STORE",
    "GEORADIUSBYMEMBER a b 1 m COUNT 1 STORE",
    "MSET a b c",
    "MSETNX a b c",
    "XINFO STREAM",
    "OBJECT ENCODING",
    "XGROUP CREATE",
    "MEMORY USAGE",
];

#[test]
fn wrong_keys_are_refused_in_redis_words() {
    let Some(redis) = Redis::start("wrong", &[]) else {
        return;
    };
    for request in WRONG {
        let (command, args) = parsed(request);
        let error = command
            .key_positions(request.as_bytes(), &args, &mut Vec::new())
            .expect_err(request);
        let answer = redis.answer(format!("{request}\r\n").as_bytes());
        assert_eq!(answer, format!("-ERR {error}\r\n"), "{request}");
    }
}

/// A request written as words: its command and the spans of the words.
fn parsed(request: &str) -> (&'static dataplane::command::Command, Vec<Span>) {
    let mut at = 0;
    let args: Vec<Span> = request
        .split(' ')
        .map(|word| {
            let span = (at, at + word.len() as u32);
            at = span.1 + 1;
            span
        })
        .collect();
    let name = &request[..args[0].1 as usize];
    let command = lookup(name.as_bytes()).expect(name);
    assert!(command.arity_ok(args.len()), "{request}");
    (command, args)
}
