//! When a message was published, according to the broker or the sender.

use std::time::Duration;

use belfry_domain::Timestamp;
use lapin::BasicProperties;
use lapin::types::AMQPValue;

/// The header with the time of publication in Unix milliseconds. RabbitMQ adds it if
/// `message_interceptors.incoming.set_header_timestamp` is configured
/// (<https://www.rabbitmq.com/docs/message-interceptors>).
const TIMESTAMP_IN_MS: &str = "timestamp_in_ms";

/// An older time is ignored. It is probably an error of the sender, such as a zero or another unit.
const MAX_AGE: Duration = Duration::from_hours(30 * 24);

/// When a message was published. `None` if the message has no plausible time.
pub(super) struct PublicationTime {
    /// The time in the header [`TIMESTAMP_IN_MS`].
    pub(super) exact: Option<Timestamp>,
    /// The exact time, or else the property `timestamp`, which has whole seconds.
    pub(super) approximate: Option<Timestamp>,
}

impl PublicationTime {
    pub(super) fn of(properties: &BasicProperties, now: Timestamp) -> Self {
        let exact = millis(properties).filter(|at| is_plausible(*at, now));
        let approximate = exact.or_else(|| seconds(properties).filter(|at| is_plausible(*at, now)));
        Self { exact, approximate }
    }
}

/// The time in the header [`TIMESTAMP_IN_MS`].
fn millis(properties: &BasicProperties) -> Option<Timestamp> {
    match properties.headers().as_ref()?.inner().get(TIMESTAMP_IN_MS)? {
        AMQPValue::LongLongInt(millis) => Some(Timestamp::from_unix_millis(*millis)),
        _ => None,
    }
}

/// The time in the property `timestamp`.
fn seconds(properties: &BasicProperties) -> Option<Timestamp> {
    let seconds = i64::try_from((*properties.timestamp())?).ok()?;
    Some(Timestamp::from_unix_seconds(seconds))
}

/// Whether the time is at most [`MAX_AGE`] ago. A time in the future is plausible, because clocks differ.
fn is_plausible(published_at: Timestamp, now: Timestamp) -> bool {
    now.since(published_at) <= MAX_AGE
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::at;
    use lapin::types::FieldTable;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn exact(properties: &BasicProperties) -> Option<Timestamp> {
        PublicationTime::of(properties, at(NOW)).exact
    }

    fn approximate(properties: &BasicProperties) -> Option<Timestamp> {
        PublicationTime::of(properties, at(NOW)).approximate
    }

    fn with_header(value: AMQPValue) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(TIMESTAMP_IN_MS.into(), value);
        BasicProperties::default().with_headers(headers)
    }

    #[test]
    fn time_in_the_header_takes_precedence_over_the_property() {
        let properties =
            with_header(AMQPValue::LongLongInt(NOW - 1_250)).with_timestamp(1_799_999_000);
        assert_eq!(exact(&properties), Some(at(NOW - 1_250)));
        assert_eq!(approximate(&properties), Some(at(NOW - 1_250)));
        let property = BasicProperties::default().with_timestamp(1_799_999_990);
        assert_eq!(exact(&property), None);
        assert_eq!(approximate(&property), Some(at(NOW - 10_000)));
    }

    #[test]
    fn implausible_or_absent_time_is_ignored() {
        for properties in [
            BasicProperties::default(),
            BasicProperties::default().with_timestamp(0),
            BasicProperties::default().with_timestamp(u64::MAX),
            with_header(AMQPValue::LongLongInt(0)),
            with_header(AMQPValue::LongLongInt(i64::MIN)),
            with_header(AMQPValue::LongString("1800000000000".into())),
        ] {
            assert_eq!(approximate(&properties), None, "{properties:?}");
        }
    }
}
