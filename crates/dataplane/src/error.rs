//! What can go wrong when a plane is built, started or told of a new snapshot.
//!
//! Errors of single connections never come here: they are counted, shown in the stats, and answered
//! to the client they concern.

use std::io;

/// A plane that cannot be built or cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// A name or number in the configuration that the data plane does not know.
    #[error("{0}")]
    Config(String),
    /// The listen address is taken, also when the other listener uses `SO_REUSEPORT`.
    #[error("{listen} is in use")]
    PortInUse { listen: String },
    /// Any other failure of a system call, with what was being done.
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    /// A snapshot whose epoch does not grow, or that does not fit the pools.
    #[error("snapshot refused: {0}")]
    Snapshot(String),
}
