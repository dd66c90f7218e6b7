//! The class `Ring`, and the command table for the documentation and its tests.

use dataplane::command::{self, RouteKind};
use dataplane::hash::{HashKind, HashTag};
use dataplane::ring as core;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::convert::{ShardSpec, distribution, hash, hash_tag, pairs};

/// How many hashes 32 bits have.
const HASHES: u64 = 1 << 32;

/// A ring as the data plane builds it; `shoal.plane.Ring` documents the methods.
#[pyclass(frozen)]
pub(crate) struct Ring {
    built: core::Ring,
    names: Vec<String>,
    hash: HashKind,
    tag: Option<HashTag>,
}

#[pymethods]
impl Ring {
    #[new]
    #[pyo3(signature = (shards, hash_name, distribution_name, tag))]
    fn new(
        shards: Vec<ShardSpec>,
        hash_name: &str,
        distribution_name: &str,
        tag: Option<&str>,
    ) -> PyResult<Self> {
        let shards = pairs(shards);
        Ok(Self {
            built: core::Ring::build(distribution(distribution_name)?, &shards),
            names: shards.into_iter().map(|(name, _)| name).collect(),
            hash: hash(hash_name)?,
            tag: tag.map(hash_tag).transpose()?,
        })
    }

    /// (shard, hash, point or None, the part of the key that was hashed)
    fn locate(&self, key: &[u8]) -> (String, u32, Option<u32>, Vec<u8>) {
        let part = self.part(key);
        let hash = self.hash.hash(part);
        (
            self.names[self.shard(hash)].clone(),
            hash,
            self.built.point(hash),
            part.to_vec(),
        )
    }

    /// The shard of each key: one call for many, and one text for each shard.
    fn owners<'py>(&self, keys: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyString>>> {
        let name = |name: &String| PyString::new(keys.py(), name);
        let names: Vec<_> = self.names.iter().map(name).collect();
        let mut owners = Vec::with_capacity(keys.len().unwrap_or(0));
        for key in keys.try_iter()? {
            let key = key?;
            let hash = self.hash.hash(self.part(key.extract()?));
            owners.push(names[self.shard(hash)].clone());
        }
        Ok(owners)
    }

    /// (shard here, shard in `new`, share of all hashes), or `None` where it cannot be counted.
    fn moves<'a>(&'a self, new: &'a Self) -> Option<Vec<(&'a str, &'a str, f64)>> {
        let (old_hash, new_hash) = (self.looked_up(), new.looked_up());
        if old_hash.is_some() && new_hash.is_some() && old_hash != new_hash {
            return None;
        }
        let space = match old_hash.or(new_hash) {
            Some((hash, _)) => hash.space(),
            None => Some(HASHES),
        };
        let hashes = space.unwrap_or(HASHES);
        let named = |(old, to, count): (usize, usize, u64)| {
            #[expect(clippy::cast_precision_loss, reason = "2^32 is exact in an f64")]
            let share = count as f64 / hashes as f64;
            (self.names[old].as_str(), new.names[to].as_str(), share)
        };
        let counts = self.built.moves(&new.built, hashes)?;
        let moves: Vec<_> = counts.into_iter().map(named).collect();
        // Where no hash moves at all it does not matter how often each comes.
        let nothing_moves = moves.iter().all(|(old, to, _)| old == to);
        (space.is_some() || nothing_moves).then_some(moves)
    }

    fn shares(&self) -> Vec<(String, f64)> {
        self.names
            .iter()
            .cloned()
            .zip(self.built.shares(self.hash.space().unwrap_or(HASHES)))
            .collect()
    }
}

impl Ring {
    /// The part of a key that is hashed.
    fn part<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        self.tag.as_ref().map_or(key, |tag| tag.part(key))
    }

    fn shard(&self, hash: u32) -> usize {
        if self.names.len() == 1 {
            0
        } else {
            self.built.shard(hash)
        }
    }

    /// What decides over a key's hash; a ring of one shard looks at none.
    fn looked_up(&self) -> Option<(HashKind, Option<HashTag>)> {
        (self.names.len() > 1).then_some((self.hash, self.tag))
    }
}

/// A row of the command table: name, arity, keys, access, repeat, route, guarded.
type Row = (&'static str, i16, String, String, String, String, bool);

/// Every command, and behind each family its subcommands, called `command|subcommand`.
#[pyfunction]
pub(crate) fn command_table() -> Vec<Row> {
    command::rows()
        .map(|command| {
            (
                command.name,
                command.arity,
                format!("{:?}", command.keys),
                format!("{:?}", command.access),
                format!("{:?}", command.repeat),
                match command.route {
                    RouteKind::Family(_) => "Family".to_owned(),
                    route => format!("{route:?}"),
                },
                command.guarded,
            )
        })
        .collect()
}
