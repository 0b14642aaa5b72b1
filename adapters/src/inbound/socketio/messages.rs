use std::sync::Arc;

use belfry_application::access::Action;
use belfry_application::ports::{BearerToken, ListFilter};
use belfry_application::session::Session;
use belfry_application::use_cases::Refusal;
use belfry_domain::{InboxState, Kind, NotificationId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::Failure;
use super::door::Door;
use super::handshake::seen;
use crate::outbound::socketio::SocketIoDevice;
use crate::wire::{Cursor, PageForm, Rfc3339, SyncForm, TextOrNumber};

/// What a device can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    MarkRead,
    MarkAllRead,
    CountUnread,
    Delete,
    List,
    Sync,
    Refresh,
}

impl Message {
    fn named(event: &str) -> Option<Self> {
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

    /// What its token must allow.
    const fn action(self) -> Action {
        match self {
            Self::MarkRead | Self::MarkAllRead | Self::Delete => Action::ChangeInbox,
            Self::CountUnread | Self::List | Self::Sync | Self::Refresh => Action::ReadInbox,
        }
    }
}

/// Does what a device's message asks for, once the guard lets it pass.
pub(super) async fn handle(
    door: &Door,
    session: &Arc<Session<SocketIoDevice>>,
    event: &str,
    payload: Value,
) -> Result<Value, Failure> {
    let message = Message::named(event);
    door.sessions.authorize(session, message.map_or(Action::ReadInbox, Message::action))?;
    let user = session.user();
    let stories = &door.stories;
    match message.ok_or(Failure::UnknownEvent)? {
        Message::MarkRead => Ok(position(stories.mark_read.run(user, &ids(payload)?).await?)),
        Message::MarkAllRead => Ok(position(stories.mark_all_read.run(user).await?)),
        Message::CountUnread => Ok(position(stories.count_unread.run(user).await?)),
        Message::Delete => {
            let id = one_id(payload)?;
            let state = stories.delete.run(user, &id).await?.ok_or(Failure::NotFound)?;
            Ok(position(state))
        }
        Message::List => {
            let (filter, limit) = page_asked_for(payload)?;
            let page = stories.list.run(user, &filter, limit).await?;
            Ok(json!(PageForm::from(&page)))
        }
        Message::Sync => {
            let sync = door.sessions.sync(session, seen(&payload)).await?;
            Ok(json!(SyncForm::from(&sync)))
        }
        Message::Refresh => {
            let token = payload.get("token").and_then(Value::as_str);
            let token = token.or_else(|| payload.as_str()).map_or(Ok(None), BearerToken::parse);
            let token = token.map_err(Refusal::from)?;
            let expires_at = door.sessions.refresh(session, token).await?;
            Ok(json!({ "expiresAt": Rfc3339(expires_at) }))
        }
    }
}

fn position(state: InboxState) -> Value {
    json!({ "count": state.unread.get(), "revision": state.revision.get() })
}

/// The most notifications that one message marks.
const MOST_IDS: usize = 1_000;

/// `{id}`, `{notificationId}`, `{ids}`, a bare id or a list of them: what clients in the field send.
pub(super) fn ids(payload: Value) -> Result<Vec<NotificationId>, Failure> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Which {
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
    let which = serde_json::from_value(payload).map_err(|_| {
        Failure::Invalid("expected {id}, {notificationId}, {ids} or a bare id".to_owned())
    })?;
    let raw = match which {
        Which::Id { id: one }
        | Which::NotificationId { notification_id: one }
        | Which::Bare(one) => {
            vec![one]
        }
        Which::Ids { ids: many } | Which::BareList(many) => many,
    };
    if raw.len() > MOST_IDS {
        return Err(Failure::Invalid(format!("at most {MOST_IDS} ids at once")));
    }
    raw.iter()
        .map(|raw| NotificationId::parse(&raw.to_string()))
        .collect::<Result<_, _>>()
        .map_err(|problem| Failure::Invalid(problem.to_string()))
}

pub(super) fn one_id(payload: Value) -> Result<NotificationId, Failure> {
    let mut ids = ids(payload)?;
    match (ids.pop(), ids.is_empty()) {
        (Some(id), true) => Ok(id),
        _ => Err(Failure::Invalid("expected exactly one id".to_owned())),
    }
}

const USUAL_PAGE: usize = 20;

pub(super) fn page_asked_for(payload: Value) -> Result<(ListFilter, usize), Failure> {
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
            Failure::Invalid(format!("expected {{cursor?, limit?, unread?, type?}}: {problem}"))
        })?,
    };
    let invalid = |problem: &dyn std::fmt::Display| Failure::Invalid(problem.to_string());
    let before = page.cursor.as_deref().map(Cursor::parse).transpose();
    let filter = ListFilter {
        before: before.map_err(|problem| invalid(&problem))?.map(|cursor| cursor.0),
        unread: page.unread,
        kind: page
            .kind
            .as_deref()
            .map(Kind::parse)
            .transpose()
            .map_err(|problem| invalid(&problem))?,
    };
    Ok((filter, page.limit.unwrap_or(USUAL_PAGE)))
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
        assert!(read(json!(vec![1; MOST_IDS + 1])).unwrap_err().contains("at most"));
    }

    #[test]
    fn a_page_may_be_asked_for_without_saying_anything() {
        let (filter, limit) = page_asked_for(Value::Null).unwrap();
        assert_eq!((filter, limit), (ListFilter::default(), USUAL_PAGE));
        let (filter, limit) = page_asked_for(json!({ "limit": 5, "unread": true })).unwrap();
        assert_eq!((filter.unread, limit), (Some(true), 5));
        for payload in
            [json!({ "cursor": "%" }), json!({ "limit": -1 }), json!("x"), json!({"type": ""})]
        {
            assert!(page_asked_for(payload.clone()).is_err(), "{payload}");
        }
    }
}
