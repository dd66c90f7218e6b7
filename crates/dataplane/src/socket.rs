//! Opens sockets: listeners for clients, connections to servers. The one place that knows their options.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::endpoint::Endpoint;
use crate::error::PlaneError;
use crate::pool::PoolConfig;

/// A server that has vanished without a word is noticed after about twice this.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Where an accepted connection comes from and where it has arrived, as `IP:PORT`; `?:0` if the kernel does not know
/// any more.
pub(crate) fn both_ends(socket: &OwnedFd) -> [String; 2] {
    let socket = SockRef::from(socket);
    [socket.peer_addr(), socket.local_addr()].map(|end| {
        let address = end.ok().and_then(|it| it.as_socket());
        address.map_or_else(|| "?:0".to_owned(), |it| it.to_string())
    })
}

/// The listeners of one pool, one for each worker. Nothing is left bound if one of them fails.
pub(crate) fn listen(config: &PoolConfig, workers: usize) -> Result<Vec<OwnedFd>, PlaneError> {
    match config.endpoint()? {
        endpoint @ Endpoint::Tcp(_) => {
            if !config.share_port {
                // SO_REUSEPORT would share the port with whoever has it: a plain bind finds that out.
                drop(bind(&endpoint, config, false)?);
            }
            (0..workers)
                .map(|_| Ok(bind(&endpoint, config, true)?.into()))
                .collect()
        }
        endpoint @ Endpoint::Unix(_) => {
            // A path has one listener: the workers share it.
            let socket = bind(&endpoint, config, false)?;
            (0..workers)
                .map(|_| Ok(socket.try_clone()?.into()))
                .collect::<io::Result<_>>()
                .map_err(|source| failed(format!("listen on {endpoint}"), source))
        }
    }
}

fn bind(endpoint: &Endpoint, config: &PoolConfig, shared: bool) -> Result<Socket, PlaneError> {
    let opened = match endpoint {
        Endpoint::Tcp(address) => tcp_listener(*address, config, shared),
        Endpoint::Unix(path) => unix_listener(path, config),
    };
    opened.map_err(|source| match source.kind() {
        ErrorKind::AddrInUse => PlaneError::PortInUse {
            listen: endpoint.to_string(),
        },
        _ => failed(format!("listen on {endpoint}"), source),
    })
}

fn tcp_listener(
    address: std::net::SocketAddr,
    config: &PoolConfig,
    shared: bool,
) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // The sockets that are accepted have these from the listener.
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(config.keepalive)?;
    socket.bind(&address.into())?;
    socket.listen(config.backlog)?;
    Ok(socket)
}

fn unix_listener(path: &Path, config: &PoolConfig) -> io::Result<Socket> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    set_mode(path, config)?;
    socket.listen(config.backlog)?;
    Ok(socket)
}

fn set_mode(path: &Path, config: &PoolConfig) -> io::Result<()> {
    match config.socket_mode {
        Some(mode) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// Removes a socket that nobody listens on any more; one that somebody does is in use, and a file of
/// another kind is nothing of ours.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Applies the options of a pool that can change while it listens.
pub(crate) fn retune(listener: &OwnedFd, config: &PoolConfig) -> io::Result<()> {
    let socket = SockRef::from(listener);
    if config.listen.starts_with('/') {
        set_mode(Path::new(&config.listen), config)?;
    } else {
        socket.set_keepalive(config.keepalive)?;
    }
    socket.listen(config.backlog)
}

/// Begins to connect without waiting.
pub(crate) fn connect(endpoint: &Endpoint) -> io::Result<OwnedFd> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let (socket, address) = match endpoint {
        Endpoint::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), kind, Some(Protocol::TCP))?;
            socket.set_tcp_nodelay(true)?;
            let keepalive = TcpKeepalive::new()
                .with_time(KEEPALIVE)
                .with_interval(KEEPALIVE / 4)
                .with_retries(4);
            socket.set_tcp_keepalive(&keepalive)?;
            (socket, SockAddr::from(*address))
        }
        Endpoint::Unix(path) => (
            Socket::new(Domain::UNIX, kind, None)?,
            SockAddr::unix(path)?,
        ),
    };
    match socket.connect(&address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

pub(crate) fn failed(doing: String, source: io::Error) -> PlaneError {
    PlaneError::Io { doing, source }
}
