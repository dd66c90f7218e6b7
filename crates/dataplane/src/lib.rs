//! The request path of the Shoal proxy.

pub mod command;
pub mod hash;
pub mod resp;
pub mod ring;
