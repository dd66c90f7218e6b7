//! Twemproxy's twelve key hashes, bit for bit, and the hash tag.
//!
//! Owns the step from a key to the 32 bits that the ring looks up. The rule it keeps: a key hashes
//! as nutcracker 0.5.0 on `x86_64` hashes it, oddities included, because the hash decides on which
//! shard the data already lies. Several of the originals read the key as C `char`, which is signed
//! there, so bytes of 0x80 and above are sign-extended; [`sign_extended`] marks those places.
//! `route` and the bindings' `Ring` call this; `tests/hashes.rs` and the recorded rings replay the
//! real binary.

use md5::{Digest, Md5};

/// A hash of twemproxy, named in a pool's `hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashKind {
    OneAtATime,
    Md5,
    Crc16,
    Crc32,
    Crc32a,
    Fnv1_64,
    Fnv1a64,
    Fnv1_32,
    Fnv1a32,
    Hsieh,
    Murmur,
    Jenkins,
}

impl HashKind {
    /// Every hash with its name in configuration files; the names are case-sensitive.
    pub const ALL: [(&'static str, Self); 12] = [
        ("one_at_a_time", Self::OneAtATime),
        ("md5", Self::Md5),
        ("crc16", Self::Crc16),
        ("crc32", Self::Crc32),
        ("crc32a", Self::Crc32a),
        ("fnv1_64", Self::Fnv1_64),
        ("fnv1a_64", Self::Fnv1a64),
        ("fnv1_32", Self::Fnv1_32),
        ("fnv1a_32", Self::Fnv1a32),
        ("hsieh", Self::Hsieh),
        ("murmur", Self::Murmur),
        ("jenkins", Self::Jenkins),
    ];

    /// The hash called `name`, or `None`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|&(_, kind)| kind)
    }

    /// The name that [`HashKind::from_name`] takes.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |&(name, _)| name)
    }

    /// How many hashes there are, from 0 up, if all come about equally often: a share of them is
    /// then a share of the keys. `None` for `crc16`, of which short keys reach only a part.
    pub fn space(self) -> Option<u64> {
        match self {
            Self::Crc16 => None,
            Self::Crc32 => Some(1 << 15),
            _ => Some(1 << 32),
        }
    }

    /// The 32 bits of `key` that the ring looks up.
    ///
    /// An empty key is 0 under every hash: nutcracker answers so before it asks the hash function.
    pub fn hash(self, key: &[u8]) -> u32 {
        if key.is_empty() {
            return 0;
        }
        match self {
            Self::OneAtATime => one_at_a_time(key),
            Self::Md5 => md5(key),
            Self::Crc16 => crc16(key),
            Self::Crc32 => (crc32(key) >> 16) & 0x7fff,
            Self::Crc32a => crc32(key),
            Self::Fnv1_64 => fnv1_64(key),
            Self::Fnv1a64 => fnv1a(key, 0x8422_2325, 0x1b3),
            Self::Fnv1_32 => fnv1_32(key),
            Self::Fnv1a32 => fnv1a(key, FNV_32_START, FNV_32_PRIME),
            Self::Hsieh => hsieh(key),
            Self::Murmur => murmur(key),
            Self::Jenkins => jenkins(key),
        }
    }
}

/// The part of a key between two marker bytes that alone is hashed, so that related keys share a
/// shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashTag([u8; 2]);

impl HashTag {
    /// Takes the opening and the closing marker, exactly two bytes (`"{}"`); else `None`.
    pub fn new(markers: &str) -> Option<Self> {
        markers.as_bytes().try_into().ok().map(Self)
    }

    /// What of `key` is hashed: the inside of the first opening marker and the first closing one
    /// after it, or the whole key if one of them is missing or nothing is between them.
    pub fn part<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        let [open, close] = self.0;
        let Some(start) = memchr::memchr(open, key) else {
            return key;
        };
        let inside = &key[start + 1..];
        match memchr::memchr(close, inside) {
            Some(end) if end > 0 => &inside[..end],
            _ => key,
        }
    }
}

const FNV_32_START: u32 = 2_166_136_261;
const FNV_32_PRIME: u32 = 16_777_619;

/// A byte as the C `char` of the original, widened to 32 bits.
#[expect(
    clippy::cast_sign_loss,
    reason = "the bit pattern is what the original adds and xors"
)]
fn sign_extended(byte: u8) -> u32 {
    i32::from(byte.cast_signed()) as u32
}

/// FNV-1a in 32 bits. `fnv1a_64` is this too: the original keeps its state in 32 bits, so only the
/// low halves of the 64-bit constants take part.
fn fnv1a(key: &[u8], start: u32, prime: u32) -> u32 {
    key.iter().fold(start, |hash, &byte| {
        (hash ^ sign_extended(byte)).wrapping_mul(prime)
    })
}

fn fnv1_32(key: &[u8]) -> u32 {
    key.iter().fold(FNV_32_START, |hash, &byte| {
        hash.wrapping_mul(FNV_32_PRIME) ^ sign_extended(byte)
    })
}

