use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Stands between Belfry and the broker, and cuts what goes through it.
pub(super) struct Proxy {
    url: String,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

#[derive(Default)]
struct Shared {
    closed: AtomicBool,
    through: Mutex<Vec<AbortHandle>>,
}

impl Proxy {
    /// A proxy to the broker at that URL.
    pub(super) async fn to(url: &str) -> Self {
        let (front, rest) = url.split_once('@').expect("a URL with a user");
        let (address, vhost) = rest.split_once('/').expect("a URL with a virtual host");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let (address, in_task) = (address.to_owned(), shared.clone());
        let listening = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                if in_task.closed.load(Ordering::SeqCst) {
                    continue;
                }
                let address = address.clone();
                let connection = tokio::spawn(async move {
                    if let Ok(mut broker) = TcpStream::connect(address).await {
                        let _ = copy_bidirectional(&mut client, &mut broker).await;
                    }
                });
                in_task.through.lock().unwrap().push(connection.abort_handle());
            }
        });
        Self {
            url: format!("{front}@127.0.0.1:{port}/{vhost}"),
            shared,
            listening: listening.abort_handle(),
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Cuts every connection; the next ones go through.
    pub(super) fn cut(&self) {
        for connection in self.shared.through.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Cuts every connection and lets none through until it is opened again.
    pub(super) fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.cut();
    }

    pub(super) fn open(&self) {
        self.shared.closed.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}
