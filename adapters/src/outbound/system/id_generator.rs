use belfry_application::ports::IdGenerator;
use belfry_domain::NotificationId;
use uuid::Uuid;

/// UUIDs of version 7 (RFC 9562): 74 random bits behind the millisecond of their making, so that new
/// rows stand together at the end of an index.
#[derive(Debug, Clone, Copy, Default)]
pub struct UuidV7Ids;

impl IdGenerator for UuidV7Ids {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where the IdGenerator port gets its ids from"
    )]
    fn notification_id(&self) -> NotificationId {
        let id = Uuid::now_v7().to_string();
        NotificationId::parse(&id).expect("36 visible characters are an id")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_grow() {
        let ids: Vec<_> = (0..100).map(|_| UuidV7Ids.notification_id()).collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    }
}
