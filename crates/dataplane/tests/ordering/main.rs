//! Whatever its masters do, a client gets its own answers in the order of its requests, and never reads a value older
//! than its own acknowledged write.
//!
//! The masters are fakes, because refusals and disconnections at chosen places inside a pipeline cannot
//! be had from real ones: they refuse with READONLY or LOADING for a while, hang up before or after they
//! execute, and answer in pieces. The clients change database and protocol in mid-pipeline, and with them the
//! connections that they share, send in pieces, write and read keys of both shards at once, reconnect, and
//! leave without their answers. All of it is drawn.

mod master;
#[path = "../scene/mod.rs"]
mod scene;

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use dataplane::hash::HashKind;
use dataplane::plane::Plane;
use dataplane::ring::{Distribution, Ring};
use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};
use master::Master;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const SHARDS: [&str; 2] = ["a", "b"];

/// One run: what the masters and each client do.
#[derive(Debug, Clone)]
struct Plan {
    seed: u64,
    /// Shared connections of each lane.
    connections: u16,
    workers: usize,
    /// One of so many requests makes a master hang up.
    hang_up: u64,
    clients: Vec<Vec<Batch>>,
}

/// Requests that are sent together.
#[derive(Debug, Clone)]
struct Batch {
    steps: Vec<Step>,
    /// Bytes that are sent at once.
    piece: usize,
    then: Then,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The client's key on this shard.
    Set(usize),
    Get(usize),
    SetBoth,
    GetBoth,
    Select(u8),
    Hello(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Stay,
    /// Reads all answers, and comes again.
    Reconnect,
    /// Leaves at once. What it had sent may be executed at any time, so it goes on with other keys.
    Abandon,
}

fn plan() -> impl Strategy<Value = Plan> {
    let step = prop_oneof![
        8 => (0..SHARDS.len()).prop_map(Step::Set),
        8 => (0..SHARDS.len()).prop_map(Step::Get),
        3 => Just(Step::SetBoth),
        3 => Just(Step::GetBoth),
        1 => (0_u8..2).prop_map(Step::Select),
        1 => (2_u8..4).prop_map(Step::Hello),
    ];
    let then =
        prop_oneof![8 => Just(Then::Stay), 1 => Just(Then::Reconnect), 1 => Just(Then::Abandon)];
    let piece = prop_oneof![1_usize..8, 8_usize..200, Just(usize::MAX)];
    let batch = (prop::collection::vec(step, 1..30), piece, then)
        .prop_map(|(steps, piece, then)| Batch { steps, piece, then });
    let clients = prop::collection::vec(prop::collection::vec(batch, 6..16), 4..8);
    (any::<u64>(), 1_u16..4, 1_usize..3, 100_u64..400, clients).prop_map(
        |(seed, connections, workers, hang_up, clients)| Plan {
            seed,
            connections,
            workers,
            hang_up,
            clients,
        },
    )
}

/// Counts of what clients were told.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    acknowledged: u64,
    in_doubt: u64,
    read: u64,
    moved: u64,
}

/// What a client knows of one key.
#[derive(Clone, Copy, Default)]
struct Known {
    /// No read may give less.
    floor: u64,
    /// The last number that it wrote.
    last: u64,
}

/// A request that is not answered yet.
enum Asked {
    Write(Vec<(usize, u64)>),
    Read(Vec<usize>),
    /// Of the connection itself; its answer begins so.
    Of(&'static str),
}

/// One client, who alone writes its keys: growing numbers.
struct Client {
    listen: SocketAddr,
    number: usize,
    to: TcpStream,
    from: BufReader<TcpStream>,
    keys: [String; 2],
    database: u8,
    /// By database and shard.
    known: [[Known; 2]; 2],
    next: u64,
    told: Told,
}

impl Client {
    fn new(listen: SocketAddr, number: usize) -> Self {
        let (to, from) = connect(listen);
        Self {
            listen,
            number,
            to,
            from,
            keys: keys_of(number, 0),
            database: 0,
            known: Default::default(),
            next: 1,
            told: Told::default(),
        }
    }

