//! Where a socket is: an IP address and a port, or a path in the file system.
//!
//! Names are resolved by the control plane; nothing here waits for a name server.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The place of a listener or of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    /// Reads `127.0.0.1:6379`, `[::1]:6379` or `/run/redis.sock`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        text.parse()
            .map(Self::Tcp)
            .map_err(|_| format!("\"{text}\" is neither IP:PORT nor an absolute path"))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(out),
            Self::Unix(path) => path.display().fmt(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn what_is_shown_can_be_read_again() {
        for text in ["127.0.0.1:6379", "[::1]:6379", "/run/redis.sock"] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn a_name_or_a_relative_path_is_refused() {
        for text in ["localhost:6379", "127.0.0.1", "redis.sock", ""] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
