//! What a client is told, and what a master is sent, when either of them fails at a chosen moment.
//!
//! Each test plays the master by hand, one frame and one reply at a time: the moments in question lie
//! between two packets and cannot be had from a real server.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::plane::Plane;
use dataplane::pool::PoolConfig;
use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};

/// Far longer than anything here takes.
const SOON: Duration = Duration::from_secs(5);
/// Long enough for a wrong proxy to show itself.
const A_WHILE: Duration = Duration::from_millis(150);

/// One side of a connection, spoken by hand.
struct Wire {
    to: TcpStream,
    from: BufReader<TcpStream>,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let from = BufReader::new(stream.try_clone().expect("a second handle"));
        Self { to: stream, from }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.to.write_all(bytes).expect("the proxy reads");
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("a line in time");
        line.trim_end().to_owned()
    }

    /// The words of the next request; none at the end of the stream.
    fn request(&mut self) -> Vec<String> {
        let Some(count) = self.line().strip_prefix('*').map(str::to_owned) else {
            return Vec::new();
        };
        (0..count.parse().expect("a count"))
            .map(|_| {
                let len: usize = self.line()[1..].parse().expect("a length");
                let mut bytes = vec![0; len + 2];
                self.from.read_exact(&mut bytes).expect("an argument");
                bytes.truncate(len);
                String::from_utf8(bytes).expect("text")
            })
            .collect()
    }

    /// Waits until something comes, and leaves it there.
    fn begins(&mut self) {
        assert!(!self.from.fill_buf().expect("bytes in time").is_empty());
    }

    /// Reads for a while what comes, and returns how many bytes that were and whether the end came.
    fn drain(&mut self) -> (usize, bool) {
        let mut bytes = self.from.buffer().len();
        self.from.consume(bytes);
        self.to.set_read_timeout(Some(A_WHILE)).expect("a timeout");
        let mut space = vec![0; 1 << 20];
        let ended = loop {
            match self.to.read(&mut space) {
                Ok(0) => break true,
                Ok(count) => bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
        };
        self.to.set_read_timeout(Some(SOON)).expect("a timeout");
        (bytes, ended)
    }

    fn says_nothing(&mut self) {
        assert_eq!(self.drain(), (0, false));
    }
}

/// A plane over one shard, and the master of that shard.
struct Scene {
    plane: Plane,
    listen: SocketAddr,
    connections: Receiver<TcpStream>,
}

