//! `shoal._native`: the data plane as Python sees it. Glue only; `shoal.plane` is the one caller.

mod convert;
mod plane;
mod ring;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<plane::Plane>()?;
    module.add_class::<ring::Ring>()?;
    module.add_function(wrap_pyfunction!(ring::command_table, module)?)?;
    module.add("NO_LEASE_NEEDED", dataplane::snapshot::NO_LEASE_NEEDED)
}
