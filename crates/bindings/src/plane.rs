//! The class `Plane`.

use std::time::Duration;

use dataplane::plane::{self as core, PoolStats};
use dataplane::pool::PoolConfig;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::convert::{
    PoolSpec, ReadLeaseTuple, RouteTuple, endpoint, python_error, read_leases, routes,
};

/// A running data plane; `shoal.plane.Plane` documents the methods.
#[pyclass(frozen)]
pub(crate) struct Plane(core::Plane);

#[pymethods]
impl Plane {
    #[new]
    fn new(pools: Vec<PoolSpec>, workers: usize) -> PyResult<Self> {
        core::Plane::new(configs(pools)?, workers)
            .map(Self)
            .map_err(python_error)
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.0.start()).map_err(python_error)
    }

    fn apply(&self, epoch: u64, specs: Vec<RouteTuple>) -> PyResult<()> {
        self.0.apply(epoch, &routes(specs)?).map_err(python_error)
    }

    fn reload(
        &self,
        py: Python<'_>,
        pools: Vec<PoolSpec>,
        epoch: u64,
        specs: Vec<RouteTuple>,
    ) -> PyResult<()> {
        let (configs, routes) = (configs(pools)?, routes(specs)?);
        py.detach(|| self.0.reload(configs, epoch, &routes))
            .map_err(python_error)
    }

    fn acked_epoch(&self) -> u64 {
        self.0.acked_epoch()
    }

    fn renew(&self, pool: &str, shard: &str, lease_until_ns: u64) -> PyResult<()> {
        let id = self.id(pool, shard)?;
        self.0.renew(id, lease_until_ns).map_err(python_error)
    }

    fn read_from(
        &self,
        epoch: u64,
        pool: &str,
        shard: &str,
        replicas: Vec<String>,
    ) -> PyResult<()> {
        let replicas: PyResult<Vec<_>> = replicas.into_iter().map(endpoint).collect();
        let id = self.id(pool, shard)?;
        self.0
            .read_from(epoch, id, &replicas?)
            .map_err(python_error)
    }

    fn renew_reads(
        &self,
        pool: &str,
        shard: &str,
        with_master: bool,
        leases: Vec<ReadLeaseTuple>,
    ) -> PyResult<()> {
        let id = self.id(pool, shard)?;
        self.0.renew_reads(id, with_master, &read_leases(leases)?);
        Ok(())
    }

    fn worker_ages_ms(&self) -> Vec<f64> {
        let ages = self.0.worker_ages();
        ages.iter().map(|age| age.as_secs_f64() * 1e3).collect()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let pools = PyDict::new(py);
        for pool in self.0.stats() {
            pools.set_item(&pool.name, pool_stats(py, &pool, self.0.workers())?)?;
        }
        let stats = PyDict::new(py);
        stats.set_item("workers", self.0.workers())?;
        stats.set_item("pools", pools)?;
        Ok(stats)
    }

    fn stop(&self, py: Python<'_>, drain_ms: u64) -> bool {
        py.detach(|| self.0.stop(Duration::from_millis(drain_ms)))
    }
}

impl Plane {
    fn id(&self, pool: &str, shard: &str) -> PyResult<usize> {
        let id = self.0.shard_id(pool, shard);
        id.ok_or_else(|| PyKeyError::new_err(format!("{pool}/{shard}")))
    }
}

fn configs(pools: Vec<PoolSpec>) -> PyResult<Vec<PoolConfig>> {
    pools.into_iter().map(PoolSpec::into_config).collect()
}

fn pool_stats<'py>(
    py: Python<'py>,
    pool: &PoolStats,
    workers: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let entry = PyDict::new(py);
    for (name, value) in pool.totals.named() {
        entry.set_item(name, value)?;
    }
    entry.set_item("ejections", pool.ejections)?;
    let shards = PyDict::new(py);
    for shard in &pool.shards {
        let fields = PyDict::new(py);
        for (name, value) in shard.totals.named() {
            fields.set_item(name, value)?;
        }
        let all = workers as u64;
        let serving = shard.totals.serving == all;
        fields.set_item("connected", shard.totals.connected == all)?;
        fields.set_item("serving", serving)?;
        fields.set_item("state", if serving { "serving" } else { "holding" })?;
        let endpoint = shard.endpoint.as_ref().map(ToString::to_string);
        fields.set_item("endpoint", endpoint)?;
        fields.set_item("fixed", shard.fixed)?;
        fields.set_item("ejected_at", shard.ejected_at)?;
        fields.set_item("last_error", &shard.last_error)?;
        shards.set_item(&shard.name, fields)?;
    }
    entry.set_item("shards", shards)?;
    Ok(entry)
}
