use belfry_application::testing::{at, id, user};
use belfry_application::use_cases::Command;
use belfry_domain::Draft;
use lapin::types::AMQPValue;
use serde_json::json;
use std::collections::BTreeMap;

use super::super::command::decode_message;
use super::super::message_mapping::MessageMapping;
use super::*;

const QUEUE: &str = "belfry.ingest";
const NO_RECIPIENT: &str =
    "userId: is missing; amqp.ingest.fields.recipient can name another field";
const NO_TITLE: &str = "title: is missing, as are message and type";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A message from another service.
#[derive(Clone)]
struct TestMessage {
    body: Vec<u8>,
    exchange: &'static str,
    routing_key: &'static str,
    properties: BasicProperties,
}

/// A message that is sent directly to the queue, unless [`TestMessage::via`] changes that.
fn sent(body: impl AsRef<[u8]>) -> TestMessage {
    TestMessage {
        body: body.as_ref().to_vec(),
        exchange: "",
        routing_key: QUEUE,
        properties: BasicProperties::default(),
    }
}

impl TestMessage {
    /// Publishes the message to an exchange instead.
    fn via(mut self, exchange: &'static str, routing_key: &'static str) -> Self {
        (self.exchange, self.routing_key) = (exchange, routing_key);
        self
    }

    fn with(mut self, change: impl FnOnce(BasicProperties) -> BasicProperties) -> Self {
        self.properties = change(self.properties);
        self
    }

    fn headers(self, pairs: &[(&str, &str)]) -> Self {
        let pairs = pairs
            .iter()
            .map(|(name, value)| ((*name).into(), AMQPValue::LongString((*value).into())));
        let table: BTreeMap<_, _> = pairs.collect();
        self.with(|properties| properties.with_headers(table.into()))
    }

