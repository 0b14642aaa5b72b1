use std::collections::BTreeMap;
use std::sync::Arc;

use belfry_application::ports::Clock;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::message::{Unreadable, text_of};
use crate::amqp::{Lane, Needs, NotSent, Outgoing, Publisher, Topology};
use crate::wire::Rfc3339;

/// What the names of all these headers begin with.
pub(super) const PREFIX: &str = "x-belfry-";
/// The header that says in a word why a message is here: a [`Reason`].
pub(super) const REASON: &str = "x-belfry-reason";
/// The same in a sentence.
pub(super) const ERROR: &str = "x-belfry-error";
/// How often it has failed.
pub(super) const ATTEMPTS: &str = "x-belfry-attempts";
/// When it failed for the first time, RFC 3339.
pub(super) const FIRST_FAILED_AT: &str = "x-belfry-first-failed-at";
/// When it failed last.
pub(super) const LAST_FAILED_AT: &str = "x-belfry-last-failed-at";
/// The routing key that it came with at first.
pub(super) const ROUTING_KEY: &str = "x-belfry-routing-key";
/// The exchange that it was published to at first; empty for the default one.
pub(super) const EXCHANGE: &str = "x-belfry-exchange";
/// The `expiration` that it had.
const EXPIRATION: &str = "x-belfry-expiration";
/// The `user_id` that it had.
pub(super) const USER_ID: &str = "x-belfry-user-id";
/// The header `CC` that it had.
const CC: &str = "x-belfry-cc";
/// Whether its own headers had to be left behind.
const HEADERS_DROPPED: &str = "x-belfry-headers-dropped";

/// Why a message is in a retry queue or in the dead queue, as its header `x-belfry-reason` says.
/// `x-belfry-error` says it in a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `unreadable`: not UTF-8, not JSON, too large.
    Unreadable,
    /// `unknown_pattern`: about something that Belfry does not know, or about nothing.
    UnknownPattern,
    /// `invalid`: a field is missing or wrong.
    Invalid,
    /// `rejected`: the store refuses it.
    Rejected,
    /// `failed`: it fails while others work, or came too early; it will be tried again.
    Failed,
    /// `gave_up`: it has failed as often as it may.
    GaveUp,
    /// `unknown_notification`: it says that something was read which the inbox has never had, also
    /// after it was tried again for a while.
    UnknownNotification,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::Unreadable,
        Self::UnknownPattern,
        Self::Invalid,
        Self::Rejected,
        Self::Failed,
        Self::GaveUp,
        Self::UnknownNotification,
    ];

    /// The reason of that name.
    pub fn parse(raw: &str) -> Result<Self, UnknownReason> {
        Self::ALL.into_iter().find(|it| it.as_str() == raw).ok_or(UnknownReason)
    }

    /// The header's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::UnknownPattern => "unknown_pattern",
            Self::Invalid => "invalid",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::GaveUp => "gave_up",
            Self::UnknownNotification => "unknown_notification",
        }
    }
}

/// A text is no [`Reason`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a message is dead because it is unreadable, unknown_pattern, invalid or rejected, because \
     Belfry gave_up, or because it is about an unknown_notification"
)]
pub struct UnknownReason;

impl From<&Unreadable> for Reason {
    fn from(why: &Unreadable) -> Self {
        match why {
            Unreadable::TooLarge(_) | Unreadable::NotUtf8 | Unreadable::NotJson(_) => {
                Self::Unreadable
            }
            Unreadable::NoPattern | Unreadable::UnknownPattern(_) => Self::UnknownPattern,
            Unreadable::NoData | Unreadable::Field(_) => Self::Invalid,
        }
    }
}

/// A message on its way to a retry queue or to the dead queue.
pub(super) struct Letter {
    pub(super) delivery: Delivery,
    pub(super) reason: Reason,
    pub(super) error: String,
}

impl Letter {
    /// It can never work.
    pub(super) fn dead(delivery: Delivery, reason: Reason, error: &impl ToString) -> Self {
        Self { delivery, reason, error: error.to_string() }
    }

    /// It failed; it is tried again unless it has failed that often, whatever for.
    pub(super) fn failed(delivery: Delivery, error: &impl ToString, max_attempts: u32) -> Self {
        Self::unless_too_often(delivery, Reason::GaveUp, error, max_attempts)
    }

