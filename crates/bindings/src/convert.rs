//! Python's dataclasses and names into the data plane's types, and its errors into Python's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dataplane::error::PlaneError;
use dataplane::hash::{HashKind, HashTag};
use dataplane::plane::RouteSpec;
use dataplane::ring::Distribution;
use dataplane::snapshot::PoolConfig;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

/// `shoal.plane.ShardSpec`.
#[derive(FromPyObject)]
pub(crate) struct ShardSpec {
    name: String,
    weight: u32,
}

/// `shoal.plane.PoolSpec`.
#[derive(FromPyObject)]
pub(crate) struct PoolSpec {
    name: String,
    listen: String,
    shards: Vec<ShardSpec>,
    hash: String,
    distribution: String,
    hash_tag: Option<String>,
    password: Option<String>,
    backend_password: Option<String>,
    hold_timeout_ms: u64,
    hold_bytes: usize,
    timeout_ms: u64,
    client_connections: usize,
    max_inflight: usize,
}

impl PoolSpec {
    pub(crate) fn into_config(self) -> PyResult<PoolConfig> {
        Ok(PoolConfig {
            name: self.name,
            listen: self.listen,
            shards: pairs(self.shards),
            hash: hash(&self.hash)?,
            distribution: distribution(&self.distribution)?,
            hash_tag: self.hash_tag.as_deref().map(hash_tag).transpose()?,
            password: self.password,
            backend_password: self.backend_password,
            hold_timeout: Duration::from_millis(self.hold_timeout_ms),
            hold_bytes: self.hold_bytes,
            timeout: Duration::from_millis(self.timeout_ms),
            client_connections: self.client_connections,
            max_inflight: self.max_inflight,
        })
    }
}

pub(crate) fn pairs(shards: Vec<ShardSpec>) -> Vec<(String, u32)> {
    shards
        .into_iter()
        .map(|shard| (shard.name, shard.weight))
        .collect()
}

pub(crate) fn hash(name: &str) -> PyResult<HashKind> {
    HashKind::from_name(name)
        .ok_or_else(|| PyValueError::new_err(format!("hash \"{name}\" is not known")))
}

pub(crate) fn distribution(name: &str) -> PyResult<Distribution> {
    Distribution::from_name(name)
        .ok_or_else(|| PyValueError::new_err(format!("distribution \"{name}\" is not known")))
}

pub(crate) fn hash_tag(markers: &str) -> PyResult<HashTag> {
    HashTag::new(markers).ok_or_else(|| {
        PyValueError::new_err(format!("hash tag \"{markers}\" is not two characters"))
    })
}

/// An endpoint as (IP, port) and the end of its lease.
pub(crate) type RouteTuple = (Option<(IpAddr, u16)>, u64);

pub(crate) fn route((endpoint, lease_until): RouteTuple) -> RouteSpec {
    RouteSpec {
        endpoint: endpoint.map(SocketAddr::from),
        lease_until,
    }
}

/// A port in use is `OSError(EADDRINUSE)`, a failed system call its own `OSError`, the rest `ValueError`.
pub(crate) fn python_error(error: PlaneError) -> PyErr {
    match error {
        PlaneError::PortInUse { listen } => {
            PyOSError::new_err((libc_eaddrinuse(), format!("{listen} is in use")))
        }
        PlaneError::Io { doing, source } => {
            PyOSError::new_err((source.raw_os_error(), format!("{doing}: {source}")))
        }
        error @ (PlaneError::Config(_) | PlaneError::Snapshot(_)) => {
            PyValueError::new_err(error.to_string())
        }
    }
}

/// Linux's number for an address in use.
const fn libc_eaddrinuse() -> i32 {
    98
}
