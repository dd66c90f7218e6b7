//! A master that refuses, hangs up and answers in pieces, by a seeded generator.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

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

/// A fake master's data, shared by its connections.
pub(crate) struct Master {
    /// By database and key.
    values: Mutex<HashMap<(u8, Vec<u8>), u64>>,
    hang_up: u64,
    refusing: AtomicBool,
    pub(crate) stopping: AtomicBool,
    pub(crate) refused: AtomicU64,
    pub(crate) hung_up: AtomicU64,
}

impl Master {
    pub(crate) fn start(seed: u64, hang_up: u64) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("its address");
        let master = Arc::new(Self {
            values: Mutex::default(),
            hang_up,
            refusing: AtomicBool::default(),
            stopping: AtomicBool::default(),
            refused: AtomicU64::default(),
            hung_up: AtomicU64::default(),
        });
        let shared = master.clone();
        thread::spawn(move || {
            for (number, stream) in (0_u64..).zip(listener.incoming().flatten()) {
                if shared.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                thread::spawn(move || shared.serve(stream, Dice(seed ^ number << 20)));
            }
        });
        (address, master)
    }

    fn serve(&self, stream: TcpStream, mut dice: Dice) {
        stream.set_nodelay(true).expect("a socket");
        let mut to = stream.try_clone().expect("a second handle of the socket");
        let mut from = BufReader::new(stream);
        let mut database = 0;
        while let Some(frame) = read_frame(&mut from) {
            let refusing = self.refusing.load(Ordering::SeqCst);
            if dice.roll(if refusing { 6 } else { 60 }) == 0 {
                self.refusing.store(!refusing, Ordering::SeqCst);
            }
            let hang_up = dice.roll(self.hang_up);
            if hang_up == 0 {
                self.hung_up.fetch_add(1, Ordering::SeqCst);
                return;
            }
            let reply = self.execute(&frame, &mut database, &mut dice);
            if hang_up == 1 {
                self.hung_up.fetch_add(1, Ordering::SeqCst);
                return;
            }
            let cut = dice.roll(reply.len() as u64) as usize;
            if to.write_all(&reply[..cut]).is_err() || to.write_all(&reply[cut..]).is_err() {
                return;
            }
        }
    }

    fn execute(&self, frame: &[Vec<u8>], database: &mut u8, dice: &mut Dice) -> Vec<u8> {
        let refusing = self.refusing.load(Ordering::SeqCst);
        match (frame[0].as_slice(), refusing) {
            (b"PING", _) => return b"+PONG\r\n".to_vec(),
            (b"HELLO", _) => return b"%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n".to_vec(),
            (b"SELECT", _) => {
                *database = frame[1][0] - b'0';
                return b"+OK\r\n".to_vec();
            }
            (b"ROLE", true) => return b"*1\r\n$5\r\nslave\r\n".to_vec(),
            (b"ROLE", false) => return b"*1\r\n$6\r\nmaster\r\n".to_vec(),
            _ => {}
        }
        let write = frame[0].ends_with(b"SET");
        if refusing && (write || dice.roll(2) == 0) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return if write {
                b"-READONLY You can't write against a read only replica.\r\n".to_vec()
            } else {
                b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()
            };
        }
        let mut values = self.values.lock().expect("no panic elsewhere");
        if write {
            for pair in frame[1..].chunks(2) {
                let value = String::from_utf8_lossy(&pair[1]);
                values.insert(
                    (*database, pair[0].clone()),
                    value.parse().expect("a number"),
                );
            }
            return b"+OK\r\n".to_vec();
        }
        let mut reply = Vec::new();
        if frame[0] == b"MGET" {
            reply.extend_from_slice(format!("*{}\r\n", frame.len() - 1).as_bytes());
        }
        for key in &frame[1..] {
            let value = values
                .get(&(*database, key.clone()))
                .unwrap_or(&0)
                .to_string();
            reply.extend_from_slice(format!("${}\r\n{value}\r\n", value.len()).as_bytes());
        }
        reply
    }
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
