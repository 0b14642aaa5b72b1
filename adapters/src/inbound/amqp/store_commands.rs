use std::sync::Arc;

use belfry_application::ports::{Clock, IdGenerator, InboxRepository, ListFilter};
use belfry_application::use_cases::{CountUnread, GetNotification, HandleCommands, ListInbox};
use belfry_domain::UserId;
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use super::command::{StoreMessage, UserChange, decode_message};
use super::invalid_message::InvalidMessage;
use super::message::Envelope;
use super::message_handler::{HandlerError, MessageHandler};
use super::message_mapping::MessageMapping;
use crate::wire::{NotificationForm, PageForm};

/// The handler of store mode: commands change inboxes. If the sender of a message waits for a response, it
/// gets one.
pub struct StoreCommands {
    commands: HandleCommands,
    queries: InboxQueries,
    ids: Arc<dyn IdGenerator>,
    clock: Arc<dyn Clock>,
}

/// The use cases that read inboxes for the responses to requests.
pub struct InboxQueries {
    get: GetNotification,
    list: ListInbox,
    count: CountUnread,
}

impl InboxQueries {
    /// Reads from `inboxes`.
    pub fn new(inboxes: Arc<dyn InboxRepository>) -> Self {
        Self {
            get: GetNotification::new(inboxes.clone()),
            list: ListInbox::new(inboxes.clone()),
            count: CountUnread::new(inboxes),
        }
    }

    /// The response to a create is the notification. The response to any other change is the unread count
    /// after it. For a message with several recipients, the response is about the inbox of the first.
    async fn respond(&self, message: &StoreMessage) -> Result<Box<RawValue>, HandlerError> {
        match message {
            StoreMessage::List { user, limit } => {
                let page = self.list.run(user, &ListFilter::default(), *limit).await?;
                Ok(to_raw_json(&PageForm::from(&page)))
            }
            StoreMessage::Count { user } => {
                Ok(to_raw_json(&json!({ "count": self.count.run(user).await?.unread.get() })))
            }
            StoreMessage::Change { change: UserChange::Create { draft, .. }, .. } => {
                let notification = self.get.run(&draft.user, &draft.id).await?;
                Ok(to_raw_json(&notification.as_ref().map(NotificationForm::from)))
            }
            StoreMessage::Change { users, .. } => {
                let unread = self.count.run(&users[0]).await?.unread.get();
                Ok(to_raw_json(&json!({ "unreadCount": unread })))
            }
        }
    }
}

fn to_raw_json(response: &impl Serialize) -> Box<RawValue> {
    to_raw_value(response).expect("strings, numbers and valid JSON can always be serialized")
}

impl StoreCommands {
    /// `ids` and `clock` provide the ids and times that senders leave out. `queries` reads the data of responses.
    pub fn new(
        commands: HandleCommands,
        queries: InboxQueries,
        ids: Arc<dyn IdGenerator>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { commands, queries, ids, clock }
    }
}

impl MessageHandler for StoreCommands {
    type Command = StoreMessage;
    type OrderingKey = UserId;

    /// A message to several users keeps its order only in the inbox of the first user.
    fn ordering_key(message: &StoreMessage) -> UserId {
        match message {
            StoreMessage::Change { users, .. } => users[0].clone(),
            StoreMessage::List { user, .. } | StoreMessage::Count { user } => user.clone(),
        }
    }

    fn decode(
        &self,
        envelope: &Envelope<'_>,
        mapping: &MessageMapping,
    ) -> Result<StoreMessage, InvalidMessage> {
        decode_message(envelope, mapping, || self.ids.notification_id(), self.clock.now())
    }

    fn has_expired(&self, message: &StoreMessage) -> bool {
        let StoreMessage::Change { change: UserChange::Create { draft, .. }, .. } = message else {
            return false;
        };
        draft.expires_at.is_some_and(|end| end <= self.clock.now())
    }

    async fn respond(&self, message: &StoreMessage) -> Result<Box<RawValue>, HandlerError> {
        self.queries.respond(message).await
    }

    /// The result of a message is the first error of its commands, or `Ok`. After an error, a retry repeats
    /// all commands of the message; each has an effect only once. A query has no commands and succeeds;
    /// [`respond`](Self::respond) runs it.
    async fn run(&self, messages: Vec<StoreMessage>) -> Vec<Result<(), HandlerError>> {
        let command_counts: Vec<_> = messages.iter().map(StoreMessage::command_count).collect();
        let commands = messages.into_iter().flat_map(StoreMessage::into_commands);
        let mut results = self.commands.run(commands).await.into_iter();
        let next_result = |count| {
            let results: Vec<_> = results.by_ref().take(count).collect();
            results.into_iter().collect::<Result<(), _>>().map_err(HandlerError::from)
        };
        command_counts.into_iter().map(next_result).collect()
    }
}
