//! A client never reads a value older than its own acknowledged write, whatever its master does.
//!
//! The master is a fake, because refusals and disconnections at chosen places inside a pipeline cannot
//! be had from a real one: it refuses with READONLY or LOADING for a while, hangs up before or after it
//! executes, and answers in pieces, all by a seeded generator.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dataplane::plane::Plane;
use dataplane::pool::PoolConfig;
use dataplane::snapshot::{NO_LEASE_NEEDED, RouteSpec};

/// Numbers that depend on the seed alone.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // Knuth's 64-bit linear congruential generator (MMIX); the high bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// The fake master's data, shared by its connections.
#[derive(Default)]
struct Master {
    values: Mutex<HashMap<Vec<u8>, u64>>,
    refusing: AtomicBool,
    stopping: AtomicBool,
    refused: AtomicU64,
    hung_up: AtomicU64,
}

fn read_frame(from: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|&read| read > 0)?;
    let count: usize = line.trim_end().strip_prefix('*')?.parse().ok()?;
    (0..count)
        .map(|_| {
            let mut line = String::new();
            from.read_line(&mut line).ok()?;
            let len: usize = line.trim_end().strip_prefix('$')?.parse().ok()?;
            let mut bytes = vec![0; len + 2];
            from.read_exact(&mut bytes).ok()?;
            bytes.truncate(len);
            Some(bytes)
        })
        .collect()
}