    /// Opens the message and applies `inspect` to the envelope, which borrows from the message.
    fn open<T>(
        &self,
        inspect: impl FnOnce(Envelope<'_>) -> Result<T, InvalidMessage>,
    ) -> Result<T, InvalidMessage> {
        let incoming = Incoming {
            body: &self.body,
            exchange: self.exchange,
            routing_key: self.routing_key,
            properties: &self.properties,
        };
        inspect(Envelope::open(&incoming, QUEUE, &PatternNames::default())?)
    }

    fn commands(&self) -> Result<Vec<Command>, InvalidMessage> {
        let mapping = MessageMapping::default();
        let new_id = || id("generated");
        let message =
            self.open(|envelope| decode_message(&envelope, &mapping, new_id, at(1_000)))?;
        let count = message.command_count();
        let commands: Vec<_> = message.into_commands().collect();
        assert_eq!(commands.len(), count);
        Ok(commands)
    }

    /// The only command.
    #[track_caller]
    fn command(&self) -> Result<Command, InvalidMessage> {
        let mut commands = self.commands()?;
        assert_eq!(commands.len(), 1);
        Ok(commands.remove(0))
    }

    #[track_caller]
    fn draft(&self) -> Draft {
        match self.command() {
            Ok(Command::Create(draft)) => *draft,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn error(&self) -> InvalidMessage {
        self.command().unwrap_err()
    }
}

/// A message as NestJS sends it.
fn nestjs(pattern: &str, data: impl serde::Serialize) -> TestMessage {
    sent(json!({ "pattern": pattern, "data": data }).to_string())
}

#[test]
fn nestjs_messages_are_decoded_from_the_body_alone() {
    let data = r#"{"userId":"ada","title":"Hi","id":"n1"}"#;
    for body in [
        format!(r#"{{"pattern":"notification.created","data":{data}}}"#),
        format!(r#"{{"data":{data},"pattern":"notification.create"}}"#),
        format!(
            r#" {{ "data" : {data} , "id":"4f", "metadata":[1], "pattern":"notification.create" }} "#
        ),
    ] {
        // The routing key and the type are ignored, as in NestJS.
        for message in [sent(&body), sent(&body).via("shop", "audit.login")] {
            let draft = message.with(|p| p.with_type("audit.login".into())).draft();
            assert_eq!((draft.user, draft.id), (user("ada"), id("n1")), "{body}");
        }
    }
}

#[test]
fn bare_data_takes_its_pattern_from_routing_key_or_type() {
    let body = r#"{"userId":"ada","title":"Hi","type":"order.shipped","source":5,"data":{"a":1}}"#;
    for message in [
        sent(body).via("shop", "notification.created"),
        sent(body).with(|p| p.with_type("notification.create".into())),
        sent(body).via("shop", "orders.42").with(|p| p.with_type("notification.create".into())),
        sent(body).via("", "notification.create"),
    ] {
        let draft = message.draft();
        assert_eq!(draft.user, user("ada"));
        assert_eq!(draft.kind.as_str(), "order.shipped");
        // A field that a notification does not have is kept.
        assert_eq!(draft.data.unwrap().as_str(), r#"{"a":1,"source":5}"#);
    }
}

#[test]
fn field_named_pattern_in_bare_data_is_ignored() {
    let body = r#"{"userId":"ada","title":"Hi","pattern":"stripes"}"#;
    let draft = sent(body).via("shop", "notification.create").draft();
    assert_eq!(draft.user, user("ada"));
    let without_routing_key = sent(body).error();
    assert_eq!(without_routing_key, InvalidMessage::UnknownPattern("stripes".to_owned()));
}

#[test]
fn queue_name_is_not_mistaken_for_a_pattern() {
    let body = br#"{"userId":"ada","title":"Hi"}"#;
    let opened = |exchange| {
        // The queue has the name of a pattern.
        let message = Incoming {
            body,
            exchange,
            routing_key: "notification.create",
            properties: &BasicProperties::default(),
        };
        Envelope::open(&message, "notification.create", &PatternNames::default())
            .map(|envelope| envelope.pattern)
    };
    assert_eq!(opened(""), Err(InvalidMessage::NoPattern));
    assert_eq!(opened("shop"), Ok(Pattern::Create));
}

fn cloud_event(change: impl FnOnce(&mut serde_json::Value)) -> TestMessage {
    let mut event = json!({
        "specversion": "1.0", "type": "com.example.shop.notification.created",
        "source": "/shop", "id": "e1", "datacontenttype": "application/json",
        "traceparent": TRACE, "data": { "userId": "ada", "title": "Hi" },
    });
    change(&mut event);
    sent(event.to_string())
}

#[test]
fn cloud_events_are_decoded_in_structured_and_binary_mode() {
    let binary = |prefix: &str| {
        let header = |attribute: &str| format!("{prefix}{attribute}");
        let pairs = [
            (header("specversion"), "1.0"),
            (header("type"), "notification.create"),
            (header("source"), "/shop"),
            (header("id"), "e1"),
            (header("traceparent"), TRACE),
        ];
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        sent(r#"{"userId":"ada","title":"Hi"}"#).headers(&pairs)
    };
    for message in [
        cloud_event(|_| {}),
        cloud_event(|event| event["type"] = "notification.create".into()),
        binary("cloudEvents:"),
        binary("cloudEvents_"),
        binary("ce-"),
    ] {
        let draft = message.draft();
        assert_eq!(draft.user, user("ada"));
        assert_eq!(draft.dedupe_key, Some(id("/shop|e1")), "source and id together are unique");
        let trace = message.open(|envelope| Ok(envelope.trace)).unwrap();
        assert_eq!(trace, TraceParent::parse(TRACE).ok());
    }
}

#[test]
fn cloud_event_type_of_every_pattern_may_have_a_prefix() {
    for (pattern, expected) in [
        ("notification.create", Pattern::Create),
        ("notification.marked_read", Pattern::MarkRead),
        ("notification.mark_all_read", Pattern::MarkAllRead),
        ("notification.unread_count", Pattern::UnreadCount),
        ("user.revoke_tokens", Pattern::RevokeTokens),
        ("user.tokens_revoked", Pattern::RevokeTokens),
    ] {
        for prefix in ["", "com.example.", "notification.user."] {
            let kind = format!("{prefix}{pattern}");
            let message = cloud_event(|event| event["type"] = kind.as_str().into());
            let opened = message.open(|envelope| Ok((envelope.pattern, envelope.name)));
            assert_eq!(opened, Ok((expected.clone(), pattern.to_owned())), "{kind}");
        }
    }
}

#[test]
fn notification_that_expired_before_its_message_was_received_is_valid() {
    let message = |created: Option<&str>| {
        let mut data = json!({
            "userId": "ada", "title": "Hi", "expiresAt": "1970-01-01T00:00:00.500Z",
        });
        if let Some(created) = created {
            data["createdAt"] = created.into();
        }
        nestjs("notification.create", data)
    };
    // The messages are received at 1,000 ms.
    let draft = message(None).draft();
    assert_eq!((draft.created_at, draft.expires_at), (at(499), Some(at(500))));
    let draft = message(Some("1970-01-01T00:00:00.100Z")).draft();
    assert_eq!((draft.created_at, draft.expires_at), (at(100), Some(at(500))));
    let error = message(Some("1970-01-01T00:00:00.500Z")).error();
    assert!(error.to_string().starts_with("expiresAt"), "{error}");
}

#[test]
fn cloud_event_with_unknown_type_or_without_object_data_is_rejected() {
    for kind in ["order.placed", "notification.exploded", "xnotification.create", ""] {
        let error = cloud_event(|event| event["type"] = kind.into()).error();
        assert_eq!(error, InvalidMessage::UnknownPattern(kind.to_owned()));
    }
    let without_data = |event: &mut serde_json::Value| {
        event.as_object_mut().unwrap().remove("data");
    };
    assert_eq!(cloud_event(without_data).error(), InvalidMessage::NoData);
    let base64 = cloud_event(|event| event["data"] = "eyJ1c2VySWQiOiJhZGEifQ==".into()).error();
    assert_eq!(base64.to_string(), "data: must be an object");
}

#[test]
fn flat_and_wrapped_notifications_are_decoded() {
    for data in [
        json!({ "userId": "ada", "id": "n1", "title": "Hi" }),
        json!({ "notification": { "userId": "ada", "id": "n1", "title": "Hi" } }),
        json!({ "userId": "ada", "notification": { "id": "n1", "title": "Hi" }, "unreadCount": 4 }),
        json!({ "userId": "ada", "notification": { "userId": "bob", "id": "n1", "title": "Hi" } }),
        json!({ "userId": "ada", "id": "n1", "title": "Hi", "notification": "a word" }),
    ] {
        let draft = nestjs("notification.created", &data).draft();
        assert_eq!((draft.user, draft.id), (user("ada"), id("n1")), "{data}");
    }
    let numbers = json!({ "userId": 42, "id": 7, "title": "Hi" });
    let draft = nestjs("notification.created", numbers).draft();
    assert_eq!((draft.user, draft.id), (user("42"), id("7")));
}

#[test]
fn message_id_becomes_the_dedupe_key_if_the_data_has_neither_id_nor_key() {
    let keys = |data: serde_json::Value| {
        let with_message_id = |p: BasicProperties| p.with_message_id("m1".into());
        let draft = nestjs("notification.create", data).with(with_message_id).draft();
        (draft.id.to_string(), draft.dedupe_key.map(|key| key.to_string()))
    };
    let key = |text: &str| Some(text.to_owned());
    assert_eq!(keys(json!({ "userId": "ada", "title": "Hi" })), ("generated".into(), key("m1")));
    let with_id = json!({ "userId": "ada", "title": "Hi", "id": "n1" });
    assert_eq!(keys(with_id), ("n1".into(), None));
    let with_key = json!({ "userId": "ada", "title": "Hi", "dedupeKey": 5 });
    assert_eq!(keys(with_key), ("generated".into(), key("5")));
}

#[test]
fn message_without_message_id_has_no_dedupe_key() {
    let draft = nestjs("notification.create", json!({ "userId": "ada", "title": "Hi" })).draft();
    assert_eq!((draft.id, draft.dedupe_key), (id("generated"), None));
    let empty_message_id = |p: BasicProperties| p.with_message_id("".into());
    let data = json!({ "userId": "ada", "title": "Hi" });
    assert_eq!(nestjs("notification.create", data).with(empty_message_id).draft().dedupe_key, None);
}

#[test]
fn same_message_id_from_two_services_gives_two_dedupe_keys() {
    let key = |app: &str, message_id: &str| {
        let data = json!({ "userId": "ada", "title": "Hi" });
        let (app, message_id) = (app.into(), message_id.into());
        nestjs("notification.create", data)
            .with(|p| p.with_app_id(app).with_message_id(message_id))
            .draft()
            .dedupe_key
            .unwrap()
    };
    assert_ne!(key("shop", "1"), key("mail", "1"));
    assert_eq!(key("shop", "1"), key("shop", "1"));
    // If the app id and the message id together are not a valid key, their hash (43 characters) is the key.
    let long = "x".repeat(200);
    assert_ne!(key(&long, "1"), key(&long, "2"));
    assert_eq!(key("a shop", "no 1"), key("a shop", "no 1"));
    assert_eq!(key("a shop", "no 1").as_str().len(), 43);
}

#[test]
fn mark_read_accepts_one_id_or_several_ids_or_all() {
    let selected = |ids: &[&str]| Command::MarkRead {
        user: user("ada"),
        ids: ids.iter().map(|one| id(one)).collect(),
    };
    let all = || Command::MarkAllRead { user: user("ada") };
    for pattern in ["notification.mark_read", "notification.marked_read"] {
        for (data, expected) in [
            (json!({ "userId": "ada", "id": "n1" }), selected(&["n1"])),
            (json!({ "userId": "ada", "notificationId": 7 }), selected(&["7"])),
            (json!({ "userId": "ada", "ids": ["n1", 2] }), selected(&["n1", "2"])),
            (json!({ "userId": "ada", "notificationIds": ["n1"] }), selected(&["n1"])),
            (json!({ "userId": "ada", "id": null, "all": true }), all()),
            (json!({ "userId": "ada", "all": false, "id": "n1" }), selected(&["n1"])),
        ] {
            assert_eq!(nestjs(pattern, &data).command(), Ok(expected), "{data}");
        }
    }
    for pattern in ["notification.mark_all_read", "notification.all_read"] {
        assert_eq!(nestjs(pattern, json!({ "userId": "ada" })).command(), Ok(all()));
    }
}

#[test]
fn invalid_messages_are_rejected_with_an_error_text() {
    let table: Vec<(TestMessage, &str)> = vec![
        (sent(""), "the body is not a JSON object: it is empty"),
        (sent("  \n"), "the body is not a JSON object: it is empty"),
        (sent("[1,2]"), "the body is not a JSON object: it starts with '['"),
        (sent("\"text\""), "the body is not a JSON object: it starts with '\"'"),
        (sent("null"), "the body is not a JSON object: it starts with 'n'"),
        (sent("\u{feff}{}"), "no pattern in the body, the routing key or the type"),
        (
            sent("{"),
            "the body is not a JSON object: EOF while parsing an object at line 1 column 1",
        ),
        (
            sent(r#"{"pattern":"a","pattern":"b"}"#),
            "the body is not a JSON object: duplicate field `pattern` at line 1 column 24",
        ),
        (sent([b'{', 0xff, b'}']), "the body is not UTF-8"),
        (sent(vec![b' '; MAX_BODY + 1]), "the body has 1048577 bytes; the limit is 1048576"),
        (sent("{}"), "no pattern in the body, the routing key or the type"),
        (sent("{}").via("shop", "order.placed"), "unknown pattern \"order.placed\""),
        (
            sent("{}").via("shop", "a.b").with(|p| p.with_type("c.d".into())),
            "unknown pattern \"c.d\"",
        ),
        (nestjs("order.placed", json!({})), "unknown pattern \"order.placed\""),
        (sent(r#"{"pattern":{"cmd":"x"},"data":{}}"#), "unknown pattern \"x\""),
        (
            sent(r#"{"pattern":{"name":"x"},"data":{}}"#),
            "unknown pattern \"{\\\"name\\\":\\\"x\\\"}\"",
        ),
        (
            nestjs("notification.unread_count", json!({ "userId": "ada", "count": 1 })),
            "unknown pattern \"notification.unread_count\"",
        ),
        (sent(r#"{"pattern":"notification.create"}"#), "data is missing"),
        (nestjs("notification.create", json!(null)), "data is missing"),
        (nestjs("notification.create", json!([])), "data: must be an object"),
        (nestjs("notification.create", json!("x")), "data: must be an object"),
        (nestjs("notification.create", json!({ "title": "Hi" })), NO_RECIPIENT),
        (nestjs("notification.create", json!({ "userId": "ada" })), NO_TITLE),
        (nestjs("notification.create", json!({ "userId": "ada", "title": " " })), NO_TITLE),
        (
            nestjs("notification.create", json!({ "userId": { "a": 1 }, "title": "Hi" })),
            NO_RECIPIENT,
        ),
        (
            nestjs("notification.create", json!({ "userId": "a b", "title": "Hi" })),
            "userId: a user id is made of visible characters, without spaces",
        ),
        (
            nestjs("notification.create", json!({ "userId": "ada", "title": "Hi", "id": ".." })),
            "id: an id must not be . or .., which no URL can name",
        ),
        (nestjs("notification.mark_read", json!({ "id": "n1" })), NO_RECIPIENT),
        (
            nestjs("notification.mark_read", json!({ "userId": "ada" })),
            "ids: is missing; id or all is accepted instead",
        ),
        (
            nestjs("notification.mark_read", json!({ "userId": "ada", "ids": [] })),
            "ids: must contain 1 to 1000 ids",
        ),
        (
            nestjs("notification.mark_read", json!({ "userId": "ada", "ids": vec!["x"; 1_001] })),
            "ids: must contain 1 to 1000 ids",
        ),
        (
            nestjs("notification.mark_read", json!({ "userId": "ada", "ids": ["a b"] })),
            "ids: an id is made of visible characters, without spaces",
        ),
        (nestjs("notification.mark_all_read", json!({})), NO_RECIPIENT),
    ];
    for (message, expected) in table {
        let body = String::from_utf8_lossy(&message.body[..message.body.len().min(200)]);
        assert_eq!(message.error().to_string(), expected, "{body}");
    }
}

#[test]
fn long_unknown_pattern_is_truncated() {
    let error = nestjs(&"x".repeat(5_000), json!({})).error();
    assert_eq!(error, InvalidMessage::UnknownPattern("x".repeat(100)));
}

#[test]
fn trace_is_parsed_from_the_header_and_an_invalid_one_is_ignored() {
    let trace = |message: TestMessage| message.open(|envelope| Ok(envelope.trace)).unwrap();
    let message = || nestjs("notification.create", json!({}));
    assert_eq!(trace(message()), None);
    let parent = TraceParent::parse(TRACE).ok();
    assert_eq!(trace(message().headers(&[("traceparent", TRACE)])), parent);
    assert_eq!(trace(message().headers(&[("traceparent", "invalid")])), None);
    let other = "00-11111111111111111111111111111111-2222222222222222-00";
    let both = cloud_event(|_| {}).headers(&[("traceparent", other)]);
    assert_eq!(trace(both), TraceParent::parse(other).ok(), "the header comes from the latest hop");
}

#[test]
fn retried_message_keeps_its_original_routing_key() {
    let headers = [("x-belfry-exchange", "shop"), ("x-belfry-routing-key", "notification.create")];
    let TestMessage { properties, .. } = sent("").headers(&headers);
    let body = br#"{"userId":"ada","title":"Hi"}"#.to_vec();
    let mut delivery = Delivery::mock(1, "".into(), QUEUE.into(), false, body);
    delivery.properties = properties;
    let envelope =
        Envelope::open(&Incoming::from(&delivery), QUEUE, &PatternNames::default()).unwrap();
    assert_eq!(envelope.pattern, Pattern::Create);
}
