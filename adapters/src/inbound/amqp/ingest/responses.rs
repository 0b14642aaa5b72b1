use futures_util::stream::{self, StreamExt as _};
use tracing::debug;

use super::super::message_handler::MessageHandler;
use super::super::request::{Request, RequestError};
use super::parts::PipelineParts;
use crate::amqp::{HeldDelivery, Publish};

/// How many responses of one batch are read from the store and sent at the same time.
const MAX_CONCURRENT_RESPONSES: usize = 16;

/// A response that is still to be sent.
pub(super) struct Response<C> {
    /// The message of the request.
    pub(super) delivery: HeldDelivery,
    pub(super) request: Request,
    /// The command that has run, or the error to respond with. [`send`](PipelineParts::send) reads the data of the
    /// response.
    pub(super) result: Result<C, RequestError>,
}

impl<H: MessageHandler> PipelineParts<H> {
    /// Sends the responses. Returns the messages of the requests, which are to be acknowledged. A response that cannot
    /// be sent is dropped, because the sender of the request waits only for a short time.
    pub(super) async fn respond(&self, responses: Vec<Response<H::Command>>) -> Vec<HeldDelivery> {
        let sending = stream::iter(responses).map(|response| self.send(response));
        sending.buffer_unordered(MAX_CONCURRENT_RESPONSES).collect().await
    }

    /// Sends a response. Returns the message of the request, which must then be acknowledged.
    async fn send(&self, response: Response<H::Command>) -> HeldDelivery {
        let Response { delivery, request, result } = response;
        let result = match result {
            Ok(command) => {
                let response = self.handler.respond(&command).await;
                response.map_err(|error| RequestError::Failed(error.to_string()))
            }
            Err(error) => Err(error),
        };
        let body = request.response(&result);
        let message = Publish {
            exchange: "",
            routing_key: request.reply_to(),
            mandatory: false,
            properties: request.properties(),
            body: &body,
        };
        if let Some(error) = self.replies.publish(&[message]).await.error {
            debug!(%error, "cannot send the response of a request");
        }
        delivery
    }
}
