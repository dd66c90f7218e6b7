//! The request path of the Shoal proxy: share-nothing workers between Redis clients and masters.
//!
//! ```text
//! error endpoint hash ← resp command ring lane cursor ← pool eject readers ← snapshot ← route coalesce inflight
//!                                        route coalesce inflight reactor ← recent ← client backend ← worker
//!                                                                              worker socket ← plane
//! ```
//! A module uses what stands left of it. `client` and `backend` never see each other: the worker
//! brings requests from one to the other and replies back. `docs/architecture/life-of-a-request.md`
//! follows one request through these files.

mod backend;
mod blocking;
mod buffer;
mod client;
mod coalesce;
pub mod command;
mod cursor;
pub mod eject;
pub mod endpoint;
pub mod error;
pub mod hash;
mod inflight;
mod lane;
pub mod plane;
pub mod pool;
#[cfg(any(test, fuzzing))]
pub mod properties;
mod push;
mod reactor;
mod readers;
mod recent;
pub mod resp;
pub mod ring;
mod route;
mod scripts;
pub mod snapshot;
mod socket;
mod stats;
mod subscriptions;
mod tracking;
mod transaction;
mod worker;
mod writes;
