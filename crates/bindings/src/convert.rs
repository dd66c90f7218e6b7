//! Python's dataclasses and names into the data plane's types, and its errors into Python's.

use std::time::Duration;

use dataplane::command::ModuleCommand;
use dataplane::eject::EjectRule;
use dataplane::endpoint::Endpoint;
use dataplane::error::PlaneError;
use dataplane::hash::{HashKind, HashTag};
use dataplane::pool::{Dialect, PoolConfig, Servers};
use dataplane::ring::Distribution;
use dataplane::snapshot::{ReadLeaseSpec, RouteSpec};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

/// `shoal.plane.ShardSpec`.
#[derive(FromPyObject)]
pub(crate) struct ShardSpec {
    name: String,
    weight: u32,
}

/// `shoal.plane.Ejection`.
#[derive(FromPyObject)]
pub(crate) struct Ejection {
    failures: u32,
    retry_ms: u64,
}

/// `shoal.plane.Fixed`.
#[derive(FromPyObject)]
pub(crate) struct Fixed {
    preconnect: bool,
    ejection: Option<Ejection>,
}

/// `shoal.plane.ModuleCommand`.
#[derive(FromPyObject)]
pub(crate) struct Module {
    name: String,
    first_key: i16,
    last_key: i16,
    key_step: i16,
    writes: bool,
}

impl From<Module> for ModuleCommand {
    fn from(module: Module) -> Self {
        Self {
            name: module.name,
            first_key: module.first_key,
            last_key: module.last_key,
            key_step: module.key_step,
            writes: module.writes,
        }
    }
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
    fixed: Option<Fixed>,
    twemproxy_words: bool,
    password: Option<String>,
    backend_password: Option<String>,
    database: u16,
    connections: u16,
    hold_timeout_ms: u64,
    hold_bytes: usize,
    timeout_ms: u64,
    client_connections: usize,
    max_inflight: usize,
    max_lag_ms: Option<u64>,
    allow: Vec<String>,
    deny: Vec<String>,
    modules: Vec<Module>,
    backlog: i32,
    share_port: bool,
    keepalive: bool,
    socket_mode: Option<u32>,
}

impl PoolSpec {
    pub(crate) fn into_config(self) -> PyResult<PoolConfig> {
        Ok(PoolConfig {
            shards: pairs(self.shards),
            hash: hash(&self.hash)?,
            distribution: distribution(&self.distribution)?,
            hash_tag: self.hash_tag.as_deref().map(hash_tag).transpose()?,
            servers: self.fixed.map_or(Servers::Followed, servers),
            dialect: if self.twemproxy_words {
                Dialect::Twemproxy
            } else {
                Dialect::Redis
            },
            password: self.password,
            backend_password: self.backend_password,
            database: self.database,
            connections: self.connections,
            hold_timeout: Duration::from_millis(self.hold_timeout_ms),
            hold_bytes: self.hold_bytes,
            timeout: Duration::from_millis(self.timeout_ms),
            client_connections: self.client_connections,
            max_inflight: self.max_inflight,
            max_lag: self.max_lag_ms.map(Duration::from_millis),
            allow: self.allow,
            deny: self.deny,
            modules: self.modules.into_iter().map(Into::into).collect(),
            backlog: self.backlog,
            share_port: self.share_port,
            keepalive: self.keepalive,
            socket_mode: self.socket_mode,
            ..PoolConfig::new(&self.name, &self.listen, Vec::new())
        })
    }
}

fn servers(fixed: Fixed) -> Servers {
    Servers::Fixed {
        preconnect: fixed.preconnect,
        eject: fixed.ejection.map(|rule| EjectRule {
            failures: rule.failures,
            retry: Duration::from_millis(rule.retry_ms),
        }),
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

/// An endpoint and the end of its lease.
pub(crate) type RouteTuple = (Option<String>, u64);

pub(crate) fn routes(tuples: Vec<RouteTuple>) -> PyResult<Vec<RouteSpec>> {
    let spec = |(endpoint, lease_until): RouteTuple| {
        let endpoint = endpoint.map(|text| text.parse()).transpose();
        Ok(RouteSpec {
            endpoint: endpoint.map_err(PyValueError::new_err)?,
            lease_until,
        })
    };
    tuples.into_iter().map(spec).collect()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is mapped over what Python gave"
)]
pub(crate) fn endpoint(text: String) -> PyResult<Endpoint> {
    text.parse().map_err(PyValueError::new_err)
}

/// A replica, when it was asked, and until when it may be read from.
pub(crate) type ReadLeaseTuple = (String, u64, u64);

pub(crate) fn read_leases(tuples: Vec<ReadLeaseTuple>) -> PyResult<Vec<ReadLeaseSpec>> {
    let spec = |(replica, sampled, until): ReadLeaseTuple| {
        Ok(ReadLeaseSpec {
            replica: endpoint(replica)?,
            sampled,
            until,
        })
    };
    tuples.into_iter().map(spec).collect()
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
