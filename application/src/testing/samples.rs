use belfry_domain::{
    Draft, Epoch, Kind, Message, NotificationId, Priority, Timestamp, Title, UserId,
};

use crate::ports::{Claims, Scopes};

/// A user id that is known to be valid.
///
/// # Panics
/// If it is not.
pub fn user(raw: &str) -> UserId {
    UserId::parse(raw).expect("a valid user id")
}

/// A notification id that is known to be valid.
///
/// # Panics
/// If it is not.
pub fn id(raw: &str) -> NotificationId {
    NotificationId::parse(raw).expect("a valid id")
}

/// An epoch that is known to be valid.
///
/// # Panics
/// If it is not.
pub fn epoch(raw: &str) -> Epoch {
    Epoch::parse(raw).expect("a valid epoch")
}

/// An instant, so many milliseconds after 1970 began.
pub fn at(millis: i64) -> Timestamp {
    Timestamp::from_unix_millis(millis)
}

/// A plain notification for that user.
///
/// # Panics
/// If the user or the id is not valid.
pub fn a_draft(recipient: &str, name: &str) -> Draft {
    Draft {
        id: id(name),
        user: user(recipient),
        kind: Kind::default(),
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

/// Claims of that user, without scopes, that hold until so many milliseconds after 1970 began.
pub fn claims(name: &str, expires_at: i64) -> Claims {
    Claims {
        user: user(name),
        scopes: Scopes::default(),
        issued_at: None,
        expires_at: at(expires_at),
    }
}
