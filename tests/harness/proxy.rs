//! A network that a test can break: it cuts, refuses or holds back what goes between two ends.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Stands between clients and a server, on a port of its own.
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
}

#[derive(Debug, Default)]
struct Connections {
    closed: bool,
    through: Vec<AbortHandle>,
}

impl Proxy {
    /// A proxy to the server at that URL: `http://host:port`, `amqp://user:password@host:port/vhost`.
    ///
    /// # Panics
    /// When the URL has no host and port.
    pub async fn to(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").expect("a URL with a scheme");
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, format!("/{path}")),
            None => (rest, String::new()),
        };
        let (login, address) = match authority.rsplit_once('@') {
            Some((login, address)) => (format!("{login}@"), address),
            None => (String::new(), authority),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port can be had");
        let port = listener.local_addr().expect("it is bound").port();
        let network =
            Arc::new(Network { connections: Mutex::default(), frozen: watch::Sender::new(false) });
        let listening = tokio::spawn(listen(listener, address.to_owned(), network.clone()));
        Self {
            url: format!("{scheme}://{login}127.0.0.1:{port}{path}"),
            network,
            listening: listening.abort_handle(),
        }
    }

    /// The server's URL by way of this proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Cuts every connection; the next ones go through.
    pub fn cut(&self) {
        self.network.connections().cut();
    }

    /// Cuts every connection and lets none through until it is opened again.
    pub fn close(&self) {
        let mut connections = self.network.connections();
        connections.closed = true;
        connections.cut();
    }

    /// Lets connections through again.
    pub fn open(&self) {
        self.network.connections().closed = false;
    }

    /// Holds back every byte, both ways, until [`thaw`](Self::thaw). Nobody is told: connections stay,
    /// and new ones are taken.
    pub fn freeze(&self) {
        self.network.frozen.send_replace(true);
    }

    /// Lets all that was held back go on, in its order.
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
    fn cut(&mut self) {
        for connection in self.through.drain(..) {
            connection.abort();
        }
    }
}

async fn listen(listener: TcpListener, address: String, network: Arc<Network>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let mut connections = network.connections();
        // What was accepted is closed again by dropping it.
        if connections.closed {
            continue;
        }
        connections.through.retain(|connection| !connection.is_finished());
        let passing = pass(client, address.clone(), network.frozen.subscribe());
        connections.through.push(tokio::spawn(passing).abort_handle());
    }
}

/// Passes on both ways until both ends have finished or one has broken.
async fn pass(client: TcpStream, server: String, frozen: watch::Receiver<bool>) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pass_on(from_client, to_server, frozen.clone()),
        pass_on(from_server, to_client, frozen),
    )?;
    Ok(())
}

async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
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

    /// A server that sends back what it gets.
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

    async fn says(stream: &mut TcpStream, word: u8) -> io::Result<u8> {
        stream.write_all(&[word]).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn a_url_keeps_all_but_its_address() {
        let proxy = Proxy::to("amqp://ada:secret@127.0.0.1:1/%2f").await;
        let url = proxy.url();
        assert!(url.starts_with("amqp://ada:secret@127.0.0.1:") && url.ends_with("/%2f"), "{url}");
    }

    #[tokio::test]
    async fn what_is_cut_ends_and_the_next_goes_through() {
        let proxy = Proxy::to(&echo().await).await;
        let mut first = connected(&proxy).await;
        assert_eq!(says(&mut first, 1).await.unwrap(), 1);
        proxy.cut();
        assert!(says(&mut first, 2).await.is_err());
        assert_eq!(says(&mut connected(&proxy).await, 3).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_is_closed_lets_nothing_through_until_it_is_opened() {
        let proxy = Proxy::to(&echo().await).await;
        let mut first = connected(&proxy).await;
        assert_eq!(says(&mut first, 1).await.unwrap(), 1);
        proxy.close();
        assert!(says(&mut first, 2).await.is_err());
        assert!(says(&mut connected(&proxy).await, 3).await.is_err());
        proxy.open();
        assert_eq!(says(&mut connected(&proxy).await, 4).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn what_is_frozen_comes_later_on_the_same_connection() {
        let proxy = Proxy::to(&echo().await).await;
        let mut first = connected(&proxy).await;
        assert_eq!(says(&mut first, 1).await.unwrap(), 1);
        proxy.freeze();
        first.write_all(&[2]).await.unwrap();
        assert!(timeout(Duration::from_millis(200), first.read_u8()).await.is_err());
        proxy.thaw();
        assert_eq!(first.read_u8().await.unwrap(), 2);
    }
}
