//! Where connections come in: a TCP address or a Unix socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tracing::warn;

use super::connection::Socket;

/// How accepted TCP connections are set up.
#[derive(Debug, Clone, Copy)]
pub struct TcpSettings {
    /// How long sent bytes may stay unacknowledged until the kernel gives the connection up
    /// (`TCP_USER_TIMEOUT`). A peer that keeps its connection alive and stops reading would hold
    /// its buffers for ever otherwise: nothing above TCP gets to notice while a write is stuck.
    pub user_timeout: Duration,
    /// The kernel's send buffer, in bytes (`SO_SNDBUF`; Linux doubles it). Left alone it grows to
    /// megabytes for a peer that does not read.
    pub send_buffer: usize,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self { user_timeout: Duration::from_secs(30), send_buffer: 128 * 1024 }
    }
}

/// Where to listen: `127.0.0.1:8080`, `[::]:8080` or `unix:/run/belfry.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// An address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A text is not a [`ListenAddress`].
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
    /// Whether only this machine can reach it.
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
    // The file goes when nobody listens on it any more.
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Listens at that address.
    ///
    /// A Unix socket can be used by its owner and its group (mode 0660). A file that is left of an
    /// earlier one is replaced; one that somebody listens on, or that is no socket, is not.
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

    /// Where it listens.
    pub fn address(&self) -> io::Result<ListenAddress> {
        Ok(match &self.bound {
            Bound::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?),
            Bound::Unix(_, file) => ListenAddress::Unix(file.path.clone()),
        })
    }

    /// The next connection and where it came from. It waits for ever where none comes.
    pub(super) async fn accept(&self) -> (Socket, SocketAddr) {
        /// A peer that was quicker is nothing; what else fails is mostly a lack of descriptors, which
        /// trying again at once does not cure.
        const PAUSE: Duration = Duration::from_secs(1);
        loop {
            match self.try_accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    warn!(%error, "no connection can be accepted for now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<(Socket, SocketAddr)> {
        const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        match &self.bound {
            Bound::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                if let Err(error) = self.set_up(&stream) {
                    warn!(%error, %address, "socket options not set");
                }
                Ok((Socket::Tcp(stream), address))
            }
            Bound::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                SockRef::from(&stream).set_send_buffer_size(self.settings.send_buffer)?;
                Ok((Socket::Unix(stream), LOCAL))
            }
        }
    }

    fn set_up(&self, stream: &TcpStream) -> io::Result<()> {
        // A push is one small write that somebody waits for.
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_send_buffer_size(self.settings.send_buffer)?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(self.settings.user_timeout))?;
        Ok(())
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// The file of a Unix socket; removed when it is dropped, unless it is another's by then.
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
        let is_ours = self
            .path
            .symlink_metadata()
            .is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode));
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "socket file not removed");
        }
    }
}

fn bind_unix(path: PathBuf) -> io::Result<(UnixListener, SocketFile)> {
    const BACKLOG: i32 = 1_024;
    remove_stale(&path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&path)?)?;
    let file = SocketFile::at(path)?;
    // Before it listens nobody can connect, whatever rights the file was made with.
    std::fs::set_permissions(&file.path, PermissionsExt::from_mode(0o660))?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    let file = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        // It answers, or it cannot be told whether it would.
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
    fn an_address_is_for_tcp_or_a_unix_socket() {
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
    async fn a_socket_file_is_for_its_group_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("belfry.sock");
        let listener = bind(&path).await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(bind(&path).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists(), "who is refused leaves it alone");
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_replaced_and_another_file_is_not() {
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
    async fn a_successors_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("belfry.sock");
        let first = bind(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
    }
}
