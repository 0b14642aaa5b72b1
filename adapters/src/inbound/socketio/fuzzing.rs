use http::Request;
use http::header::{AUTHORIZATION, HeaderValue};
use serde_json::Value;

use super::handshake::{Handshake, Shown, seen};
use super::messages::{ids, one_id, page_asked_for};
pub use super::websocket::fuzzing::websocket;
use crate::fuzzing::first_line;

/// A line that stands in the request, as its query and its `Authorization` header, then JSON: it is
/// read as what a device shows when it connects, and as the payload of every event.
///
/// # Panics
/// When that does not hold.
pub fn payload(bytes: &[u8]) {
    let (line, json) = first_line(bytes);
    let Ok(payload) = serde_json::from_slice::<Value>(json) else { return };
    let mut request = Request::new(());
    if let Ok(header) = HeaderValue::from_bytes(line) {
        request.headers_mut().insert(AUTHORIZATION, header);
    }
    if let Ok(uri) = [b"/socket.io/?", line].concat().as_slice().try_into() {
        *request.uri_mut() = uri;
    }
    let request = request.into_parts().0;
    for token_in_query in [false, true] {
        let shown = Shown::by(&request.headers, &request.uri, token_in_query);
        let _ = Handshake::read(&payload, &shown);
    }
    let _ = seen(&payload);
    if let Ok(id) = one_id(payload.clone()) {
        let all = ids(payload.clone()).expect("one is one of many");
        assert_eq!(all, [id]);
    }
    let _ = ids(payload.clone());
    let _ = page_asked_for(payload);
}
