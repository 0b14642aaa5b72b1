//! As little of a server as there can be, to tell what is a server's doing from what is the machine's.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{copy, sink};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long it keeps a connection: as long as Belfry does one that does not finish its head.
const KEPT: Duration = Duration::from_secs(5);

/// Accepts connections, reads what they send, answers nothing and closes them. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct BareListener {
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl BareListener {
    /// Listens at a free port, on a thread of its own.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, listener) = (listener.local_addr()?, listener.into_std()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let thread = thread::Builder::new().name("bare listener".to_owned()).spawn(move || {
            let accepting = async { accept(TcpListener::from_std(listener)?).await };
            let ended = runtime.block_on(ended.run_until_cancelled(accepting));
            runtime.shutdown_background();
            ended.unwrap_or(Ok(()))
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

impl Drop for BareListener {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the bare listener ended early: {error}");
        }
    }
}

async fn accept(listener: TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let _ = timeout(KEPT, copy(&mut stream, &mut sink())).await;
        });
    }
}
