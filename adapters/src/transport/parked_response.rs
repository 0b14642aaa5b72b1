use std::future::pending;
use std::io::{self, Write as _};
use std::time::SystemTime;

use axum::response::Response;
use bytes::{Buf as _, Bytes};
use http::header;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::deferred_body::PendingBody;
use super::in_flight_request::InFlightRequest;
use super::stream::Stream;

/// A response that waits for its [`DeferredBody`](super::DeferredBody) outside the HTTP server. It holds the
/// encoded head and nothing of the request, so that a client that polls costs little more memory than one with a
/// WebSocket.
pub(super) struct ParkedResponse {
    /// The encoded head without `content-length`, `date` and the empty line.
    head: Vec<u8>,
    body: PendingBody,
    in_flight: InFlightRequest,
}

/// The use of the connection after a parked response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterResponse {
    NextRequest,
    Close,
}

impl ParkedResponse {
    pub(super) fn new(response: &Response, body: PendingBody, in_flight: InFlightRequest) -> Self {
        Self { head: encode_head(response), body, in_flight }
    }

    /// Waits for the body and sends the response. Fails if the client closes the connection before that.
    pub(super) async fn send(
        mut self,
        stream: &mut Stream,
        end: &CancellationToken,
    ) -> io::Result<AfterResponse> {
        let body = tokio::select! {
            body = &mut self.body => body,
            () = closed(stream) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        // There will be no body, for example because the client has repeated the request on another connection.
        let Some(body) = body else {
            let rejection =
                b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(rejection).await?;
            stream.flush().await?;
            return Ok(AfterResponse::Close);
        };
        let after =
            if end.is_cancelled() { AfterResponse::Close } else { AfterResponse::NextRequest };
        let head = finish_head(self.head, body.len(), after)?;
        stream.write_all_buf(&mut Bytes::from(head).chain(body)).await?;
        stream.flush().await?;
        drop(self.in_flight);
        Ok(after)
    }
}

/// Encodes the status line and the header fields (RFC 9112, sections 4 and 5). `content-length` is omitted,
/// because the length is not known yet.
fn encode_head(response: &Response) -> Vec<u8> {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH {
            head.extend_from_slice(name.as_str().as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    head.shrink_to_fit();
    head
}

fn finish_head(mut head: Vec<u8>, length: usize, after: AfterResponse) -> io::Result<Vec<u8>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "like hyper's responses: no decision depends on it"
    )]
    let date = httpdate::HttpDate::from(SystemTime::now());
    write!(head, "content-length: {length}\r\ndate: {date}\r\n")?;
    if after == AfterResponse::Close {
        head.extend_from_slice(b"connection: close\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// Waits until the client has closed the connection. A client that pipelines may send its next request before that.
/// The request is put back and read after the response.
async fn closed(stream: &mut Stream) {
    let mut byte = [0];
    if let Ok(1) = stream.read(&mut byte).await {
        stream.put_back(Bytes::copy_from_slice(&byte));
        pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn head_has_the_fields_of_the_response_and_the_length_of_the_body() {
        let response = ([("x-a", "1"), ("content-length", "0")], ()).into_response();
        let head = finish_head(encode_head(&response), 12, AfterResponse::Close).unwrap();
        let head = String::from_utf8(head).unwrap();
        let (before, after) = head.split_once("date: ").unwrap();
        assert_eq!(before, "HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 12\r\n");
        assert!(after.ends_with(" GMT\r\nconnection: close\r\n\r\n"), "{after}");
    }
}