fn serve(master: &Master, stream: TcpStream, mut dice: Dice) {
    let mut to = stream.try_clone().expect("a second handle of the socket");
    let mut from = BufReader::new(stream);
    while let Some(frame) = read_frame(&mut from) {
        let refusing = master.refusing.load(Ordering::SeqCst);
        if dice.roll(if refusing { 6 } else { 60 }) == 0 {
            master.refusing.store(!refusing, Ordering::SeqCst);
        }
        let hang_up = dice.roll(150);
        if hang_up == 0 {
            master.hung_up.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let reply = execute(master, &frame, &mut dice);
        if hang_up == 1 {
            master.hung_up.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let cut = dice.roll(reply.len() as u64) as usize;
        if to.write_all(&reply[..cut]).is_err() || to.write_all(&reply[cut..]).is_err() {
            return;
        }
    }
}

fn execute(master: &Master, frame: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let write = frame[0] == b"SET";
    let refusing = master.refusing.load(Ordering::SeqCst);
    match (frame[0].as_slice(), refusing) {
        (b"PING", _) => return b"+PONG\r\n".to_vec(),
        (b"ROLE", true) => return b"*1\r\n$5\r\nslave\r\n".to_vec(),
        (b"ROLE", false) => return b"*1\r\n$6\r\nmaster\r\n".to_vec(),
        _ => {}
    }
    if refusing && (write || dice.roll(2) == 0) {
        master.refused.fetch_add(1, Ordering::SeqCst);
        return if write {
            b"-READONLY You can't write against a read only replica.\r\n".to_vec()
        } else {
            b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()
        };
    }
    let mut values = master.values.lock().expect("no panic elsewhere");
    if write {
        let value = String::from_utf8_lossy(&frame[2])
            .parse()
            .expect("a number");
        values.insert(frame[1].clone(), value);
        return b"+OK\r\n".to_vec();
    }
    let value = values.get(&frame[1]).copied().unwrap_or(0).to_string();
    format!("${}\r\n{value}\r\n", value.len()).into_bytes()
}

fn start_master(seed: u64) -> (SocketAddr, Arc<Master>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = listener.local_addr().expect("its address");
    let master = Arc::new(Master::default());
    let shared = master.clone();
    thread::spawn(move || {
        for (number, stream) in (0_u64..).zip(listener.incoming().flatten()) {
            if shared.stopping.load(Ordering::SeqCst) {
                return;
            }
            let shared = shared.clone();
            thread::spawn(move || serve(&shared, stream, Dice(seed ^ number << 20)));
        }
    });
    (address, master)
}

/// Counts what one client was told.
#[derive(Default)]
struct Told {
    acknowledged: u64,
    in_doubt: u64,
    read: u64,
}

/// Pipelines writes of growing numbers to one key and reads of it, and checks every answer.
fn client(address: SocketAddr, key: &str, seed: u64, batches: u32) -> Told {
    let mut dice = Dice(seed);
    let stream = TcpStream::connect(address).expect("the proxy listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let mut to = stream.try_clone().expect("a second handle of the socket");
    let mut from = BufReader::new(stream);
    let mut next = 1_u64;
    let mut floor = 0_u64;
    let mut told = Told::default();
    for _ in 0..batches {
        let mut batch = Vec::new();
        let mut expected = Vec::new();
        for _ in 0..=dice.roll(30) {
            if dice.roll(2) == 0 {
                let value = next.to_string();
                batch.extend_from_slice(
                    format!(
                        "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
                        key.len(),
                        value.len()
                    )
                    .as_bytes(),
                );
                expected.push(Some(next));
                next += 1;
            } else {
                let get = format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len());
                batch.extend_from_slice(get.as_bytes());
                expected.push(None);
            }
        }
        to.write_all(&batch).expect("the proxy reads");
        for written in expected {
            let mut line = String::new();
            from.read_line(&mut line).expect("the proxy answers");
            match (written, line.as_bytes()[0]) {
                (Some(value), b'+') => {
                    floor = value;
                    told.acknowledged += 1;
                }
                (Some(_), b'-') => {
                    assert!(line.starts_with("-INDOUBT write to shard"), "{line}");
                    told.in_doubt += 1;
                }
                (None, b'$') => {
                    let mut value = String::new();
                    from.read_line(&mut value).expect("the value");
                    let value: u64 = value.trim_end().parse().expect("a number");
                    assert!(
                        value >= floor,
                        "{key}: read {value} after {floor} was acknowledged"
                    );
                    assert!(
                        value < next,
                        "{key}: read {value}, which nobody had written"
                    );
                    floor = value;
                    told.read += 1;
                }
                _ => panic!("{key}: unexpected answer {line:?}"),
            }
        }
    }
    told
}

fn start_plane(master: SocketAddr) -> (Plane, SocketAddr) {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let listen = free.local_addr().expect("its address");
    drop(free);
    let mut config = PoolConfig::new("p", &listen.to_string(), vec![("a".into(), 1)]);
    config.hold_timeout = Duration::from_secs(15);
    config.hold_bytes = 64 << 20;
    config.max_inflight = 16;
    let plane = Plane::new(vec![config], 1).expect("a valid configuration");
    plane.start().expect("a free port");
    let route = RouteSpec {
        endpoint: Some(master.into()),
        lease_until: NO_LEASE_NEEDED,
    };
    plane.apply(1, &[route]).expect("a first snapshot");
    (plane, listen)
}

#[test]
fn a_client_never_reads_a_value_older_than_its_own_acknowledged_write() {
    let mut sums = (0, 0, 0, 0);
    for seed in 1..=2_u64 {
        let (address, master) = start_master(seed);
        let (plane, listen) = start_plane(address);
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let key = format!("key{number}");
                thread::spawn(move || client(listen, &key, seed << 8 | number, 40))
            })
            .collect();
        for client in clients {
            let told = client.join().expect("every answer was right");
            sums.0 += told.acknowledged;
            sums.1 += told.in_doubt;
        }
        sums.2 += master.refused.load(Ordering::SeqCst);
        sums.3 += master.hung_up.load(Ordering::SeqCst);
        master.stopping.store(true, Ordering::SeqCst);
        assert!(plane.stop(Duration::from_secs(5)), "the workers end");
    }
    let (acknowledged, in_doubt, refused, hung_up) = sums;
    assert!(
        acknowledged > 1000,
        "only {acknowledged} writes acknowledged"
    );
    assert!(
        in_doubt > 0 && refused > 50 && hung_up > 10,
        "{sums:?}: the faults did not happen"
    );
}
