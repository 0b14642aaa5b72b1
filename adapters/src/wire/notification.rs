use belfry_domain::{
    Data, Link, Message, Notification, NotificationId, NotificationKind, Priority, Revision, Title,
    UserId,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use utoipa::ToSchema;

use super::Rfc3339;
use super::event::InvalidEvent;

/// A notification in JSON.
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
    #[schema(example = "u42", max_length = 128)]
    pub user_id: Cow<'a, str>,
    /// What kind of notification it is.
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
    /// An object for the application that shows it, or null.
    #[schema(value_type = Option<Object>, required = true, example = json!({ "orderId": 7 }))]
    pub data: Option<Box<RawValue>>,
    /// Where a tap on it leads, or null.
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
    /// When, or null.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub read_at: Option<Rfc3339>,
    /// When it came into being.
    #[schema(value_type = String, format = DateTime, example = "2026-11-23T08:15:30.123Z")]
    pub created_at: Rfc3339,
    /// When it loses its meaning, or null.
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub expires_at: Option<Rfc3339>,
    /// The latest change of the inbox that concerned it.
    #[schema(example = 17)]
    pub revision: u64,
}

impl<'a> From<&'a Notification> for NotificationForm<'a> {
    fn from(one: &'a Notification) -> Self {
        Self {
            id: one.id.as_str().into(),
            user_id: one.user.as_str().into(),
            kind: one.kind.as_str().into(),
            title: one.title.as_str().into(),
            message: one.message.as_str().into(),
            data: one.data.as_ref().map(raw),
            link: one.link.as_ref().map(|link| link.as_str().into()),
            priority: one.priority.as_str().into(),
            is_read: one.is_read(),
            read_at: one.read_at.map(Rfc3339),
            created_at: Rfc3339(one.created_at),
            expires_at: one.expires_at.map(Rfc3339),
            revision: one.revision.get(),
        }
    }
}

impl NotificationForm<'_> {
    /// The notification that Belfry wrote down in this form as it was created.
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
                .map(|data| Data::of_checked_syntax(Box::<str>::from(data)))
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

/// The data as JSON, which it is by its own promise. Were that broken, it would be told as null
/// rather than break the message around it.
fn raw(data: &Data) -> Box<RawValue> {
    RawValue::from_string(data.as_str().to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
