use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

/// The body of a response that becomes known only after a long wait, as in long polling. It is an extension of
/// the response, and only a [`Server`](super::Server) sends it.
///
/// The response's head passes through the layers of the router at once. While the server waits for the body, it
/// keeps neither the request nor the router's futures, and usually no HTTP parser either.
#[derive(Clone)]
pub(crate) struct DeferredBody(Arc<Mutex<Option<PendingBody>>>);

/// `None` if there will be no body: the server then responds with 400.
pub(super) type PendingBody = BoxFuture<'static, Option<Bytes>>;

impl DeferredBody {
    /// Returns the response with this body instead of its own.
    pub(crate) fn attach(
        mut response: Response,
        body: impl Future<Output = Option<Bytes>> + Send + 'static,
    ) -> Response {
        let body = Self(Arc::new(Mutex::new(Some(body.boxed()))));
        response.extensions_mut().insert(body);
        response
    }

    /// Takes the body out of a response that has one.
    pub(super) fn take(response: &mut Response) -> Option<PendingBody> {
        let Self(body) = response.extensions_mut().remove()?;
        body.lock().take()
    }
}
