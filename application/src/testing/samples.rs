use belfry_domain::{
    Draft, Epoch, Message, NotificationId, NotificationKind, Priority, Timestamp, Title, UserId,
};

use crate::ports::{Claims, KeyFingerprint, Scopes};

/// Parses a user id.
///
/// # Panics
/// If it is invalid.
pub fn user(raw: &str) -> UserId {
    UserId::parse(raw).expect("a valid user id")
}

/// Parses a notification id.
///
/// # Panics
/// If it is invalid.
pub fn id(raw: &str) -> NotificationId {
    NotificationId::parse(raw).expect("a valid id")
}

/// Parses an epoch.
///
/// # Panics
/// If it is invalid.
pub fn epoch(raw: &str) -> Epoch {
    Epoch::parse(raw).expect("a valid epoch")
}

/// The instant `millis` milliseconds after the Unix epoch.
pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

/// A draft for `recipient` with the id `name`, without optional fields.
///
/// # Panics
/// If the user id or the notification id is invalid.
pub fn a_draft(recipient: &str, name: &str) -> Draft {
    Draft {
        id: id(name),
        user: user(recipient),
        kind: NotificationKind::default(),
        title: Title::parse("Your order is on its way").expect("a valid title"),
        message: Message::default(),
        data: None,
        link: None,
        priority: Priority::Normal,
        dedupe_key: None,
        created_at: at(1_700_000_000_000),
        expires_at: None,
    }
}

/// Claims of a user without scopes that expire `expires_at` milliseconds after the Unix epoch.
pub fn claims(name: &str, expires_at: i64) -> Claims {
    Claims {
        user: user(name),
        scopes: Scopes::default(),
        issued_at: None,
        expires_at: at(expires_at),
        key: KeyFingerprint::default(),
    }
}
