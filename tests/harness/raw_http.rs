//! HTTP/1.1, byte for byte: requests that no client library would send.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// After this long without a byte, a response on an open connection counts as complete.
const SILENCE: Duration = Duration::from_secs(2);

/// Sends these bytes on a new connection. Returns all bytes that the server sends until it closes the
/// connection, or until it is silent for two seconds after a response.
///
/// # Panics
/// When the connection is refused, or the server neither responds nor closes it.
pub async fn exchange(url: &str, request: impl AsRef<[u8]>) -> String {
    let address = url.strip_prefix("http://").expect("a URL without TLS");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    // The server may respond and close before everything is sent.
    let _ = stream.write_all(request.as_ref()).await;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let patience = if answer.is_empty() { PATIENCE } else { SILENCE };
        match timeout(patience, stream.read(&mut chunk)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(length)) => answer.extend_from_slice(&chunk[..length]),
            Err(elapsed) => {
                assert!(!answer.is_empty(), "neither a response nor a close: {elapsed}");
                break;
            }
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status codes of all responses that [`exchange`] returned, in order.
pub fn statuses(answer: &str) -> Vec<u16> {
    let responses = answer.split("HTTP/1.1 ").skip(1);
    responses.filter_map(|response| response.get(..3)?.parse().ok()).collect()
}
