//! As little of a server as there can be, to tell what is a server's doing from what is the machine's.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{copy, sink};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::own_thread::OwnThread;

/// How long it keeps a connection: as long as Belfry does one that does not finish its head.
const KEPT: Duration = Duration::from_secs(5);

/// Accepts connections, reads what they send, answers nothing and closes them. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct BareListener {
    pub(crate) address: SocketAddr,
    _thread: OwnThread,
}

impl BareListener {
    /// Listens at a free port, on a thread of its own.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, listener) = (listener.local_addr()?, listener.into_std()?);
        let thread = OwnThread::start("bare listener".to_owned(), || async {
            if let Err(error) = accept(listener).await {
                eprintln!("the bare listener ended early: {error}");
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
            let _ = timeout(KEPT, copy(&mut stream, &mut sink())).await;
        });
    }
}
