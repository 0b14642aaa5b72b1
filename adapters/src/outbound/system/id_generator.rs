use belfry_application::ports::IdGenerator;
use belfry_domain::NotificationId;
use uuid::Uuid;

/// UUIDs of version 7 (RFC 9562): the current millisecond followed by 74 random bits. New rows are
/// adjacent at the end of an index.
#[derive(Debug, Clone, Copy, Default)]
pub struct UuidV7Ids;

impl IdGenerator for UuidV7Ids {
    #[expect(clippy::disallowed_methods, reason = "the implementation of the IdGenerator port")]
    fn notification_id(&self) -> NotificationId {
        let id = Uuid::now_v7().to_string();
        NotificationId::parse(&id).expect("36 visible characters are a valid id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_increasing() {
        let ids: Vec<_> = (0..100).map(|_| UuidV7Ids.notification_id()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