    /// It is about something that is not there yet; otherwise as one that failed.
    pub(super) fn early(delivery: Delivery, error: &impl ToString, max_attempts: u32) -> Self {
        Self::unless_too_often(delivery, Reason::UnknownNotification, error, max_attempts)
    }

    fn unless_too_often(
        delivery: Delivery,
        at_last: Reason,
        error: &impl ToString,
        max_attempts: u32,
    ) -> Self {
        let last = attempts(&delivery.properties) + 1 >= max_attempts;
        let reason = if last { at_last } else { Reason::Failed };
        Self { delivery, reason, error: error.to_string() }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.reason != Reason::Failed
    }

    fn queue<'a>(&self, topology: &'a Topology) -> &'a str {
        if self.is_dead() {
            topology.dead_queue()
        } else {
            topology.retry_queue(attempts(&self.delivery.properties) + 1)
        }
    }
}

/// Publishes messages to the retry queues and the dead queue.
pub(super) struct Letters {
    lane: Lane,
    topology: Topology,
    clock: Arc<dyn Clock>,
}

impl Letters {
    pub(super) fn new(publisher: &Publisher, topology: Topology, clock: Arc<dyn Clock>) -> Self {
        Self { lane: publisher.lane(Needs::RetryAndDead), topology, clock }
    }

    /// Sends them; answers those that are safe in their queue, those that are not, and why.
    pub(super) async fn send(
        &self,
        letters: Vec<Letter>,
    ) -> (Vec<Letter>, Vec<Letter>, Option<NotSent>) {
        // Those for one queue go together: if it is gone, it is gone for all of them.
        let mut by_queue: BTreeMap<&str, Vec<Letter>> = BTreeMap::new();
        for letter in letters {
            by_queue.entry(letter.queue(&self.topology)).or_default().push(letter);
        }
        let (mut safe, mut unsafe_yet, mut why) = (vec![], vec![], None);
        for (queue, mut letters) in by_queue {
            let messages: Vec<_> =
                letters.iter().map(|letter| self.message(queue, letter)).collect();
            let sent = self.lane.publish(&messages).await;
            unsafe_yet.extend(letters.split_off(sent.confirmed));
            safe.extend(letters);
            why = sent.stopped_by.or(why);
        }
        (safe, unsafe_yet, why)
    }

    fn message<'a>(&self, queue: &'a str, letter: &'a Letter) -> Outgoing<'a> {
        Outgoing {
            exchange: "",
            routing_key: queue,
            mandatory: true,
            properties: labelled(letter, &Rfc3339(self.clock.now()).to_string()),
            body: &letter.delivery.data,
        }
    }
}

/// How often a message has failed.
pub(super) fn attempts(properties: &BasicProperties) -> u32 {
    let attempts = properties.headers().as_ref().and_then(|table| table.inner().get(ATTEMPTS));
    match attempts {
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count).unwrap_or_default(),
        _ => 0,
    }
}

/// The message's own properties, and a label that says what happened to it. As RabbitMQ does with its
/// own dead letters, what would make the message vanish once more, or be refused, or go elsewhere
/// too, is kept as a header instead: `expiration`, `user_id` (which must be that of whoever
/// publishes) and `CC`. It becomes persistent whatever it was.
fn labelled(letter: &Letter, now: &str) -> BasicProperties {
    let old = &letter.delivery.properties;
    let mut headers = own_headers(old);
    let mut put = |name: &str, value: AMQPValue| {
        headers.insert(name.into(), value);
    };
    let failed = attempts(old).saturating_add(1);
    put(REASON, text(letter.reason.as_str()));
    put(ERROR, text(&letter.error.chars().take(1_000).collect::<String>()));
    put(ATTEMPTS, AMQPValue::LongInt(i32::try_from(failed).unwrap_or(i32::MAX)));
    put(LAST_FAILED_AT, text(now));
    let seen = old.headers().as_ref();
    let first = |name, now| seen.and_then(|table| text_of(table, name)).unwrap_or(now);
    put(FIRST_FAILED_AT, text(first(FIRST_FAILED_AT, now)));
    put(ROUTING_KEY, text(first(ROUTING_KEY, letter.delivery.routing_key.as_str())));
    put(EXCHANGE, text(first(EXCHANGE, letter.delivery.exchange.as_str())));
    for (name, value) in [(EXPIRATION, old.expiration()), (USER_ID, old.user_id())] {
        if let Some(value) = value {
            put(name, text(value.as_str()));
        }
    }
    with_headers(old, headers.into())
}

