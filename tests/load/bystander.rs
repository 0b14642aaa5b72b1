//! A well-behaved service during an attack: it posts notifications at a moderate rate and measures their latency.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::clock;
use crate::own_thread::OwnThread;
use crate::rest::Http;
use crate::tally::{Latency, no_latency};

/// The number of connections, each with one request at a time.
const CALLERS: u32 = 10;

/// Interval between the requests of a connection. A slower response delays the next request.
const INTERVAL: Duration = Duration::from_millis(100);

/// A service with several connections, on a thread of its own. Dropping this stops the service.
#[derive(Debug)]
pub(crate) struct Bystander {
    window: Arc<Mutex<Arc<Window>>>,
    _thread: OwnThread,
}

/// The requests that began within a period. A request is added when it ends, which may be after the period.
#[derive(Debug)]
pub(crate) struct Window {
    latency: Mutex<Latency>,
    failed: AtomicU64,
}

impl Bystander {
    /// Posts notifications to users whose ids begin with `bystander`.
    pub(crate) fn start(server: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let window = Arc::new(Mutex::new(Window::new()));
        let (shared, token) = (Arc::clone(&window), token.to_owned());
        let thread = OwnThread::start("bystander".to_owned(), move || {
            for number in 0..CALLERS {
                tokio::spawn(post_periodically(number, server, token.clone(), Arc::clone(&shared)));
            }
            std::future::pending()
        })?;
        Ok(Self { window, _thread: thread })
    }

    /// Begins a window, which ends the previous one. Requests that begin from now on are counted in the new one.
    pub(crate) fn begin_window(&self) -> Arc<Window> {
        let window = Window::new();
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&window);
        window
    }
}

impl Window {
    fn new() -> Arc<Self> {
        Arc::new(Self { latency: Mutex::new(no_latency()), failed: AtomicU64::new(0) })
    }

    /// The latency of all requests, including failed ones.
    pub(crate) fn latency(&self) -> Latency {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests with a status other than 201, or without a response.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    fn record(&self, status: &io::Result<u16>, began_at: u64) {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.saturating_record((clock::now() - began_at) / 1_000);
        if !matches!(status, Ok(201)) {
            self.failed.fetch_add(1, Relaxed);
        }
    }
}

async fn post_periodically(
    number: u32,
    server: SocketAddr,
    token: String,
    window: Arc<Mutex<Arc<Window>>>,
) {
    let body = serde_json::json!({
        "userId": format!("bystander{number}"),
        "type": "order.shipped",
        "title": "Your order is on its way",
        "message": "It left our warehouse this morning and will be with you tomorrow.",
    });
    let body = body.to_string();
    let mut http = None;
    let mut pace = interval(INTERVAL);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Spreads the connections over the interval.
    tokio::time::sleep(INTERVAL * number / CALLERS).await;
    loop {
        pace.tick().await;
        let window = Arc::clone(&window.lock().unwrap_or_else(PoisonError::into_inner));
        let began_at = clock::now();
        let status = post(&mut http, server, &token, &body).await;
        window.record(&status, began_at);
        if status.is_err() {
            http = None;
        }
    }
}

/// Posts a notification, on a new connection if there is none.
async fn post(
    http: &mut Option<Http>,
    server: SocketAddr,
    token: &str,
    body: &str,
) -> io::Result<u16> {
    let http = match http {
        Some(http) => http,
        None => http.insert(Http::connect(server, token.to_owned()).await?),
    };
    let (status, _) = http.request("POST /v1/notifications", body).await?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_without_status_201_counts_as_failed() {
        let window = Window::new();
        for status in [Ok(201), Ok(429), Ok(503), Err(io::ErrorKind::UnexpectedEof.into())] {
            window.record(&status, clock::now());
        }
        assert_eq!((window.latency().len(), window.failed()), (4, 3));
    }
}
