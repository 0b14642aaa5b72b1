use std::str::FromStr;

use super::event::{EventName, EventShape, NamedEvent};
use super::message::{AckShape, ClientMessage, MessageName};

/// A preset of names, or a change of the shape of one event that can be combined with a preset of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Belfry's names and shapes.
    Belfry,
    /// The most common names in public NestJS gateways: `notification`, `unread_count`.
    NestjsDefault,
    /// `notification:new`, `notification:count`
    ColonCase,
    /// `new_notification`, `unread_count`
    SnakeCase,
    /// `newNotification`, `unreadCount`
    CamelCase,
    /// `new-notification`, `unread-count`
    KebabCase,
    /// `{"notification": …}` around a new notification.
    WrapNotification,
    /// `{"data": …}` around a new notification.
    WrapData,
    /// The unread count as a number.
    CountNumber,
    /// The unread count as `{"unreadCount": …}`.
    CountUnreadCount,
}

/// The text is not a [`Preset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no such preset; the presets are belfry, nestjs-default, colon-case, snake-case, camel-case, kebab-case, \
     and in addition wrap-notification, wrap-data, count-number, count-unread-count"
)]
pub struct UnknownPreset;

impl Preset {
    const NAMES: [(Self, &'static str); 10] = [
        (Self::Belfry, "belfry"),
        (Self::NestjsDefault, "nestjs-default"),
        (Self::ColonCase, "colon-case"),
        (Self::SnakeCase, "snake-case"),
        (Self::CamelCase, "camel-case"),
        (Self::KebabCase, "kebab-case"),
        (Self::WrapNotification, "wrap-notification"),
        (Self::WrapData, "wrap-data"),
        (Self::CountNumber, "count-number"),
        (Self::CountUnreadCount, "count-unread-count"),
    ];

    /// The names of the events, in the order of [`NamedEvent::ALL`]; `None` if this preset only changes a shape.
    pub(super) const fn event_names(self) -> Option<[&'static str; NamedEvent::ALL.len()]> {
        Some(match self {
            Self::Belfry => [
                NamedEvent::New.name(),
                NamedEvent::UnreadCount.name(),
                NamedEvent::MarkedRead.name(),
                NamedEvent::Deleted.name(),
            ],
            Self::NestjsDefault => {
                ["notification", "unread_count", "notification:read", "notification:deleted"]
            }
            Self::ColonCase => [
                "notification:new",
                "notification:count",
                "notification:read",
                "notification:deleted",
            ],
            Self::SnakeCase => {
                ["new_notification", "unread_count", "notification_read", "notification_deleted"]
            }
            Self::CamelCase => {
                ["newNotification", "unreadCount", "notificationRead", "notificationDeleted"]
            }
            Self::KebabCase => {
                ["new-notification", "unread-count", "notification-read", "notification-deleted"]
            }
            Self::WrapNotification
            | Self::WrapData
            | Self::CountNumber
            | Self::CountUnreadCount => return None,
        })
    }

    /// The event whose shape this preset changes, and the new shape; `None` if this is a preset of names.
    pub(super) const fn shape(self) -> Option<(NamedEvent, EventShape)> {
        match self {
            Self::WrapNotification => Some((NamedEvent::New, EventShape::Notification)),
            Self::WrapData => Some((NamedEvent::New, EventShape::Data)),
            Self::CountNumber => Some((NamedEvent::UnreadCount, EventShape::Number)),
            Self::CountUnreadCount => Some((NamedEvent::UnreadCount, EventShape::UnreadCount)),
            _ => None,
        }
    }

    /// The further names of a message. They are the same for all presets of names except
    /// [`Belfry`](Self::Belfry), which has none: clients may use the names of any preset, because no name has two
    /// meanings. `count_shape` is the shape in which an unread count is acknowledged.
    pub(super) fn message_names(message: ClientMessage, count_shape: AckShape) -> Vec<MessageName> {
        let (names, ack): (&[&'static str], _) = match message {
            ClientMessage::MarkRead => (&MARK_READ, AckShape::Success),
            ClientMessage::MarkAllRead => (&MARK_ALL_READ, AckShape::Success),
            ClientMessage::Delete => (&DELETE, AckShape::Success),
            ClientMessage::CountUnread => (&UNREAD_COUNT, count_shape),
            ClientMessage::List => (&LIST, AckShape::Bare),
            ClientMessage::Sync | ClientMessage::Refresh => (&[], AckShape::Belfry),
        };
        names.iter().map(|name| MessageName::known(name, ack)).collect()
    }
}

const MARK_READ: [&str; 9] = [
    "notification:read",
    "notification:mark-read",
    "notifications:mark-read",
    "markAsRead",
    "markRead",
    "mark_read",
    "mark_as_read",
    "mark-read",
    "mark-as-read",
];

const MARK_ALL_READ: [&str; 9] = [
    "notification:read-all",
    "notification:read_all",
    "notification:mark-all-read",
    "markAllAsRead",
    "markAllRead",
    "mark_all_read",
    "mark_all_as_read",
    "mark-all-read",
    "mark-all-as-read",
];

const UNREAD_COUNT: [&str; 4] =
    ["getUnreadCount", "get_unread_count", "get-unread-count", "notification:get-unread-count"];

const DELETE: [&str; 3] = ["deleteNotification", "delete_notification", "delete-notification"];

const LIST: [&str; 4] =
    ["getNotifications", "get_notifications", "get-notifications", "notification:get"];

impl FromStr for Preset {
    type Err = UnknownPreset;

    fn from_str(raw: &str) -> Result<Self, UnknownPreset> {
        let found = Self::NAMES.into_iter().find(|(_, name)| *name == raw);
        found.map(|(preset, _)| preset).ok_or(UnknownPreset)
    }
}

/// Belfry's shape of the event.
pub(super) const fn default_shape(event: NamedEvent) -> EventShape {
    match event {
        NamedEvent::UnreadCount => EventShape::Count,
        NamedEvent::New | NamedEvent::MarkedRead | NamedEvent::Deleted => EventShape::Bare,
    }
}

/// Belfry's name and shape of the event.
pub(super) const fn default_name(event: NamedEvent) -> EventName {
    EventName::known(event.name(), default_shape(event))
}
