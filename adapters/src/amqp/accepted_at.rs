use belfry_domain::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

/// The header of an event with the time at which Belfry accepted the change, in Unix milliseconds (the AMQP
/// property `timestamp` has only seconds). Events of earlier versions of Belfry have no such header.
///
/// For an event of the store, it is the time at which the change was written. For a forwarded event, it is
/// the time at which its message was published or, if that is unknown, received.
const ACCEPTED_AT_HEADER: &str = "x-belfry-accepted-at";

pub(crate) fn set_accepted_at(headers: &mut FieldTable, at: Timestamp) {
    headers.insert(ACCEPTED_AT_HEADER.into(), AMQPValue::LongLongInt(at.unix_millis()));
}

pub(crate) fn accepted_at(properties: &BasicProperties) -> Option<Timestamp> {
    match properties.headers().as_ref()?.inner().get(ACCEPTED_AT_HEADER)? {
        AMQPValue::LongLongInt(millis) => Some(Timestamp::from_unix_millis(*millis)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_keeps_its_milliseconds_and_is_none_without_the_header() {
        let mut headers = FieldTable::default();
        let at = Timestamp::from_unix_millis(1_795_421_730_123);
        set_accepted_at(&mut headers, at);
        let with = |headers| BasicProperties::default().with_headers(headers);
        assert_eq!(accepted_at(&with(headers)), Some(at));
        assert_eq!(accepted_at(&with(FieldTable::default())), None);
        assert_eq!(accepted_at(&BasicProperties::default()), None);
    }
}
