use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use super::name::{InvalidName, Shape, parse};

/// A message that a device can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are sufficient")]
pub enum ClientMessage {
    MarkRead,
    MarkAllRead,
    CountUnread,
    Delete,
    List,
    Sync,
    Refresh,
}

impl ClientMessage {
    /// The messages that can have further names, each at the index `message as usize`.
    pub const WITH_ALIASES: [Self; 5] =
        [Self::MarkRead, Self::MarkAllRead, Self::CountUnread, Self::Delete, Self::List];

    /// The message that Belfry's clients send under this name; `None` if there is none.
    pub(super) fn named(event: &str) -> Option<Self> {
        Some(match event {
            "notification:mark_read" | "notification:read" | "markAsRead" => Self::MarkRead,
            "notification:mark_all_read" => Self::MarkAllRead,
            "notification:unread_count" => Self::CountUnread,
            "notification:delete" => Self::Delete,
            "notification:list" => Self::List,
            "notification:sync" => Self::Sync,
            "auth:refresh" => Self::Refresh,
            _ => return None,
        })
    }

    /// The setting with the further names of the message; empty if it cannot have any.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::MarkRead => "socket.messages.mark_read",
            Self::MarkAllRead => "socket.messages.mark_all_read",
            Self::CountUnread => "socket.messages.unread_count",
            Self::Delete => "socket.messages.delete",
            Self::List => "socket.messages.list",
            Self::Sync | Self::Refresh => "",
        }
    }

    /// The shapes that the acknowledgement of the message can have.
    pub(super) const fn shapes(self) -> &'static [AckShape] {
        use AckShape::{Bare, Belfry, Items, Number, Success, UnreadCount};
        match self {
            Self::List => &[Belfry, Success, Bare, Items],
            _ => &[Belfry, Success, Bare, Number, UnreadCount],
        }
    }
}

/// The shape of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckShape {
    /// `{"status": "ok", "data": …}` or `{"status": "error", "code", "message"}`
    Belfry,
    /// `{"success": true}` or `{"success": false, "code", "message"}`
    Success,
    /// The data alone. As in NestJS, a failure is sent as an `exception` event and is not acknowledged. The same
    /// applies to the shapes below.
    Bare,
    /// The unread count alone.
    Number,
    /// `{"unreadCount": 3, "revision": 17}`
    UnreadCount,
    /// The notifications of a page as an array.
    Items,
}

impl AckShape {
    /// Whether a failure is acknowledged.
    pub(crate) const fn acknowledges_failures(self) -> bool {
        matches!(self, Self::Belfry | Self::Success)
    }
}

impl Shape for AckShape {
    const NAMES: &'static [(Self, &'static str)] = &[
        (Self::Belfry, "belfry"),
        (Self::Success, "success"),
        (Self::Bare, "bare"),
        (Self::Number, "number"),
        (Self::UnreadCount, "{unreadCount}"),
        (Self::Items, "items"),
    ];
}

/// A further name of a message, and the shape of its acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageName {
    pub(super) name: Cow<'static, str>,
    pub(super) ack: AckShape,
}

impl MessageName {
    pub(super) const fn known(name: &'static str, ack: AckShape) -> Self {
        Self { name: Cow::Borrowed(name), ack }
    }
}

impl FromStr for MessageName {
    type Err = InvalidName;

    fn from_str(raw: &str) -> Result<Self, InvalidName> {
        parse(raw).map(|(name, ack)| Self { name, ack })
    }
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as {}", self.name, self.ack.setting())
    }
}

/// The meaning of a message's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageRule {
    /// The message.
    pub message: ClientMessage,
    /// The shape of its acknowledgement.
    pub ack: AckShape,
    /// The name is a configured further name, for clients of another server.
    pub is_alias: bool,
}
