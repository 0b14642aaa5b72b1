use std::borrow::Cow;
use std::iter;

use belfry_application::use_cases::Command;
use belfry_domain::{Draft, NotificationId, Timestamp, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::create::{SentNotification, missing_recipient, recipients, sent_notification};
use super::invalid_message::InvalidMessage;
use super::json_fields::JsonFields;
use super::json_object::{borrowed_form, form};
use super::message::Envelope;
use super::message_mapping::MessageMapping;
use super::pattern::Pattern;
use super::surrogates::without_lone_surrogates;
use crate::wire::{Rfc3339, TextOrNumber};

/// How many notifications one message may mark as read or delete.
const MAX_IDS: usize = 1_000;

/// A decoded message in store mode.
#[derive(Debug, Clone, PartialEq)]
pub enum StoreMessage {
    /// A change of the inbox of each of these users, of whom there is at least one.
    Change {
        /// The owners of the inboxes.
        users: Vec<UserId>,
        /// What changes for each of them.
        change: UserChange,
    },
    /// A request for the newest notifications.
    List {
        /// The owner of the inbox.
        user: UserId,
        /// The maximum number of notifications.
        limit: usize,
    },
    /// A request for the unread count.
    Count {
        /// The owner of the inbox.
        user: UserId,
    },
}

/// The change that a message makes for each of its users.
///
/// It is converted to one command for each user only when it runs. Otherwise the texts or ids of a pending
/// message to 1000 users would be in memory 1000 times.
#[derive(Debug, Clone, PartialEq)]
pub enum UserChange {
    /// Create a notification.
    Create {
        /// The notification. Its recipient is the first user, and is replaced for each further user.
        draft: Box<Draft>,
        /// Whether the notification is marked as read after it is created.
        is_read: bool,
    },
    /// Mark notifications as read.
    MarkRead(Vec<NotificationId>),
    /// Mark all notifications as read.
    MarkAllRead,
    /// Delete notifications.
    Delete(Vec<NotificationId>),
    /// Revoke tokens issued before this instant; `None` for now.
    RevokeTokens(Option<Timestamp>),
}

impl UserChange {
    fn into_command(self, user: UserId) -> Command {
        match self {
            Self::Create { draft, .. } => Command::Create(Box::new(Draft { user, ..*draft })),
            Self::MarkRead(ids) => Command::MarkRead { user, ids },
            Self::MarkAllRead => Command::MarkAllRead { user },
            Self::Delete(ids) => Command::Delete { user, ids },
            Self::RevokeTokens(issued_before) => Command::RevokeTokens { user, issued_before },
        }
    }

    /// The change for the same users that must follow this one, if there is one.
    fn follow_up(&self) -> Option<Self> {
        match self {
            Self::Create { draft, is_read: true } => Some(Self::MarkRead(vec![draft.id.clone()])),
            _ => None,
        }
    }
}

impl StoreMessage {
    /// The commands of the message, to be executed in order: one for each user, or two for each user to create a
    /// notification that is already read. A query has no commands.
    pub fn into_commands(self) -> impl Iterator<Item = Command> + Send {
        let changes = match self {
            Self::Change { users, change } => {
                let follow_up = change.follow_up().map(|follow_up| (users.clone(), follow_up));
                [Some((users, change)), follow_up]
            }
            Self::List { .. } | Self::Count { .. } => [None, None],
        };
        changes.into_iter().flatten().flat_map(|(users, change)| {
            let copies = iter::repeat_n(change, users.len());
            users.into_iter().zip(copies).map(|(user, change)| change.into_command(user))
        })
    }

    /// The number of commands of the message.
    pub(super) fn command_count(&self) -> usize {
        match self {
            Self::Change { users, change } => {
                users.len() * (1 + usize::from(change.follow_up().is_some()))
            }
            Self::List { .. } | Self::Count { .. } => 0,
        }
    }
}

/// Decodes a message in store mode.
pub(super) fn decode_message(
    envelope: &Envelope<'_>,
    mapping: &MessageMapping,
    new_id: impl FnOnce() -> NotificationId,
    now: Timestamp,
) -> Result<StoreMessage, InvalidMessage> {
    const DEFAULT_LIMIT: usize = 20;
    if !envelope.is_query() {
        let (users, change) = decode_change(envelope, mapping, new_id, now)?;
        return Ok(StoreMessage::Change { users, change });
    }
    let mut fields: JsonFields<'_> = borrowed_form(envelope.data)?;
    let users = recipients(&mut fields, mapping)?.ok_or_else(missing_recipient)?;
    // A query reads one inbox only.
    let user = users[0].clone();
    if envelope.pattern == Pattern::UnreadCount {
        return Ok(StoreMessage::Count { user });
    }
    // Each field with its values for the first page. Services number pages from 0 or from 1.
    let first_page: [(_, &[&str]); 3] =
        [("page", &["0", "1"]), ("offset", &["0"]), ("skip", &["0"])];
    for (name, values) in first_page {
        let number = fields.take_named(&[name], Some);
        if number.is_some_and(|number| !values.contains(&number.get())) {
            return Err(InvalidMessage::field(name, "is not supported beyond the first page"));
        }
    }
    let limit = fields
        .take_named(&["limit", "pageSize", "take"], |json| serde_json::from_str(json.get()).ok());
    Ok(StoreMessage::List { user, limit: limit.unwrap_or(DEFAULT_LIMIT) })
}

/// Decodes a change and its users, of whom there is at least one.
fn decode_change(
    envelope: &Envelope<'_>,
    mapping: &MessageMapping,
    new_id: impl FnOnce() -> NotificationId,
    now: Timestamp,
) -> Result<(Vec<UserId>, UserChange), InvalidMessage> {
    let repaired = without_lone_surrogates(envelope.data.get());
    let data: &RawValue = match &repaired {
        Cow::Borrowed(_) => envelope.data,
        Cow::Owned(json) => {
            serde_json::from_str(json).map_err(|error| InvalidMessage::field("data", error))?
        }
    };
    match envelope.pattern {
        Pattern::Create => {
            let message_id = envelope.message_id.as_ref();
            let SentNotification { draft, recipients, is_read } =
                sent_notification(data, mapping, message_id, new_id, now)?;
            Ok((recipients, UserChange::Create { draft: Box::new(draft), is_read }))
        }
        Pattern::MarkRead => {
            let (users, selection) = selection(data, mapping)?;
            let change = match selection {
                Selection::All => UserChange::MarkAllRead,
                Selection::Ids(ids) => UserChange::MarkRead(ids),
            };
            Ok((users, change))
        }
        Pattern::MarkAllRead => {
            let mut fields: JsonFields<'_> = borrowed_form(data)?;
            let users = recipients(&mut fields, mapping)?;
            let users = users.ok_or_else(missing_recipient)?;
            Ok((users, UserChange::MarkAllRead))
        }
        Pattern::Delete => {
            let (users, Selection::Ids(ids)) = selection(data, mapping)? else {
                return Err(InvalidMessage::field("ids", "is missing; id is accepted instead"));
            };
            Ok((users, UserChange::Delete(ids)))
        }
        Pattern::RevokeTokens => {
            let (user, issued_before) = revocation(data)?;
            Ok((vec![user], UserChange::RevokeTokens(issued_before)))
        }
        // A message that is not a request cannot read an inbox, and custom events exist in forward mode only.
        Pattern::UnreadCount | Pattern::List | Pattern::Custom(_) => {
            Err(InvalidMessage::unknown(&envelope.name))
        }
    }
}

/// The notifications that a message concerns.
enum Selection {
    All,
    Ids(Vec<NotificationId>),
}

/// The users and the notifications of a message that marks notifications as read or deletes them. An id that
/// is null means all notifications, as in NestJS services.
fn selection(
    data: &RawValue,
    mapping: &MessageMapping,
) -> Result<(Vec<UserId>, Selection), InvalidMessage> {
    let mut fields: JsonFields<'_> = borrowed_form(data)?;
    let users = recipients(&mut fields, mapping)?.ok_or_else(missing_recipient)?;
    if fields.take_named(&["all"], |json| (json.get() == "true").then_some(())).is_some() {
        return Ok((users, Selection::All));
    }
    let lists = ["ids", "notificationIds", "notification_ids"];
    let many = fields.take_named(&lists, |json| serde_json::from_str(json.get()).ok());
    let one = |json: &RawValue| serde_json::from_str(json.get()).ok().map(|id| vec![id]);
    let ids: Option<Vec<TextOrNumber>> = many.or_else(|| fields.take_first(&mapping.id, one));
    let Some(ids) = ids else {
        if mapping.id.iter().any(|path| fields.is_null(path)) {
            return Ok((users, Selection::All));
        }
        return Err(InvalidMessage::field("ids", "is missing; id or all is accepted instead"));
    };
    if ids.is_empty() || ids.len() > MAX_IDS {
        return Err(InvalidMessage::field("ids", format!("must contain 1 to {MAX_IDS} ids")));
    }
    let ids = ids.iter().map(|raw| NotificationId::parse(&raw.to_string()));
    let ids = ids.collect::<Result<_, _>>().map_err(|error| InvalidMessage::field("ids", error))?;
    Ok((users, Selection::Ids(ids)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RevocationForm {
    user_id: Option<TextOrNumber>,
    issued_before: Option<Rfc3339>,
}

/// Decodes a revocation: the user whose tokens are revoked, and the instant before which those tokens were issued
/// (`None` means now).
pub(super) fn revocation(data: &RawValue) -> Result<(UserId, Option<Timestamp>), InvalidMessage> {
    let RevocationForm { user_id, issued_before } = form(data)?;
    let user_id = user_id.ok_or_else(|| InvalidMessage::field("userId", "is missing"))?;
    Ok((user(&user_id)?, issued_before.map(|Rfc3339(instant)| instant)))
}

/// Parses the value of a field `userId`.
pub(super) fn user(raw: &TextOrNumber) -> Result<UserId, InvalidMessage> {
    UserId::parse(&raw.to_string()).map_err(|error| InvalidMessage::field("userId", error))
}
