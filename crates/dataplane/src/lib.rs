//! The request path of the Shoal proxy: share-nothing workers between Redis clients and masters.
//!
//! ```text
//! error hash ← resp command ring ← snapshot ← lane route coalesce inflight ← client backend ← worker
//!                                                                   reactor ↗        worker ← plane
//! ```
//! A module uses what stands left of it. `client` and `backend` never see each other: the worker
//! brings requests from one to the other and replies back. `docs/architecture/life-of-a-request.md`
//! follows one request through these files.

mod backend;
mod buffer;
mod client;
mod coalesce;
pub mod command;
pub mod error;
pub mod hash;
mod inflight;
mod lane;
pub mod plane;
mod reactor;
pub mod resp;
pub mod ring;
mod route;
pub mod snapshot;
mod stats;
mod worker;