    fn play(mut self, batches: &[Batch]) -> Told {
        for batch in batches {
            let mut bytes = Vec::new();
            let asked: Vec<(u8, Asked)> = batch
                .steps
                .iter()
                .map(|&step| (self.database_after(step), self.ask(step, &mut bytes)))
                .collect();
            for piece in bytes.chunks(batch.piece.min(bytes.len())) {
                self.to.write_all(piece).expect("the proxy reads");
            }
            if batch.then != Then::Abandon {
                for (database, asked) in asked {
                    self.hear(usize::from(database), asked);
                }
            }
            if batch.then != Then::Stay {
                (self.to, self.from) = connect(self.listen);
                self.database = 0;
                self.told.moved += 1;
            }
            if batch.then == Then::Abandon {
                self.keys = keys_of(self.number, self.next);
                self.known = Default::default();
            }
        }
        self.told
    }

    fn database_after(&mut self, step: Step) -> u8 {
        if let Step::Select(database) = step {
            self.database = database;
        }
        self.database
    }

    fn ask(&mut self, step: Step, bytes: &mut Vec<u8>) -> Asked {
        let keys = self.keys.clone();
        let mut write = |shards: &[usize]| {
            let write = |&shard: &usize| {
                let value = self.next;
                self.next += 1;
                self.known[usize::from(self.database)][shard].last = value;
                (shard, value)
            };
            shards.iter().map(write).collect::<Vec<_>>()
        };
        let (words, asked) = match step {
            Step::Set(shard) => {
                let written = write(&[shard]);
                let words = ["SET", &keys[shard], &written[0].1.to_string()].map(str::to_owned);
                (words.to_vec(), Asked::Write(written))
            }
            Step::SetBoth => {
                let written = write(&[1, 0]);
                let mut words = vec!["MSET".to_owned()];
                for (shard, value) in &written {
                    words.extend([keys[*shard].clone(), value.to_string()]);
                }
                (words, Asked::Write(written))
            }
            Step::Get(shard) => {
                let words = ["GET", &keys[shard]].map(str::to_owned);
                (words.to_vec(), Asked::Read(vec![shard]))
            }
            Step::GetBoth => {
                let words = ["MGET", &keys[0], &keys[1]].map(str::to_owned);
                (words.to_vec(), Asked::Read(vec![0, 1]))
            }
            Step::Select(database) => {
                let words = ["SELECT".to_owned(), database.to_string()];
                (words.to_vec(), Asked::Of("+OK"))
            }
            Step::Hello(protocol) => {
                let words = ["HELLO".to_owned(), protocol.to_string()];
                let begin = if protocol == 3 { "%" } else { "*" };
                (words.to_vec(), Asked::Of(begin))
            }
        };
        bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        asked
    }

    fn hear(&mut self, database: usize, asked: Asked) {
        let mut answer = Vec::new();
        read_reply(&mut self.from, &mut answer);
        let text = String::from_utf8(answer).expect("text");
        match asked {
            Asked::Of(begin) => assert!(text.starts_with(begin), "{text:?} is not {begin}"),
            Asked::Write(written) if text == "+OK\r\n" => {
                for (shard, value) in written {
                    self.known[database][shard].floor = value;
                    self.told.acknowledged += 1;
                }
            }
            Asked::Write(_) => {
                assert!(text.starts_with("-INDOUBT write to shard"), "{text}");
                self.told.in_doubt += 1;
            }
            Asked::Read(shards) => {
                let values: Vec<u64> = text
                    .split("\r\n")
                    .filter_map(|line| line.parse().ok())
                    .collect();
                assert_eq!(values.len(), shards.len(), "{text:?} is no such answer");
                for (&shard, value) in shards.iter().zip(values) {
                    let known = &mut self.known[database][shard];
                    let key = &self.keys[shard];
                    assert!(
                        value >= known.floor,
                        "{key}: read {value} after {} was acknowledged",
                        known.floor
                    );
                    assert!(
                        value <= known.last,
                        "{key}: read {value}, which nobody had written there"
                    );
                    known.floor = value;
                    self.told.read += 1;
                }
            }
        }
    }
}

fn connect(listen: SocketAddr) -> (TcpStream, BufReader<TcpStream>) {
    let stream = TcpStream::connect(listen).expect("the proxy listens");
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).expect("a timeout");
    stream.set_nodelay(true).expect("a socket");
    let from = BufReader::new(stream.try_clone().expect("a second handle of the socket"));
    (stream, from)
}