/// The same properties with these headers, but for `expiration` and `user_id`, and persistent.
pub(super) fn with_headers(old: &BasicProperties, headers: FieldTable) -> BasicProperties {
    type Setter = fn(BasicProperties, ShortString) -> BasicProperties;
    let texts: [(&Option<ShortString>, Setter); 8] = [
        (old.content_type(), BasicProperties::with_content_type),
        (old.content_encoding(), BasicProperties::with_content_encoding),
        (old.correlation_id(), BasicProperties::with_correlation_id),
        (old.reply_to(), BasicProperties::with_reply_to),
        (old.message_id(), BasicProperties::with_message_id),
        (old.kind(), BasicProperties::with_type),
        (old.app_id(), BasicProperties::with_app_id),
        (old.cluster_id(), BasicProperties::with_cluster_id),
    ];
    let mut new = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
    for (value, set) in texts {
        if let Some(value) = value {
            new = set(new, value.clone());
        }
    }
    if let Some(priority) = old.priority() {
        new = new.with_priority(*priority);
    }
    if let Some(timestamp) = old.timestamp() {
        new = new.with_timestamp(*timestamp);
    }
    new
}

/// All headers must fit in one frame, those that are added too; a frame that is too large would cost
/// the connection, again and again.
const MAX_HEADERS: usize = 100_000;

fn own_headers(old: &BasicProperties) -> BTreeMap<ShortString, AMQPValue> {
    let Some(table) = old.headers() else { return BTreeMap::new() };
    let mut headers = table.inner().clone();
    if let Some(cc) = headers.remove("CC") {
        headers.insert(CC.into(), cc);
    }
    if weight_of_table(table) > MAX_HEADERS {
        headers.retain(|name, value| name.as_str().starts_with(PREFIX) && weight(value) < 2_000);
        headers.insert(HEADERS_DROPPED.into(), AMQPValue::Boolean(true));
    }
    headers
}

