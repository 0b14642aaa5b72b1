//! A listener that only accepts connections. An attack on it, instead of a server, shows the effect of the
//! attack on the machine alone.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{copy, sink};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::own_thread::OwnThread;

/// The time for which a connection is kept open. It equals the time for which Belfry waits for the head of a
/// request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts connections, discards their input, sends nothing and closes them. Dropping this stops the listener.
#[derive(Debug)]
pub(crate) struct BareListener {
    pub(crate) address: SocketAddr,
    _thread: OwnThread,
}

impl BareListener {
    /// Listens on a free port, on a thread of its own.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, listener) = (listener.local_addr()?, listener.into_std()?);
        let thread = OwnThread::start("bare listener".to_owned(), || async {
            if let Err(error) = accept(listener).await {
                eprintln!("bare listener failed: {error}");
            }
        })?;
        Ok(Self { address, _thread: thread })
    }
}

async fn accept(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let _ = timeout(CONNECTION_TIMEOUT, copy(&mut stream, &mut sink())).await;
        });
    }
}
