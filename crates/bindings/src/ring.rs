//! The class `Ring`, and the command table for the documentation and its tests.

use dataplane::command::COMMANDS;
use dataplane::hash::{HashKind, HashTag};
use dataplane::ring as core;
use pyo3::prelude::*;

use crate::convert::{ShardSpec, distribution, hash, hash_tag, pairs};

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
        let part = self.tag.as_ref().map_or(key, |tag| tag.part(key));
        let hash = self.hash.hash(part);
        let shard = if self.names.len() == 1 {
            0
        } else {
            self.built.shard(hash)
        };
        (
            self.names[shard].clone(),
            hash,
            self.built.point(hash),
            part.to_vec(),
        )
    }

    fn shares(&self) -> Vec<(String, f64)> {
        self.names
            .iter()
            .cloned()
            .zip(self.built.shares())
            .collect()
    }
}

/// Every command as (name, arity, keys, access, repeat, route).
#[pyfunction]
pub(crate) fn command_table() -> Vec<(&'static str, i16, String, String, String, String)> {
    COMMANDS
        .iter()
        .map(|command| {
            (
                command.name,
                command.arity,
                format!("{:?}", command.keys),
                format!("{:?}", command.access),
                format!("{:?}", command.repeat),
                format!("{:?}", command.route),
            )
        })
        .collect()
}
