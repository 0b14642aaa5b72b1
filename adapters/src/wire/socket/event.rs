use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::name::{InvalidName, Shape, checked, parse};

/// Events of Belfry whose names cannot be configured.
pub(super) const FIXED: [&str; 3] = ["notification:sync", "auth:expiring", "exception"];

/// A Socket.IO event to devices. Its names and shapes can be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are sufficient")]
pub enum NamedEvent {
    New,
    UnreadCount,
    MarkedRead,
    Deleted,
}

impl NamedEvent {
    /// All events, each at the index `event as usize`.
    pub const ALL: [Self; 4] = [Self::New, Self::UnreadCount, Self::MarkedRead, Self::Deleted];

    /// Belfry's name of the event.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "notification:new",
            Self::UnreadCount => "notification:unread_count",
            Self::MarkedRead => "notification:marked_read",
            Self::Deleted => "notification:deleted",
        }
    }

    /// The setting with the names of the event.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::New => "socket.events.new",
            Self::UnreadCount => "socket.events.unread_count",
            Self::MarkedRead => "socket.events.marked_read",
            Self::Deleted => "socket.events.deleted",
        }
    }

    /// The shapes that the payload of the event can have.
    pub(super) const fn shapes(self) -> &'static [EventShape] {
        use EventShape::{Bare, Count, Data, Notification, Number, UnreadCount};
        match self {
            Self::UnreadCount => &[Count, UnreadCount, Number, Bare],
            Self::New | Self::MarkedRead | Self::Deleted => &[Bare, Notification, Data],
        }
    }
}

/// The shape of an event's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventShape {
    /// Belfry's payload. For an unread count, the same as [`Count`](Self::Count).
    Bare,
    /// `{"notification": <payload>}`
    Notification,
    /// `{"data": <payload>}`
    Data,
    /// `{"count": 3, "revision": 17}`: Belfry's payload of an unread count.
    Count,
    /// `{"unreadCount": 3, "revision": 17}`
    UnreadCount,
    /// The count alone.
    Number,
}

impl Shape for EventShape {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Bare, "bare"),
        (Self::Notification, "{notification}"),
        (Self::Data, "{data}"),
        (Self::Count, "{count}"),
        (Self::UnreadCount, "{unreadCount}"),
        (Self::Number, "number"),
    ];
}

/// A name of an event, and the shape of the payload under this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventName {
    /// The name, which needs no escaping in JSON.
    pub(crate) name: Cow<'static, str>,
    pub(crate) shape: EventShape,
}

impl EventName {
    pub(super) const fn known(name: &'static str, shape: EventShape) -> Self {
        Self { name: Cow::Borrowed(name), shape }
    }
}

impl FromStr for EventName {
    type Err = InvalidName;

    fn from_str(raw: &str) -> Result<Self, InvalidName> {
        parse(raw).map(|(name, shape)| Self { name, shape })
    }
}

/// The name of a custom event, which Belfry forwards without knowing its meaning. It is never the name of one of
/// Belfry's own events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomEventName(Arc<str>);

impl CustomEventName {
    /// The name, which needs no escaping in JSON.
    pub const fn get(&self) -> &Arc<str> {
        &self.0
    }
}

impl FromStr for CustomEventName {
    type Err = InvalidName;

    fn from_str(raw: &str) -> Result<Self, InvalidName> {
        let name = checked(raw)?;
        let is_own = NamedEvent::ALL.iter().any(|event| event.name() == name);
        if is_own || FIXED.contains(&name) {
            return Err(InvalidName::OwnEvent);
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.name, self.shape.setting())
    }
}
