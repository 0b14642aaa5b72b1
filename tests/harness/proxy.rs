//! A TCP proxy that a test controls: it cuts, refuses or freezes connections.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A proxy to one server, on a port of its own.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    network: Arc<Network>,
    listening: AbortHandle,
}

#[derive(Debug)]
struct Network {
    connections: Mutex<Connections>,
    frozen: watch::Sender<bool>,
    /// How often bytes, or the end of a connection, were held back since the last freeze.
    held_back: AtomicUsize,
}

#[derive(Debug, Default)]
struct Connections {
    closed: bool,
    /// The number of refused connections since the last [`close`](Proxy::close).
    refused: usize,
    open: Vec<AbortHandle>,
}

impl Proxy {
    /// A proxy to the server at this URL: `http://host:port`, `amqp://user:password@host:port/vhost`.
    ///
    /// # Panics
    /// When the URL has no scheme.
    pub async fn to(url: &str) -> Self {
        let (scheme, after_scheme) = url.split_once("://").expect("a URL with a scheme");
        let (authority, path) = match after_scheme.split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (after_scheme, String::new()),
        };
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (format!("{login}@"), address),
            None => (String::new(), authority),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let network = Arc::new(Network {
            connections: Mutex::default(),
            frozen: watch::Sender::new(false),
            held_back: AtomicUsize::new(0),
        });
        let listening = tokio::spawn(listen(listener, address.to_owned(), network.clone()));
        Self {
            url: format!("{scheme}://{login}127.0.0.1:{port}{path}"),
            network,
            listening: listening.abort_handle(),
        }
    }

    /// The server's URL with this proxy's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        let connections = self.network.connections();
        connections.open.iter().filter(|connection| !connection.is_finished()).count()
    }

    /// Cuts all open connections and returns their number; new ones are accepted.
    pub fn cut(&self) -> usize {
        self.network.connections().cut()
    }

    /// Cuts all open connections, returns their number, and refuses new ones until [`open`](Self::open).
    pub fn close(&self) -> usize {
        let mut connections = self.network.connections();
        connections.closed = true;
        connections.refused = 0;
        connections.cut()
    }

    /// The number of connections that were refused since the last [`close`](Self::close).
    pub fn refused(&self) -> usize {
        self.network.connections().refused
    }

    /// Accepts connections again.
    pub fn open(&self) {
        self.network.connections().closed = false;
    }

    /// Holds back every byte in both directions until [`thaw`](Self::thaw). Neither end notices: connections
    /// stay open, and new ones are accepted.
    pub fn freeze(&self) {
        self.network.held_back.store(0, Ordering::SeqCst);
        self.network.frozen.send_replace(true);
    }

    /// How often bytes, or the end of a connection, were held back since the last freeze.
    pub fn held_back(&self) -> usize {
        self.network.held_back.load(Ordering::SeqCst)
    }

    /// Passes on everything that was held back, in order.
    pub fn thaw(&self) {
        self.network.frozen.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

impl Network {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn cut(&mut self) -> usize {
        let open = self.open.drain(..).filter(|connection| !connection.is_finished());
        open.inspect(AbortHandle::abort).count()
    }
}

async fn listen(listener: TcpListener, address: String, network: Arc<Network>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let mut connections = network.connections();
        if connections.closed {
            // `client` is dropped here, which closes the connection.
            connections.refused += 1;
            continue;
        }
        connections.open.retain(|connection| !connection.is_finished());
        let forwarding = forward(client, address.clone(), network.clone());
        connections.open.push(tokio::spawn(forwarding).abort_handle());
    }
}

/// Forwards in both directions until both ends have finished or one fails.
async fn forward(client: TcpStream, server: String, network: Arc<Network>) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        forward_one_way(from_client, to_server, &network),
        forward_one_way(from_server, to_client, &network),
    )?;
    Ok(())
}

async fn forward_one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    network: &Network,
) -> io::Result<()> {
    let mut frozen = network.frozen.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        if *frozen.borrow() {
            network.held_back.fetch_add(1, Ordering::SeqCst);
        }
        // An error means that the proxy is gone.
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return Ok(());
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// An echo server.
    async fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        url
    }

    async fn connected(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(proxy.url().trim_start_matches("http://")).await.unwrap()
    }

    /// Sends a byte and reads the byte that comes back.
    async fn echoed(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
        stream.write_all(&[byte]).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn url_of_the_proxy_differs_only_in_host_and_port() {
        let proxy = Proxy::to("amqp://ada:secret@127.0.0.1:1/%2f").await;
        let url = proxy.url();
        assert!(url.starts_with("amqp://ada:secret@127.0.0.1:") && url.ends_with("/%2f"), "{url}");
    }

    #[tokio::test]
    async fn cut_connection_fails_and_the_next_one_works() {
        let proxy = Proxy::to(&echo().await).await;
        let mut first = connected(&proxy).await;
        assert_eq!(echoed(&mut first, 1).await.unwrap(), 1);
        assert_eq!(proxy.cut(), 1);
        assert!(echoed(&mut first, 2).await.is_err());
        assert_eq!(echoed(&mut connected(&proxy).await, 3).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn closed_proxy_refuses_connections_until_it_is_opened() {
        let proxy = Proxy::to(&echo().await).await;
        let mut first = connected(&proxy).await;
        assert_eq!(echoed(&mut first, 1).await.unwrap(), 1);
        assert_eq!(proxy.close(), 1);
        assert!(echoed(&mut first, 2).await.is_err());
        assert!(echoed(&mut connected(&proxy).await, 3).await.is_err());
        assert_eq!(proxy.refused(), 1);
        proxy.open();
        assert_eq!(echoed(&mut connected(&proxy).await, 4).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn frozen_bytes_arrive_after_the_thaw_on_the_same_connection() {
        let proxy = Proxy::to(&echo().await).await;
        let mut first = connected(&proxy).await;
        assert_eq!(echoed(&mut first, 1).await.unwrap(), 1);
        proxy.freeze();
        first.write_all(&[2]).await.unwrap();
        assert!(timeout(Duration::from_millis(200), first.read_u8()).await.is_err());
        assert_eq!(proxy.held_back(), 1);
        proxy.thaw();
        assert_eq!(first.read_u8().await.unwrap(), 2);
    }
}
