use std::time::Duration;

use belfry_application::access::Action;
use belfry_application::access::AuthError;
use belfry_application::ports::{BearerToken, Device as _, ListFilter};
use belfry_domain::{InboxState, NotificationId, NotificationKind};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use super::connect_handler::{ConnectHandler, DeviceSession};
use super::credentials::resume_point;
use super::reply::MessageError;
use crate::limits::{Cost, Limit};
use crate::wire::{Cursor, PageForm, Rfc3339, SyncForm, TextOrNumber};

/// What a device can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    MarkRead,
    MarkAllRead,
    CountUnread,
    Delete,
    List,
    Sync,
    Refresh,
}

impl Message {
    /// `None` if there is no such event.
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

    /// Whether it reads many notifications for the device.
    const fn is_large(self) -> bool {
        matches!(self, Self::List | Self::Sync)
    }

    /// What the session's token must allow.
    const fn action(self) -> Action {
        match self {
            Self::MarkRead | Self::MarkAllRead | Self::Delete => Action::ChangeInbox,
            Self::CountUnread | Self::List | Self::Sync | Self::Refresh => Action::ReadInbox,
        }
    }
}

/// Does what a device's message asks for, if the session's claims allow it.
pub(super) async fn handle(
    handler: &ConnectHandler,
    device: &DeviceSession,
    message: Option<Message>,
    payload: Value,
) -> Result<Value, MessageError> {
    let ConnectHandler { sessions, use_cases, work, .. } = handler;
    let session = &device.session;
    sessions.authorize(session, message.map_or(Action::ReadInbox, Message::action))?;
    let user = session.user();
    let message = message.ok_or(MessageError::UnknownEvent)?;
    let permit = work.acquire(user, Cost::REQUEST).await.map_err(|_| {
        Limit::Work.record_exceeded();
        MessageError::TooMuchWork
    })?;
    match message {
        Message::MarkRead => {
            let ids = ids(payload)?;
            work.charge(user, Cost::of_notifications(ids.len()));
            Ok(position(use_cases.mark_read.run(user, &ids).await?))
        }
        Message::MarkAllRead => Ok(position(use_cases.mark_all_read.run(user).await?)),
        Message::CountUnread => Ok(position(use_cases.count_unread.run(user).await?)),
        Message::Delete => {
            let id = one_id(payload)?;
            let state = use_cases.delete.run(user, &id).await?.ok_or(MessageError::NotFound)?;
            Ok(position(state))
        }
        Message::List => {
            let (filter, limit) = requested_page(payload)?;
            let page = use_cases.list.run(user, &filter, limit).await?;
            work.charge(user, Cost::of_notifications(page.items.len()));
            Ok(json!(PageForm::from(&page)))
        }
        Message::Sync => {
            // A replay lasts as long as the device takes to read it, and has limits of its own.
            drop(permit);
            let sync = sessions.sync(session, resume_point(&payload)).await?;
            work.charge(user, Cost::of_notifications(sync.missed));
            Ok(json!(SyncForm::from(&sync)))
        }
        Message::Refresh => {
            let token = payload.get("token").and_then(Value::as_str);
            let token = token.or_else(|| payload.as_str()).map_or(Ok(None), BearerToken::parse);
            let token = token.map_err(AuthError::from)?;
            let expires_at = sessions.refresh(session, token).await?;
            Ok(json!({ "expiresAt": Rfc3339(expires_at) }))
        }
    }
}

/// Waits until a message may be processed, for as long as the guard is kept: until its reply is sent.
///
/// What reads many notifications waits until the device has read everything that was sent to it before, and is
/// processed alone. So a device cannot make the server hold more than one such reply.
pub(super) async fn turn(
    device: &DeviceSession,
    message: Option<Message>,
) -> Option<MutexGuard<'_, ()>> {
    const CHECK_EVERY: Duration = Duration::from_millis(20);
    if !message.is_some_and(Message::is_large) {
        return None;
    }
    let turn = device.page_turn.lock().await;
    while device.session.device().queued() > 0 {
        tokio::time::sleep(CHECK_EVERY).await;
    }
    Some(turn)
}

fn position(state: InboxState) -> Value {
    json!({ "count": state.unread.get(), "revision": state.revision.get() })
}

/// How many notifications one message may mark.
const MAX_IDS: usize = 1_000;

