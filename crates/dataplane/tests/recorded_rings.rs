//! The ring against the real nutcracker: replays `tests/compat/ring_vectors.json`, which says how
//! it was recorded.

use std::path::Path;

use dataplane::hash::{HashKind, HashTag};
use dataplane::ring::{Distribution, Ring};
use serde_json::Value;

#[test]
fn every_key_goes_to_the_shard_that_nutcracker_sends_it_to() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/compat/ring_vectors.json");
    let text = std::fs::read_to_string(path).expect("the recorded vectors");
    let vectors: Value = serde_json::from_str(&text).expect("JSON");
    let keys: Vec<Vec<u8>> = list(&vectors["keys"])
        .iter()
        .map(|key| from_hex(string(key)))
        .collect();
    let mut compared = 0;
    for ring in list(&vectors["rings"]) {
        compared += replay(ring, &keys);
    }
    // A file that lost its rings must not pass.
    assert!(compared > 50_000, "only {compared} owners were recorded");
}

/// Compares every owner that was recorded for one ring; how many those were.
fn replay(recorded: &Value, keys: &[Vec<u8>]) -> usize {
    let name = string(&recorded["name"]);
    let shards: Vec<(String, u32)> = list(&recorded["shards"]).iter().map(shard).collect();
    let tag = recorded["hash_tag"].as_str().and_then(HashTag::new);
    let mut compared = 0;
    for (distribution, hashes) in map(&recorded["owners"]) {
        let kind = Distribution::from_name(distribution).expect("a distribution");
        let ring = Ring::build(kind, &shards);
        for (hash, owners) in map(hashes) {
            let kind = HashKind::from_name(hash).expect("a hash");
            let owners = string(owners);
            assert_eq!(owners.len(), keys.len(), "{name}: {distribution}, {hash}");
            for (key, owner) in keys.iter().zip(owners.bytes()) {
                let tagged = tag.map_or(key.as_slice(), |tag| tag.part(key));
                assert_eq!(
                    ring.shard(kind.hash(tagged)),
                    digit(owner),
                    "{name}: {distribution}, {hash}, key {:?}",
                    String::from_utf8_lossy(key)
                );
                compared += 1;
            }
        }
    }
    compared
}

fn shard(pair: &Value) -> (String, u32) {
    let weight = pair[1].as_u64().and_then(|n| u32::try_from(n).ok());
    (string(&pair[0]).to_owned(), weight.expect("a weight"))
}

/// A digit in base 62: 0-9, a-z, A-Z.
fn digit(byte: u8) -> usize {
    usize::from(match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'z' => byte - b'a' + 10,
        _ => byte - b'A' + 36,
    })
}

fn from_hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn map(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().expect("an object").iter()
}

fn string(value: &Value) -> &str {
    value.as_str().expect("a string")
}