#[expect(
    clippy::cast_sign_loss,
    reason = "the bit pattern is what the original xors"
)]
fn fnv1_64(key: &[u8]) -> u32 {
    key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        hash.wrapping_mul(0x0100_0000_01b3) ^ i64::from(byte.cast_signed()) as u64
    }) as u32
}

fn one_at_a_time(key: &[u8]) -> u32 {
    let mut hash = 0_u32;
    for &byte in key {
        hash = hash.wrapping_add(sign_extended(byte));
        hash = hash.wrapping_add(hash << 10);
        hash ^= hash >> 6;
    }
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// The first four digest bytes, little-endian.
fn md5(key: &[u8]) -> u32 {
    md5_points(key)[0]
}

/// The sixteen digest bytes as four little-endian numbers: ketama's four points of one label.
pub(crate) fn md5_points(bytes: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    std::array::from_fn(|i| little_endian(&digest[4 * i..]))
}

/// CCITT 0x1021 from 0, in a 32-bit register that the original never masks: the high half keeps
/// growing.
fn crc16(key: &[u8]) -> u32 {
    key.iter().fold(0, |crc, &byte| {
        (crc << 8) ^ CRC16_TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

/// The standard CRC-32 (reflected 0xedb88320).
fn crc32(key: &[u8]) -> u32 {
    !key.iter().fold(!0, |crc, &byte| {
        (crc >> 8) ^ CRC32_TABLE[usize::from(crc as u8 ^ byte)]
    })
}

const CRC16_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u32) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[i] = crc & 0xffff;
        i += 1;
    }
    table
};

const CRC32_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 {
                crc >> 1
            } else {
                (crc >> 1) ^ 0xedb8_8320
            };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// `SuperFastHash`, started from 0 rather than from the length.
fn hsieh(key: &[u8]) -> u32 {
    let half = |pair: &[u8]| u32::from(u16::from_le_bytes([pair[0], pair[1]]));
    let (blocks, tail) = key.as_chunks::<4>();
    let mut hash = 0_u32;
    for block in blocks {
        hash = hash.wrapping_add(half(&block[..2]));
        hash = (hash << 16) ^ (half(&block[2..]) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *tail {
        [_, _, third] => {
            hash = hash.wrapping_add(half(tail));
            hash ^= hash << 16;
            hash ^= sign_extended(third) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [_, _] => {
            hash = hash.wrapping_add(half(tail));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [only] => {
            hash = hash.wrapping_add(u32::from(only));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

/// Murmur2, seeded with `0xdeadbeef * len`.
fn murmur(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let len = key.len() as u32;
    let mut hash = 0xdead_beef_u32.wrapping_mul(len) ^ len;
    let (blocks, tail) = key.as_chunks::<4>();
    for block in blocks {
        let mut word = u32::from_le_bytes(*block).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    if !tail.is_empty() {
        hash = (hash ^ little_endian(tail)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Bob Jenkins' lookup3 for little-endian machines with an initial value of 13; the result is `c`.
fn jenkins(key: &[u8]) -> u32 {
    let start = 0xdead_beef_u32
        .wrapping_add(key.len() as u32)
        .wrapping_add(13);
    let mut state = [start; 3];
    let mut rest = key;
    // The last block, whole or not, goes to the final mix, so a full one is mixed only if more
    // follows.
    while rest.len() > 12 {
        add_block(&mut state, &rest[..12]);
        jenkins_mix(&mut state);
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return state[2];
    }
    add_block(&mut state, rest);
    jenkins_final(state)
}

fn add_block(state: &mut [u32; 3], block: &[u8]) {
    for (word, bytes) in state.iter_mut().zip(block.chunks(4)) {
        *word = word.wrapping_add(little_endian(bytes));
    }
}

fn jenkins_mix([a, b, c]: &mut [u32; 3]) {
    let step = |x: &mut u32, y: &mut u32, z: &mut u32, turn: u32| {
        *x = x.wrapping_sub(*z) ^ z.rotate_left(turn);
        *z = z.wrapping_add(*y);
    };
    step(a, b, c, 4);
    step(b, c, a, 6);
    step(c, a, b, 8);
    step(a, b, c, 16);
    step(b, c, a, 19);
    step(c, a, b, 4);
}

fn jenkins_final([mut a, mut b, mut c]: [u32; 3]) -> u32 {
    let step = |x: &mut u32, y: u32, turn: u32| *x = (*x ^ y).wrapping_sub(y.rotate_left(turn));
    step(&mut c, b, 14);
    step(&mut a, c, 11);
    step(&mut b, a, 25);
    step(&mut c, b, 16);
    step(&mut a, c, 4);
    step(&mut b, a, 14);
    step(&mut c, b, 24);
    c
}

/// Up to four bytes as a little-endian number, missing ones 0.
fn little_endian(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    for (to, &from) in word.iter_mut().zip(bytes) {
        *to = from;
    }
    u32::from_le_bytes(word)
}
