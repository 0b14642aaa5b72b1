use belfry_domain::{
    Data, Link, Message, Notification, NotificationId, NotificationKind, Priority, Revision, Title,
    UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use utoipa::ToSchema;

use super::Rfc3339;
use super::integer::unsigned;
use super::invalid_event::InvalidEvent;

/// A notification.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Notification)]
pub struct NotificationForm<'a> {
    /// Unique within the user's inbox.
    #[serde(borrow)]
    #[schema(example = "0198c9a2-4b1e-7c3d-8f00-0123456789ab", max_length = 128)]
    pub id: Cow<'a, str>,
    /// The recipient.
    #[serde(borrow)]
    #[schema(example = "u42", max_length = 255)]
    pub user_id: Cow<'a, str>,
    /// The kind of notification, for the application.
    #[serde(rename = "type", borrow)]
    #[schema(example = "order.shipped", max_length = 100)]
    pub kind: Cow<'a, str>,
    /// The headline.
    #[serde(borrow)]
    #[schema(example = "Your order is on its way", max_length = 200)]
    pub title: Cow<'a, str>,
    /// The text; may be empty.
    #[serde(borrow)]
    #[schema(example = "It left the warehouse this morning.", max_length = 4000)]
    pub message: Cow<'a, str>,
    /// An object for the application, or null.
    #[schema(value_type = Option<Object>, required = true, example = json!({ "orderId": 7 }))]
    pub data: Option<Box<RawValue>>,
    /// Target of a tap on the notification, or null.
    #[serde(borrow)]
    #[schema(required = true, example = "/orders/7", max_length = 2000)]
    pub link: Option<Cow<'a, str>>,
    /// `low`, `normal`, `high` or `urgent`.
    #[serde(borrow)]
    #[schema(example = "normal", pattern = "^(low|normal|high|urgent)$")]
    pub priority: Cow<'a, str>,
    /// Whether the user has read it.
    #[schema(example = false)]
    pub is_read: bool,
    /// When the user read it, or null.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub read_at: Option<Rfc3339>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime, example = "2026-11-23T08:15:30.123Z")]
    pub created_at: Rfc3339,
    /// When it expires, or null.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub expires_at: Option<Rfc3339>,
    /// The inbox's revision of the notification's latest change.
    #[serde(deserialize_with = "unsigned")]
    #[schema(example = 17)]
    pub revision: u64,
}

impl<'a> From<&'a Notification> for NotificationForm<'a> {
    fn from(notification: &'a Notification) -> Self {
        Self {
            id: notification.id.as_str().into(),
            user_id: notification.user.as_str().into(),
            kind: notification.kind.as_str().into(),
            title: notification.title.as_str().into(),
            message: notification.message.as_str().into(),
            data: notification.data.as_ref().map(raw),
            link: notification.link.as_ref().map(|link| link.as_str().into()),
            priority: notification.priority.as_str().into(),
            is_read: notification.is_read(),
            read_at: notification.read_at.map(Rfc3339),
            created_at: Rfc3339(notification.created_at),
            expires_at: notification.expires_at.map(Rfc3339),
            revision: notification.revision.get(),
        }
    }
}

impl NotificationForm<'_> {
    /// Reads the form of a notification that was just created: its revision is also its `created_revision`.
    pub(super) fn read_as_created(self) -> Result<Notification, InvalidEvent> {
        let revision = Revision::new(self.revision);
        Ok(Notification {
            id: NotificationId::parse(&self.id)?,
            user: UserId::parse(&self.user_id)?,
            kind: NotificationKind::parse(&self.kind)?,
            title: Title::parse(&self.title)?,
            message: Message::parse(&self.message)?,
            data: self
                .data
                .map(|data| Data::from_valid_json(Box::<str>::from(data)))
                .transpose()?,
            link: self.link.map(|link| Link::parse(&link)).transpose()?,
            priority: self.priority.parse::<Priority>()?,
            created_at: self.created_at.0,
            expires_at: self.expires_at.map(|at| at.0),
            read_at: self.read_at.map(|at| at.0),
            created_revision: revision,
            revision,
        })
    }
}

/// The data as JSON. `Data` guarantees valid JSON; should it be invalid nevertheless, null replaces it so
/// that the message around it stays valid.
fn raw(data: &Data) -> Box<RawValue> {
    RawValue::from_string(data.as_str().to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
