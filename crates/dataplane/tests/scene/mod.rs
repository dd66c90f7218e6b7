//! A plane between a client and masters that are played by hand, one frame and one reply at a time: the moments
//! that the tests are about lie between two packets and cannot be had from a real server.

#![expect(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this module"
)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::endpoint::Endpoint;
use dataplane::hash::HashKind;
use dataplane::plane::{Plane, ShardStats};
use dataplane::pool::{PoolConfig, Servers};
use dataplane::ring::{Distribution, Ring};
use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};

/// Far longer than anything here takes.
pub const SOON: Duration = Duration::from_secs(5);
/// Long enough for a wrong proxy to show itself.
pub const A_WHILE: Duration = Duration::from_millis(150);

/// One side of a connection, spoken by hand.
pub struct Wire {
    pub to: TcpStream,
    pub from: BufReader<TcpStream>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let from = BufReader::new(stream.try_clone().expect("a second handle"));
        Self { to: stream, from }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.to.write_all(bytes).expect("the proxy reads");
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).expect("a line in time");
        line.trim_end().to_owned()
    }

    /// The words of the next request; none at the end of the stream.
    pub fn request(&mut self) -> Vec<String> {
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
    pub fn begins(&mut self) {
        assert!(!self.from.fill_buf().expect("bytes in time").is_empty());
    }

    /// Reads what comes, and returns how many bytes that were and whether the end came. It is patient: on
    /// busy processors a worker needs hundreds of milliseconds for a huge request that it cuts off.
    pub fn drain(&mut self) -> (usize, bool) {
        self.drain_until_quiet_for(A_WHILE * 6)
    }

    fn drain_until_quiet_for(&mut self, quiet: Duration) -> (usize, bool) {
        let mut bytes = self.from.buffer().len();
        self.from.consume(bytes);
        self.to.set_read_timeout(Some(quiet)).expect("a timeout");
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

    /// Is asked PING and ROLE, and answers that it is this.
    pub fn answers_role(&mut self, role: &str) {
        assert_eq!(self.request(), ["PING"]);
        assert_eq!(self.request(), ["ROLE"]);
        let role = format!("+PONG\r\n*1\r\n${}\r\n{role}\r\n", role.len());
        self.send(role.as_bytes());
    }

    pub fn says_nothing(&mut self) {
        assert_eq!(self.drain_until_quiet_for(A_WHILE), (0, false));
    }
}

/// A server: where it is, and what the proxy connects to it.
pub struct Master {
    pub endpoint: SocketAddr,
    connections: Receiver<TcpStream>,
}

impl Master {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let endpoint = listener.local_addr().expect("its address");
        let (sender, connections) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self {
            endpoint,
            connections,
        }
    }

    pub fn route(&self) -> RouteSpec {
        RouteSpec {
            endpoint: Some(self.endpoint.into()),
            lease_until: NO_LEASE_NEEDED,
        }
    }

    /// The proxy's next connection.
    pub fn connection(&self) -> Wire {
        self.connection_within(SOON).expect("the proxy connects")
    }

    pub fn connection_within(&self, patience: Duration) -> Option<Wire> {
        self.connections.recv_timeout(patience).ok().map(Wire::new)
    }

    pub fn is_left_alone(&self) -> bool {
        self.connection_within(A_WHILE).is_none()
    }
}

/// A port of loopback that nobody listens on.
pub fn free_port() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    free.local_addr().expect("its address")
}

/// A pool with patience, over these shards.
pub fn pool(name: &str, listen: SocketAddr, shards: &[&str]) -> PoolConfig {
    let shards = shards.iter().map(|&shard| (shard.to_owned(), 1)).collect();
    let mut config = PoolConfig::new(name, &listen.to_string(), shards);
    config.hold_timeout = SOON;
    config.hold_bytes = 256 << 20;
    config
}

/// As with Twemproxy: servers are where the file says.
pub fn fixed(config: &mut PoolConfig) {
    config.servers = Servers::Fixed {
        preconnect: false,
        eject: None,
    };
}

/// A plane over servers at these endpoints, of which nobody may listen on some.
pub fn plane_over(
    endpoints: &[Option<Endpoint>],
    change: impl Fn(&mut PoolConfig),
) -> (Plane, Wire) {
    let (plane, client) = plane_of(endpoints.len(), change);
    plane
        .apply(1, &routes(endpoints))
        .expect("a first snapshot");
    (plane, client)
}

/// A plane over so many servers that has not been told yet where they are.
pub fn plane_of(servers: usize, change: impl Fn(&mut PoolConfig)) -> (Plane, Wire) {
    let listen = free_port();
    let names: Vec<String> = (0..servers).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut config = pool("p", listen, &names);
    fixed(&mut config);
    change(&mut config);
    let plane = Plane::new(vec![config], 1).expect("a valid configuration");
    plane.start().expect("a free port");
    (plane, client_at(listen))
}