/// How many bytes a value takes, or a few more.
fn weight(value: &AMQPValue) -> usize {
    8 + match value {
        AMQPValue::LongString(text) => text.len(),
        AMQPValue::ShortString(text) => text.as_str().len(),
        AMQPValue::ByteArray(bytes) => bytes.len(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(weight).sum(),
        AMQPValue::FieldTable(table) => weight_of_table(table),
        _ => 1,
    }
}

fn weight_of_table(table: &FieldTable) -> usize {
    table.into_iter().map(|(name, value)| 1 + name.as_str().len() + weight(value)).sum()
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(properties: BasicProperties) -> Delivery {
        let mut delivery =
            Delivery::mock(1, "shop".into(), "notification.created".into(), false, b"{}".to_vec());
        delivery.properties = properties;
        delivery
    }

    fn headers(pairs: &[(&str, AMQPValue)]) -> FieldTable {
        let pairs = pairs.iter().map(|(name, value)| ((*name).into(), value.clone()));
        pairs.collect::<BTreeMap<_, _>>().into()
    }

    fn header(properties: &BasicProperties, name: &str) -> Option<AMQPValue> {
        properties.headers().as_ref()?.inner().get(name).cloned()
    }

    #[test]
    fn a_label_says_what_happened_and_leaves_the_rest_alone() {
        let original = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_correlation_id("c".into())
            .with_reply_to("r".into())
            .with_message_id("m".into())
            .with_type("t".into())
            .with_app_id("a".into())
            .with_priority(3)
            .with_timestamp(7)
            .with_delivery_mode(1)
            .with_headers(headers(&[("x-app", text("svc")), ("n", AMQPValue::LongInt(1))]));
        let letter =
            Letter::dead(delivery(original.clone()), Reason::Invalid, &"title: is missing");
        let new = labelled(&letter, "now");

        assert_eq!(header(&new, "x-app"), Some(text("svc")));
        assert_eq!(header(&new, "n"), Some(AMQPValue::LongInt(1)));
        for (name, expected) in [
            (REASON, text("invalid")),
            (ERROR, text("title: is missing")),
            (ATTEMPTS, AMQPValue::LongInt(1)),
            (FIRST_FAILED_AT, text("now")),
            (LAST_FAILED_AT, text("now")),
            (ROUTING_KEY, text("notification.created")),
            (EXCHANGE, text("shop")),
        ] {
            assert_eq!(header(&new, name), Some(expected), "{name}");
        }
        let unlabelled = |properties: BasicProperties| {
            properties.with_headers(FieldTable::default()).with_delivery_mode(2)
        };
        assert_eq!(unlabelled(new), unlabelled(original));
    }

    #[test]
    fn a_second_failure_remembers_the_first() {
        let first =
            labelled(&Letter::failed(delivery(BasicProperties::default()), &"x", 9), "then");
        let mut again = delivery(first);
        again.exchange = "".into();
        again.routing_key = "the.queue".into();
        let second = labelled(&Letter::failed(again, &"y", 9), "now");
        for (name, expected) in [
            (ATTEMPTS, AMQPValue::LongInt(2)),
            (ERROR, text("y")),
            (FIRST_FAILED_AT, text("then")),
            (LAST_FAILED_AT, text("now")),
            (ROUTING_KEY, text("notification.created")),
            (EXCHANGE, text("shop")),
        ] {
            assert_eq!(header(&second, name), Some(expected), "{name}");
        }
    }

    #[test]
    fn what_has_failed_as_often_as_it_may_is_given_up() {
        let topology = Topology::new(&crate::amqp::TopologySettings::new("a")).unwrap();
        let mut seen = vec![];
        let mut properties = BasicProperties::default();
        for _ in 0..6 {
            let letter = Letter::failed(delivery(properties), &"down", 6);
            seen.push(letter.queue(&topology).to_owned());
            properties = labelled(&letter, "now");
        }
        let expected = ["retry.1s", "retry.5s", "retry.30s", "retry.120s", "retry.120s", "dead"];
        assert_eq!(seen, expected.map(|rest| format!("belfry.ingest.{rest}")));
        assert_eq!(header(&properties, REASON), Some(text("gave_up")));
    }

    #[test]
    fn what_is_too_early_as_often_as_it_may_says_so() {
        let mut seen = vec![];
        let mut properties = BasicProperties::default();
        for _ in 0..4 {
            let letter = Letter::early(delivery(properties), &"unknown notification ids: n1", 4);
            seen.push(letter.is_dead());
            properties = labelled(&letter, "now");
        }
        assert_eq!(seen, [false, false, false, true]);
        assert_eq!(header(&properties, REASON), Some(text("unknown_notification")));
        assert_eq!(header(&properties, ERROR), Some(text("unknown notification ids: n1")));
    }

    #[test]
    fn what_would_make_it_vanish_or_stray_is_kept_as_a_header() {
        let original = BasicProperties::default()
            .with_expiration("100".into())
            .with_user_id("somebody".into())
            .with_headers(headers(&[("CC", text("elsewhere"))]));
        let new = labelled(&Letter::dead(delivery(original), Reason::Invalid, &"x"), "now");
        assert_eq!((new.expiration(), new.user_id()), (&None, &None));
        assert_eq!(header(&new, "CC"), None);
        assert_eq!(header(&new, EXPIRATION), Some(text("100")));
        assert_eq!(header(&new, USER_ID), Some(text("somebody")));
        assert_eq!(header(&new, CC), Some(text("elsewhere")));
    }

    #[test]
    fn headers_that_fill_a_frame_are_left_behind() {
        let huge = headers(&[("x", text(&"y".repeat(120_000))), (ATTEMPTS, AMQPValue::LongInt(2))]);
        let original = BasicProperties::default().with_headers(huge);
        let error = "e".repeat(10_000);
        let new = labelled(&Letter::dead(delivery(original), Reason::Invalid, &error), "now");
        assert_eq!(header(&new, "x"), None);
        assert_eq!(header(&new, HEADERS_DROPPED), Some(AMQPValue::Boolean(true)));
        assert_eq!(header(&new, ATTEMPTS), Some(AMQPValue::LongInt(3)));
        assert!(weight_of_table(new.headers().as_ref().unwrap()) < 5_000);
    }

    #[test]
    fn a_count_that_makes_no_sense_starts_anew() {
        for count in [AMQPValue::LongInt(-5), text("many"), AMQPValue::Void] {
            let properties = BasicProperties::default().with_headers(headers(&[(ATTEMPTS, count)]));
            assert_eq!(attempts(&properties), 0);
        }
        let most = headers(&[(ATTEMPTS, AMQPValue::LongInt(i32::MAX))]);
        let letter =
            Letter::failed(delivery(BasicProperties::default().with_headers(most)), &"x", 6);
        assert!(letter.is_dead());
        assert_eq!(header(&labelled(&letter, "now"), ATTEMPTS), Some(AMQPValue::LongInt(i32::MAX)));
    }
}
