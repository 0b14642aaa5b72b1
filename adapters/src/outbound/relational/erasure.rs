use belfry_domain::{Change, DomainEvent, Revision, UnreadCount, UserId};
use serde_json::Value;

use super::stored_value::{InvalidStoredValue, epoch, non_negative};

/// An outbox entry without a column for its user: its id and its event.
pub(crate) type EventRow = (i64, String);

/// The ids of the events that concern the user.
pub(crate) fn events_about(user: &UserId, rows: &[EventRow]) -> Vec<i64> {
    rows.iter().filter(|(_, event)| is_about(user, event)).map(|(id, _)| *id).collect()
}

/// Whether the event is about the user. An event of an unknown form counts if it contains the user's id.
fn is_about(user: &UserId, event: &str) -> bool {
    fn contains(value: &Value, text: &str) -> bool {
        match value {
            Value::String(value) => value == text,
            Value::Array(items) => items.iter().any(|item| contains(item, text)),
            Value::Object(fields) => fields.values().any(|field| contains(field, text)),
            _ => false,
        }
    }
    match serde_json::from_str::<Value>(event) {
        Err(_) => event.contains(user.as_str()),
        Ok(event) => match event.pointer("/data/userId") {
            Some(Value::String(owner)) => owner == user.as_str(),
            _ => contains(&event, user.as_str()),
        },
    }
}

/// The event of an erasure, from the columns of `store`.
pub(crate) fn erased_event(
    user: &UserId,
    stored_epoch: &str,
    erased_revision: i64,
) -> Result<DomainEvent, InvalidStoredValue> {
    Ok(DomainEvent {
        user: user.clone(),
        revision: Revision::new(non_negative(erased_revision)?),
        unread: UnreadCount::ZERO,
        change: Change::Erased { epoch: epoch(stored_epoch)? },
    })
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::user;

    use super::*;

    #[test]
    fn event_is_about_its_user_and_of_unknown_form_about_each_user_in_it() {
        let by_ada = r#"{"pattern":"notification.created","data":{"userId":"bob","from":"ada"}}"#;
        for (event, about_ada) in [
            (r#"{"pattern":"notification.created","data":{"userId":"ada"}}"#, true),
            (by_ada, false),
            (r#"{"pattern":"x","data":{"of":["ada"]}}"#, true),
            (r#"{"pattern":"x","data":{"of":["adam"]}}"#, false),
            ("of ada", true),
            ("of bob", false),
        ] {
            let rows = [(7, event.to_owned())];
            assert_eq!(events_about(&user("ada"), &rows) == [7], about_ada, "{event}");
        }
    }
}