pub fn routes(endpoints: &[Option<Endpoint>]) -> Vec<RouteSpec> {
    endpoints
        .iter()
        .map(|endpoint| RouteSpec {
            endpoint: endpoint.clone(),
            lease_until: NO_LEASE_NEEDED,
        })
        .collect()
}

/// A key that belongs to the n-th of these shards.
pub fn key_of(shards: &[&str], n: usize) -> String {
    let shards: Vec<_> = shards.iter().map(|&shard| (shard.to_owned(), 1)).collect();
    let ring = Ring::build(Distribution::Ketama, &shards);
    let mut keys = (0..).map(|n| format!("key:{n}"));
    keys.find(|key| ring.shard(HashKind::Fnv1a64.hash(key.as_bytes())) == n)
        .expect("some key is on it")
}

/// A plane with one pool, and the masters of its shards.
pub struct Scene {
    pub plane: Plane,
    pub listen: SocketAddr,
    pub masters: Vec<Master>,
}

impl Scene {
    /// One shard.
    pub fn new(change: impl FnOnce(&mut PoolConfig)) -> Self {
        Self::over(&["a"], change)
    }

    pub fn over(shards: &[&str], change: impl FnOnce(&mut PoolConfig)) -> Self {
        let masters: Vec<Master> = shards.iter().map(|_| Master::new()).collect();
        let listen = free_port();
        let mut config = pool("p", listen, shards);
        change(&mut config);
        let plane = Plane::new(vec![config], 1).expect("a valid configuration");
        plane.start().expect("a free port");
        let routes: Vec<RouteSpec> = masters.iter().map(Master::route).collect();
        plane.apply(1, &routes).expect("a first snapshot");
        Self {
            plane,
            listen,
            masters,
        }
    }

    pub fn client(&self) -> Wire {
        client_at(self.listen)
    }

    /// The proxy's next connection to the first master.
    pub fn master(&self) -> Wire {
        self.masters[0].connection()
    }

    /// A connection that the proxy asks PING and ROLE on before it uses it.
    pub fn asked_master(&self, role: &str) -> Wire {
        let mut master = self.master();
        master.answers_role(role);
        master
    }

    pub fn lease(&self, until: u64) {
        self.plane.renew(0, until).expect("there is a shard 0");
    }

    pub fn wait(&self, what: &str, holds: impl Fn(&ShardStats) -> bool) {
        let started = Instant::now();
        while !holds(&self.plane.stats()[0].shards[0]) {
            assert!(started.elapsed() < SOON, "never: {what}");
            thread::yield_now();
        }
    }

    /// Waits until every worker serves this epoch.
    pub fn acked(&self, epoch: u64) {
        let started = Instant::now();
        while self.plane.acked_epoch() < epoch {
            assert!(started.elapsed() < SOON, "never: epoch {epoch}");
            thread::yield_now();
        }
    }
}

pub fn client_at(listen: SocketAddr) -> Wire {
    Wire::new(TcpStream::connect(listen).expect("the proxy listens"))
}

pub fn set(key: &str, value: &str) -> Vec<u8> {
    format!(
        "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
        key.len(),
        value.len()
    )
    .into_bytes()
}

/// More than the buffers of two sockets hold.
pub fn huge() -> String {
    "x".repeat(24 << 20)
}

pub fn get(key: &str) -> Vec<u8> {
    format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).into_bytes()
}

pub const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
pub const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// Sends MULTI and these requests, and reads that they are queued.
pub fn queue(client: &mut Wire, requests: &[Vec<u8>]) {
    client.send(&[MULTI, &requests.concat()].concat());
    assert_eq!(client.line(), "+OK");
    for _ in requests {
        assert_eq!(client.line(), "+QUEUED");
    }
}

/// A whole transaction with these requests arrives.
pub fn receive(master: &mut Wire, requests: &[&[&str]]) {
    assert_eq!(master.request(), ["MULTI"]);
    for request in requests {
        assert_eq!(master.request(), *request);
    }
    assert_eq!(master.request(), ["EXEC"]);
}

/// What a server answers to MULTI and to so many requests that it queues.
pub fn queued(count: usize) -> Vec<u8> {
    [b"+OK\r\n", "+QUEUED\r\n".repeat(count).as_bytes()].concat()
}

/// A key of each of the two shards.
pub fn keys_apart() -> [String; 2] {
    let shards = [("a".to_owned(), 1), ("b".to_owned(), 1)];
    let ring = Ring::build(Distribution::Ketama, &shards);
    let shard_of = |key: &String| ring.shard(HashKind::Fnv1a64.hash(key.as_bytes()));
    [0, 1].map(|shard| {
        let mut keys = (100..).map(|number| format!("user:{number}"));
        let found = keys.find(|key| shard_of(key) == shard);
        found.expect("each shard has keys")
    })
}
