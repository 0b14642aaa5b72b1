use axum::body::Body;
use axum::response::Response;
use http_body_util::BodyExt as _;

use super::connection_limiter::ConnectionPermit;
use super::request_progress::RequestProgress;

/// A request whose response has not been sent yet.
pub(super) struct InFlightRequest {
    progress: RequestProgress,
    /// The permit of a client behind a proxy.
    _permit: Option<ConnectionPermit>,
}

impl InFlightRequest {
    pub(super) fn new(progress: RequestProgress, permit: Option<ConnectionPermit>) -> Self {
        Self { progress, _permit: permit }
    }

    /// Keeps the request in flight until the body of its response has been sent or dropped.
    pub(super) fn until_sent(self, response: Response) -> Response {
        response.map(|body| {
            Body::new(body.map_err(move |error| {
                // Moves `self` into the closure, which is dropped with the body.
                let _in_flight = &self;
                error
            }))
        })
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.progress.advance();
    }
}