impl Scene {
    fn new(change: impl FnOnce(&mut PoolConfig)) -> Self {
        let master = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let endpoint = master.local_addr().expect("its address");
        let (sender, connections) = channel();
        thread::spawn(move || {
            for stream in master.incoming().flatten() {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        let free = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let listen = free.local_addr().expect("its address");
        drop(free);
        let mut config = PoolConfig::new("p", &listen.to_string(), vec![("a".into(), 1)]);
        config.hold_timeout = SOON;
        config.hold_bytes = 256 << 20;
        change(&mut config);
        let plane = Plane::new(vec![config], 1).expect("a valid configuration");
        plane.start().expect("a free port");
        let route = RouteSpec {
            endpoint: Some(endpoint.into()),
            lease_until: NO_LEASE_NEEDED,
        };
        plane.apply(1, &[route]).expect("a first snapshot");
        Self {
            plane,
            listen,
            connections,
        }
    }

    fn client(&self) -> Wire {
        Wire::new(TcpStream::connect(self.listen).expect("the proxy listens"))
    }

    /// The proxy's next connection to the master.
    fn master(&self) -> Wire {
        let stream = self.connections.recv_timeout(SOON);
        Wire::new(stream.expect("the proxy connects"))
    }

    /// A connection that the proxy asks PING and ROLE on before it uses it.
    fn asked_master(&self, role: &str) -> Wire {
        let mut master = self.master();
        assert_eq!(master.request(), ["PING"]);
        assert_eq!(master.request(), ["ROLE"]);
        let role = format!("+PONG\r\n*1\r\n${}\r\n{role}\r\n", role.len());
        master.send(role.as_bytes());
        master
    }

    fn lease(&self, until: u64) {
        self.plane.renew(0, until).expect("there is a shard 0");
    }

    fn wait(&self, what: &str, holds: impl Fn(&dataplane::plane::ShardStats) -> bool) {
        let started = Instant::now();
        while !holds(&self.plane.stats()[0].shards[0]) {
            assert!(started.elapsed() < SOON, "never: {what}");
            thread::yield_now();
        }
    }
}

fn set(key: &str, value: &str) -> Vec<u8> {
    format!(
        "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
        key.len(),
        value.len()
    )
    .into_bytes()
}

/// More than the buffers of two sockets hold.
fn huge() -> String {
    "x".repeat(24 << 20)
}

#[test]
fn a_route_opens_one_connection() {
    let scene = Scene::new(|_| {});
    let _first = scene.master();
    assert!(scene.connections.recv_timeout(A_WHILE).is_err());
}

#[test]
fn a_write_cut_off_by_the_end_of_its_lease_is_held_and_sent_whole() {
    let scene = Scene::new(|_| {});
    let mut first = scene.master();
    let mut writer = scene.client();
    let mut reader = scene.client();
    writer.send(&set("k", &huge()));
    first.begins();
    scene.lease(0);
    let (_, ended) = first.drain();
    assert!(ended, "a connection with half a write is of no use");
    let mut second = scene.master();
    reader.send(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
    assert_eq!(second.request(), ["GET", "k"], "reads go on");
    second.send(b"$-1\r\n");
    assert_eq!(reader.line(), "$-1");
    scene.lease(NO_LEASE_NEEDED);
    assert_eq!(second.request(), ["SET", "k", &huge()]);
    second.send(b"+OK\r\n");
    assert_eq!(writer.line(), "+OK");
}

#[test]
fn a_write_cut_off_behind_unanswered_requests_goes_on_with_the_lease() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut writer = scene.client();
    writer.send(&set("j", "1"));
    assert_eq!(master.request(), ["SET", "j", "1"]);
    writer.send(&set("k", &huge()));
    master.begins();
    scene.lease(0);
    let (read, ended) = master.drain();
    assert!(read < 24 << 20 && !ended, "no lease, no more bytes");
    scene.lease(NO_LEASE_NEEDED);
    let (rest, ended) = master.drain();
    assert!(!ended);
    assert_eq!(read + rest, set("k", &huge()).len());
    master.send(b"+OK\r\n+OK\r\n");
    assert_eq!((writer.line(), writer.line()), ("+OK".into(), "+OK".into()));
}

#[test]
fn a_write_that_is_refused_again_and_again_is_held_no_longer_than_the_bound() {
    let bound = Duration::from_millis(400);
    let scene = Scene::new(|config| config.hold_timeout = bound);
    let mut master = scene.master();
    let mut writer = scene.client();
    let Scene {
        plane, connections, ..
    } = scene;
    let started = Instant::now();
    writer.send(&set("k", "1"));
    let refusing = thread::spawn(move || {
        while started.elapsed() < SOON {
            while let [name, ..] = master.request().as_slice() {
                master.send(match name.as_str() {
                    "PING" => b"+PONG\r\n",
                    "ROLE" => b"*1\r\n$6\r\nmaster\r\n",
                    _ => b"-NOREPLICAS Not enough good replicas to write.\r\n",
                });
            }
            let Ok(next) = connections.recv_timeout(A_WHILE * 4) else {
                break;
            };
            master = Wire::new(next);
        }
    });
    let answer = writer.line();
    assert!(answer.starts_with("-MASTERDOWN shard \"a\""), "{answer}");
    assert!(started.elapsed() < bound * 3, "{:?}", started.elapsed());
    drop(writer);
    assert!(plane.stop(SOON), "the workers end");
    refusing.join().expect("a master that refuses");
}

#[test]
fn a_client_that_leaves_while_its_requests_are_held_has_none_of_them_sent() {
    let scene = Scene::new(|config| config.max_inflight = 2);
    let mut master = scene.master();
    let mut other = scene.client();
    let mut leaver = scene.client();
    other.send(b"*1\r\n$4\r\nPING\r\n");
    assert_eq!(other.line(), "+PONG");
    leaver.send(&[set("k", "1"), set("k", "2"), set("k", "3")].concat());
    assert_eq!(master.request(), ["SET", "k", "1"]);
    assert_eq!(master.request(), ["SET", "k", "2"]);
    master.send(b"-READONLY not a master\r\n-READONLY not a master\r\n");
    drop(scene.asked_master("slave"));
    drop(leaver);
    let two_clients_less_one = || scene.plane.stats()[0].totals.clients == 1;
    let started = Instant::now();
    while !two_clients_less_one() && started.elapsed() < A_WHILE {
        drop(scene.asked_master("slave"));
    }
    let mut master = scene.asked_master("master");
    other.send(&set("marker", "1"));
    assert_eq!(master.request(), ["SET", "marker", "1"]);
}

#[test]
fn each_hold_of_a_busy_client_has_its_full_time() {
    let bound = Duration::from_millis(400);
    let scene = Scene::new(|config| config.hold_timeout = bound);
    let mut master = scene.master();
    scene.lease(0);
    let mut writer = scene.client();
    let (whole, half) = (set("k", "1"), set("k", "2"));
    writer.send(&[&whole, &half[..10]].concat());
    scene.wait("one is held", |shard| shard.totals.held_requests == 1);
    scene.lease(NO_LEASE_NEEDED);
    assert_eq!(master.request(), ["SET", "k", "1"]);
    master.send(b"+OK\r\n");
    assert_eq!(writer.line(), "+OK");
    while bound > scene_quiet(&mut writer) {}
    scene.lease(0);
    writer.send(&half[10..]);
    writer.says_nothing();
    scene.lease(NO_LEASE_NEEDED);
    assert_eq!(master.request(), ["SET", "k", "2"]);
}

/// Lets more than a hold's time pass, in which nothing is said.
fn scene_quiet(wire: &mut Wire) -> Duration {
    let started = Instant::now();
    for _ in 0..4 {
        wire.says_nothing();
    }
    started.elapsed()
}

#[test]
fn a_client_that_has_finished_sending_still_gets_its_replies() {
    let scene = Scene::new(|_| {});
    let mut master = scene.master();
    let mut client = scene.client();
    client.send(&[&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..], &set("k", "1")].concat());
    client.to.shutdown(Shutdown::Write).expect("half a close");
    assert_eq!(master.request(), ["GET", "k"]);
    assert_eq!(master.request(), ["SET", "k", "1"]);
    client.says_nothing();
    master.send(b"$1\r\nx\r\n+OK\r\n");
    let mut all = String::new();
    client.from.read_to_string(&mut all).expect("the end");
    assert_eq!(all, "$1\r\nx\r\n+OK\r\n");
}

#[test]
fn what_nobody_waits_for_takes_no_space_from_what_is_held() {
    let scene = Scene::new(|config| {
        config.timeout = Duration::from_millis(100);
        config.hold_bytes = 40 << 20;
    });
    let mut master = scene.master();
    let mut writer = scene.client();
    writer.send(&[set("k", "1"), set("k", &huge()), set("k", &huge())].concat());
    assert_eq!(master.request(), ["SET", "k", "1"]);
    for _ in 0..3 {
        assert!(writer.line().starts_with("-INDOUBT"));
    }
    master.send(b"-READONLY not a master\r\n");
    scene.wait("refused", |shard| shard.totals.connection_errors == 1);
    let _master = scene.asked_master("master");
    scene.wait("serving again", |shard| shard.totals.serving == 1);
    scene.lease(0);
    writer.send(&set("k", &huge()));
    writer.says_nothing();
}

#[test]
fn all_that_a_held_client_has_sent_counts_as_held() {
    let scene = Scene::new(|_| {});
    scene.lease(0);
    let mut writer = scene.client();
    let pipeline = set("k", "1").repeat(1000);
    writer.send(&pipeline);
    scene.wait("all is counted", |shard| {
        shard.totals.held_bytes == pipeline.len() as u64
    });
    scene.lease(NO_LEASE_NEEDED);
    scene.wait("none is", |shard| shard.totals.held_bytes == 0);
}