/// A key of this client on each shard, new ones for each generation.
fn keys_of(client: usize, generation: u64) -> [String; 2] {
    let ring = Ring::build(
        Distribution::Ketama,
        &SHARDS.map(|name| (name.to_owned(), 1)),
    );
    [0, 1].map(|shard| {
        let mut keys = (0..).map(|n| format!("key{client}:{generation}:{n}"));
        let found = keys.find(|key| ring.shard(HashKind::Fnv1a64.hash(key.as_bytes())) == shard);
        found.expect("some key is on it")
    })
}

/// Appends the next reply, with all that is nested in it.
fn read_reply(from: &mut impl BufRead, out: &mut Vec<u8>) {
    let start = out.len();
    from.read_until(b'\n', out).expect("the proxy answers");
    let line = String::from_utf8_lossy(&out[start..]).into_owned();
    let number = || -> usize { line[1..].trim_end().parse().expect("a length") };
    match line.as_bytes().first() {
        Some(b'+' | b'-' | b':' | b'_') => {}
        Some(b'$') => {
            let body = out.len();
            out.resize(body + number() + 2, 0);
            from.read_exact(&mut out[body..]).expect("the string");
        }
        Some(b'*') => (0..number()).for_each(|_| read_reply(from, out)),
        Some(b'%') => (0..2 * number()).for_each(|_| read_reply(from, out)),
        _ => panic!("unexpected answer {line:?}"),
    }
}

fn start_plane(plan: &Plan, masters: &[SocketAddr]) -> (Plane, SocketAddr) {
    let listen = scene::free_port();
    let mut config = scene::pool("p", listen, &SHARDS);
    config.hold_timeout = Duration::from_secs(15);
    config.max_inflight = 16;
    config.connections = plan.connections;
    let plane = Plane::new(vec![config], plan.workers).expect("a valid configuration");
    plane.start().expect("a free port");
    let route = |&master: &SocketAddr| RouteSpec {
        endpoint: Some(master.into()),
        lease_until: NO_LEASE_NEEDED,
    };
    let routes: Vec<RouteSpec> = masters.iter().map(route).collect();
    plane.apply(1, &routes).expect("a first snapshot");
    (plane, listen)
}

/// Plays a plan; returns what was told, how much was refused and how often a master hung up.
fn play(plan: &Plan) -> (Told, u64, u64) {
    let masters = [1, 2].map(|n| Master::start(plan.seed ^ n << 40, plan.hang_up));
    let (plane, listen) = start_plane(plan, &masters.each_ref().map(|&(address, _)| address));
    let mut sum = Told::default();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..)
            .zip(&plan.clients)
            .map(|(number, batches)| scope.spawn(move || Client::new(listen, number).play(batches)))
            .collect();
        for client in clients {
            let told = client.join().expect("every answer was right");
            sum.acknowledged += told.acknowledged;
            sum.in_doubt += told.in_doubt;
            sum.read += told.read;
            sum.moved += told.moved;
        }
    });
    let (mut refused, mut hung_up) = (0, 0);
    for (_, master) in &masters {
        refused += master.refused.load(Ordering::SeqCst);
        hung_up += master.hung_up.load(Ordering::SeqCst);
        master.stopping.store(true, Ordering::SeqCst);
    }
    assert!(plane.stop(Duration::from_secs(5)), "the workers end");
    (sum, refused, hung_up)
}

#[test]
fn a_client_reads_its_own_answers_in_order_and_never_back_in_time() {
    // What was drawn is printed if it fails; threads make no run the same, so little is tried to make it smaller.
    let mut runner = TestRunner::new(Config {
        cases: 6,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    });
    let sums = Cell::new((Told::default(), 0, 0));
    let outcome = runner.run(&plan(), |plan| {
        let (told, refused, hung_up) = play(&plan);
        let (mut sum, all_refused, all_hung_up) = sums.get();
        sum.acknowledged += told.acknowledged;
        sum.in_doubt += told.in_doubt;
        sum.read += told.read;
        sum.moved += told.moved;
        sums.set((sum, all_refused + refused, all_hung_up + hung_up));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let (told, refused, hung_up) = sums.get();
    assert!(told.acknowledged > 1000 && told.read > 1000, "{told:?}");
    assert!(
        told.in_doubt > 0 && told.moved > 20 && refused > 50 && hung_up > 10,
        "{told:?}, {refused} refused, {hung_up} hung up: the faults did not happen"
    );
}