/// `{id}`, `{notificationId}`, `{ids}`, a bare id or a list of them: clients in the field send all of these.
pub(super) fn ids(payload: Value) -> Result<Vec<NotificationId>, MessageError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum IdsForm {
        Id {
            id: TextOrNumber,
        },
        #[serde(rename_all = "camelCase")]
        NotificationId {
            notification_id: TextOrNumber,
        },
        Ids {
            ids: Vec<TextOrNumber>,
        },
        Bare(TextOrNumber),
        BareList(Vec<TextOrNumber>),
    }
    let form = serde_json::from_value(payload).map_err(|_| {
        MessageError::Invalid("expected {id}, {notificationId}, {ids} or a bare id".to_owned())
    })?;
    let raw = match form {
        IdsForm::Id { id: one }
        | IdsForm::NotificationId { notification_id: one }
        | IdsForm::Bare(one) => {
            vec![one]
        }
        IdsForm::Ids { ids: many } | IdsForm::BareList(many) => many,
    };
    if raw.len() > MAX_IDS {
        return Err(MessageError::Invalid(format!("at most {MAX_IDS} ids at once")));
    }
    raw.iter()
        .map(|raw| NotificationId::parse(&raw.to_string()))
        .collect::<Result<_, _>>()
        .map_err(|problem| MessageError::Invalid(problem.to_string()))
}

pub(super) fn one_id(payload: Value) -> Result<NotificationId, MessageError> {
    let mut ids = ids(payload)?;
    match (ids.pop(), ids.is_empty()) {
        (Some(id), true) => Ok(id),
        _ => Err(MessageError::Invalid("expected exactly one id".to_owned())),
    }
}

const DEFAULT_PAGE_SIZE: usize = 20;

pub(super) fn requested_page(payload: Value) -> Result<(ListFilter, usize), MessageError> {
    #[derive(Default, Deserialize)]
    struct Page {
        cursor: Option<String>,
        limit: Option<usize>,
        unread: Option<bool>,
        #[serde(rename = "type")]
        kind: Option<String>,
    }
    let page = match payload {
        Value::Null => Page::default(),
        other => serde_json::from_value(other).map_err(|problem| {
            MessageError::Invalid(format!(
                "expected {{cursor?, limit?, unread?, type?}}: {problem}"
            ))
        })?,
    };
    let invalid = |problem: &dyn std::fmt::Display| MessageError::Invalid(problem.to_string());
    let before = page.cursor.as_deref().map(Cursor::parse).transpose();
    let filter = ListFilter {
        before: before.map_err(|problem| invalid(&problem))?.map(|cursor| cursor.0),
        unread: page.unread,
        kind: page
            .kind
            .as_deref()
            .map(NotificationKind::parse)
            .transpose()
            .map_err(|problem| invalid(&problem))?,
    };
    Ok((filter, page.limit.unwrap_or(DEFAULT_PAGE_SIZE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: Value) -> Result<Vec<String>, String> {
        let texts = |ids: Vec<NotificationId>| ids.iter().map(ToString::to_string).collect();
        ids(payload).map(texts).map_err(|failure| failure.to_string())
    }

    #[test]
    fn ids_come_in_every_form_that_clients_use() {
        for payload in [
            json!({ "id": "7" }),
            json!({ "id": 7 }),
            json!({ "notificationId": "7" }),
            json!({ "ids": ["7"] }),
            json!("7"),
            json!(7),
            json!(["7"]),
        ] {
            assert_eq!(read(payload.clone()), Ok(vec!["7".to_owned()]), "{payload}");
        }
    }

    #[test]
    fn what_names_no_notification_is_refused() {
        for payload in
            [json!(null), json!({}), json!({ "id": {} }), json!(true), json!({ "id": "" })]
        {
            assert!(read(payload.clone()).is_err(), "{payload}");
        }
        assert!(read(json!(vec![1; MAX_IDS + 1])).unwrap_err().contains("at most"));
    }

    #[test]
    fn a_page_may_be_asked_for_without_saying_anything() {
        let (filter, limit) = requested_page(Value::Null).unwrap();
        assert_eq!((filter, limit), (ListFilter::default(), DEFAULT_PAGE_SIZE));
        let (filter, limit) = requested_page(json!({ "limit": 5, "unread": true })).unwrap();
        assert_eq!((filter.unread, limit), (Some(true), 5));
        for payload in
            [json!({ "cursor": "%" }), json!({ "limit": -1 }), json!("x"), json!({"type": ""})]
        {
            assert!(requested_page(payload.clone()).is_err(), "{payload}");
        }
    }
}
