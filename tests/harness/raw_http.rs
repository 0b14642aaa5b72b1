//! HTTP/1.1, byte for byte: requests that no client library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// How long a connection that stays open has to be silent until nothing more is expected of it.
const SILENCE: Duration = Duration::from_secs(2);

/// Sends these bytes on a connection of their own, and gives everything that comes back until the
/// server closes it or has answered and says nothing more.
///
/// # Panics
/// When nobody listens there, or there is neither an answer nor an end.
pub async fn exchange(url: &str, request: impl AsRef<[u8]>) -> String {
    let address = url.strip_prefix("http://").expect("a URL without TLS");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // It may be cut off before all is sent, and say why first.
    let _ = stream.write_all(request.as_ref()).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let patience = if answer.is_empty() { PATIENCE } else { SILENCE };
        match timeout(patience, stream.read(&mut chunk)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(length)) => answer.extend_from_slice(&chunk[..length]),
            Err(elapsed) => {
                assert!(!answer.is_empty(), "neither an answer nor an end: {elapsed}");
                break;
            }
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status codes of all answers in what [`exchange`] gave, the first one first.
pub fn statuses(answer: &str) -> Vec<u16> {
    answer.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}
