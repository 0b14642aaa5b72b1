//! Requests of NestJS's `ClientProxy.send`, and their responses.

use lapin::BasicProperties;
use lapin::types::ShortString;
use serde::Serialize;
use serde_json::value::RawValue;

use super::invalid_message::InvalidMessage;
use super::message::{Incoming, request_id};
use super::pattern::PatternNames;

/// A message whose sender waits for a response.
#[derive(Debug, Clone)]
pub(super) struct Request {
    /// The id that the sender gave the request in the body.
    id: Box<RawValue>,
    reply_to: ShortString,
    correlation_id: Option<ShortString>,
}

/// The error in the response to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RequestError {
    /// Belfry does not know the pattern, so there is no handler for it.
    NoHandler,
    /// Any other error, with a text for the sender.
    Failed(String),
}

impl From<InvalidMessage> for RequestError {
    fn from(error: InvalidMessage) -> Self {
        match error {
            InvalidMessage::UnknownPattern(_) => Self::NoHandler,
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Request {
    /// The request of a message that was consumed from `queue`. `None` if its sender does not wait for a response.
    pub(super) fn of(message: &Incoming<'_>, queue: &str, names: &PatternNames) -> Option<Self> {
        let reply_to = message.properties.reply_to().clone()?;
        let id = request_id(message, queue, names)?.to_owned();
        let correlation_id = message.properties.correlation_id().clone();
        Some(Self { id, reply_to, correlation_id })
    }

    /// The queue for the response.
    pub(super) fn reply_to(&self) -> &str {
        self.reply_to.as_str()
    }

    /// The properties of the response.
    pub(super) fn properties(&self) -> BasicProperties {
        let properties = BasicProperties::default().with_content_type("application/json".into());
        match &self.correlation_id {
            Some(id) => properties.with_correlation_id(id.clone()),
            None => properties,
        }
    }

    /// The body of the response, in the form that NestJS's client reads.
    pub(super) fn response(&self, result: &Result<Box<RawValue>, RequestError>) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Form<'a> {
            id: &'a RawValue,
            #[serde(skip_serializing_if = "Option::is_none")]
            err: Option<ErrorForm<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            response: Option<&'a RawValue>,
            /// Whether no further part of the response follows.
            is_disposed: bool,
        }

        #[derive(Serialize)]
        #[serde(untagged)]
        enum ErrorForm<'a> {
            Text(&'static str),
            Object { status: &'static str, message: &'a str },
        }
        // Both forms of the error are those of NestJS.
        let err = result.as_ref().err().map(|error| match error {
            RequestError::NoHandler => ErrorForm::Text(
                "There is no matching message handler defined in the remote service.",
            ),
            RequestError::Failed(message) => ErrorForm::Object { status: "error", message },
        });
        let response = result.as_deref().ok();
        let form = Form { id: &self.id, err, response, is_disposed: true };
        serde_json::to_vec(&form).expect("texts and valid JSON can always be serialized")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::message::Envelope;
    use super::*;

    const QUEUE: &str = "belfry.ingest";

    /// The request of a message that was sent directly to the queue.
    fn request(body: &str, properties: &BasicProperties) -> Option<Request> {
        let body = body.as_bytes();
        let message = Incoming { body, exchange: "", routing_key: QUEUE, properties };
        Request::of(&message, QUEUE, &PatternNames::default())
    }

    #[test]
    fn message_with_id_and_reply_queue_is_a_request_and_gets_a_response() {
        let without_reply_queue = BasicProperties::default();
        let with_reply_queue = BasicProperties::default()
            .with_reply_to("amq.rabbitmq.reply-to.g1".into())
            .with_correlation_id("4f".into());
        let body = r#"{"pattern":"notification.create","data":{},"id":"4f"}"#;
        let without_id = r#"{"pattern":"notification.create","data":{}}"#;
        assert!(request(body, &without_reply_queue).is_none());
        assert!(request(without_id, &with_reply_queue).is_none());
        assert!(request("[", &with_reply_queue).is_none());
        let request = request(body, &with_reply_queue).unwrap();
        assert_eq!(request.reply_to(), "amq.rabbitmq.reply-to.g1");
        assert_eq!(request.properties().correlation_id().as_ref().unwrap().as_str(), "4f");
        let response =
            |result| -> Value { serde_json::from_slice(&request.response(&result)).unwrap() };
        let count = RawValue::from_string(r#"{"count":3}"#.to_owned()).unwrap();
        assert_eq!(
            response(Ok(count)),
            json!({ "id": "4f", "response": { "count": 3 }, "isDisposed": true })
        );
        assert_eq!(
            response(Err(RequestError::Failed("title: is missing".to_owned()))),
            json!({
                "id": "4f", "isDisposed": true,
                "err": { "status": "error", "message": "title: is missing" },
            })
        );
        assert_eq!(
            response(Err(InvalidMessage::UnknownPattern("x".to_owned()).into())),
            json!({
                "id": "4f", "isDisposed": true,
                "err": "There is no matching message handler defined in the remote service.",
            })
        );
    }

    #[test]
    fn envelope_and_request_agree_on_who_waits_for_a_response() {
        let properties =
            BasicProperties::default().with_reply_to("amq.rabbitmq.reply-to.g1".into());
        let names = PatternNames::default();
        let in_nest_form = r#"{"pattern":"notification.create","data":{},"id":"4f"}"#;
        let with_byte_order_mark = format!("\u{feff}{in_nest_form}");
        for (body, routing_key, expected) in [
            (in_nest_form, QUEUE, true),
            (in_nest_form, "notification.create", true),
            (&with_byte_order_mark, QUEUE, true),
            (r#"{"pattern":"notification.create","data":{},"id":null}"#, QUEUE, false),
            // Bare data: the pattern is the routing key, and the fields belong to the notification.
            (r#"{"pattern":"zebra","id":"n1","userId":"ada"}"#, "notification.create", false),
            (
                r#"{"specversion":"1.0","type":"notification.create","id":"1","data":{}}"#,
                QUEUE,
                false,
            ),
        ] {
            let body = body.as_bytes();
            let message = Incoming { body, exchange: "", routing_key, properties: &properties };
            let envelope = Envelope::open(&message, QUEUE, &names).unwrap();
            assert_eq!(envelope.is_request, expected, "{}", String::from_utf8_lossy(body));
            assert_eq!(Request::of(&message, QUEUE, &names).is_some(), expected);
        }
    }
}
