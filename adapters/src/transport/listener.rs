//! Accepts connections on a TCP address or a Unix socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_util::either::Either;
use tracing::warn;

use super::stream::AcceptedSocket;

/// Socket options of accepted connections.
#[derive(Debug, Clone, Copy)]
pub struct TcpSettings {
    /// How long sent bytes may stay unacknowledged before the kernel closes the connection
    /// (`TCP_USER_TIMEOUT`). Without it, a peer that keeps its connection alive but does not read would occupy
    /// its buffers forever: nothing above TCP notices while a write is stuck.
    pub user_timeout: Duration,
    /// The kernel's send buffer, in bytes (`SO_SNDBUF`; Linux doubles it). By default it grows to
    /// megabytes for a peer that does not read.
    pub send_buffer: usize,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self { user_timeout: Duration::from_secs(30), send_buffer: 128 * 1024 }
    }
}

/// An address to listen on: `127.0.0.1:8080`, `[::]:8080` or `unix:/run/belfry.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port; port 0 selects a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// The text is not a [`ListenAddress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an address with a port such as 127.0.0.1:8080, or unix:/path/of/a.sock")]
pub struct InvalidListenAddress;

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(raw: &str) -> Result<Self, InvalidListenAddress> {
        match raw.strip_prefix("unix:") {
            Some("") => Err(InvalidListenAddress),
            Some(path) => Ok(Self::Unix(path.into())),
            None => raw.parse().map(Self::Tcp).map_err(|_| InvalidListenAddress),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl ListenAddress {
    /// Whether only processes on this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// Accepts connections for a [`Server`](super::Server).
#[derive(Debug)]
pub struct Listener {
    bound: Bound,
    settings: TcpSettings,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    // The file is removed when the listener is dropped.
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Listens on that address.
    ///
    /// The owner and the group of a Unix socket's file can connect (mode 0660). A stale socket file is replaced. A
    /// socket with a listener, or a file that is not a socket, is an error.
    pub async fn bind(
        address: impl Into<ListenAddress>,
        settings: TcpSettings,
    ) -> io::Result<Self> {
        let bound = match address.into() {
            ListenAddress::Tcp(address) => Bound::Tcp(TcpListener::bind(address).await?),
            ListenAddress::Unix(path) => {
                let (listener, file) = bind_unix(path)?;
                Bound::Unix(listener, file)
            }
        };
        Ok(Self { bound, settings })
    }

    /// The address that the listener is bound to.
    pub fn address(&self) -> io::Result<ListenAddress> {
        Ok(match &self.bound {
            Bound::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?),
            Bound::Unix(_, file) => ListenAddress::Unix(file.path.clone()),
        })
    }

    /// The next connection and the address that it came from.
    pub(super) async fn accept(&self) -> (AcceptedSocket, SocketAddr) {
        /// Most errors are a lack of file descriptors, for which an immediate retry does not help.
        const RETRY_IN: Duration = Duration::from_secs(1);
        loop {
            match self.try_accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_peer_error(&error) => {}
                Err(error) => {
                    warn!(%error, retry_in = ?RETRY_IN, "cannot accept connections; retrying");
                    tokio::time::sleep(RETRY_IN).await;
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<(AcceptedSocket, SocketAddr)> {
        /// The address of peers on a Unix socket, which have none; see [`Peer`](super::Peer).
        const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        match &self.bound {
            Bound::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                if let Err(error) = self.set_options(&stream) {
                    warn!(%error, %address, "cannot set socket options");
                }
                Ok((Either::Left(stream), address))
            }
            Bound::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                SockRef::from(&stream).set_send_buffer_size(self.settings.send_buffer)?;
                Ok((Either::Right(stream), LOCAL))
            }
        }
    }

    fn set_options(&self, stream: &TcpStream) -> io::Result<()> {
        // A push is one small write, which Nagle's algorithm would delay.
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_send_buffer_size(self.settings.send_buffer)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.settings.user_timeout))?;
        Ok(())
    }
}

/// Whether the peer closed the connection before it was accepted.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The file of a Unix socket. Dropping this removes the file, unless another process has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: PathBuf) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino(), path })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = self
            .path
            .symlink_metadata()
            .is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode));
        if is_own && let Err(error) = std::fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "cannot remove socket file");
        }
    }
}

fn bind_unix(path: PathBuf) -> io::Result<(UnixListener, SocketFile)> {
    const BACKLOG: i32 = 1_024;
    remove_stale(&path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    let file = SocketFile::at(path)?;
    // The mode is set before `listen`, because a client can connect only after that.
    std::fs::set_permissions(&file.path, PermissionsExt::from_mode(0o660))?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

/// Removes a socket file that has no listener.
fn remove_stale(path: &Path) -> io::Result<()> {
    let file = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is not a socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // The socket has a listener, or the attempt failed for another reason.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bind(path: &Path) -> io::Result<Listener> {
        Listener::bind(ListenAddress::Unix(path.to_owned()), TcpSettings::default()).await
    }

    #[test]
    fn address_is_parsed_as_tcp_or_unix_socket() {
        for raw in ["127.0.0.1:8080", "[::]:0", "unix:/run/belfry.sock", "unix:belfry.sock"] {
            assert_eq!(raw.parse::<ListenAddress>().unwrap().to_string(), raw);
        }
        for raw in ["", "unix:", "localhost:8080", "127.0.0.1", "/run/belfry.sock"] {
            assert_eq!(raw.parse::<ListenAddress>(), Err(InvalidListenAddress), "{raw}");
        }
    }

    #[test]
    fn loopback_and_unix_sockets_are_local() {
        let is_local = |raw: &str| raw.parse::<ListenAddress>().unwrap().is_local();
        assert!(is_local("127.0.0.1:1") && is_local("[::1]:1") && is_local("unix:/x"));
        assert!(!is_local("0.0.0.0:1") && !is_local("[::]:1") && !is_local("10.0.0.1:1"));
    }

    #[tokio::test]
    async fn socket_file_is_for_its_group_and_removed_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("belfry.sock");
        let listener = bind(&path).await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(bind(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists(), "a failed bind must not remove the file");
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn stale_socket_file_is_replaced_and_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (stale, file) = (folder.path().join("stale.sock"), folder.path().join("file"));
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        bind(&stale).await.unwrap();

        std::fs::write(&file, "precious").unwrap();
        assert_eq!(bind(&file).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }

    #[tokio::test]
    async fn socket_file_of_a_later_listener_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("belfry.sock");
        let first = bind(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
    }
}
