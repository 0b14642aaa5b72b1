use std::collections::HashSet;
use std::sync::Arc;

use belfry_domain::{Draft, NotificationId, Timestamp, UserId};

use super::revoke_tokens::RevokeTokens;
use crate::ports::{Clock, InboxRepository, PortError, TokenOwner};

/// Executes commands of other services. Creations share transactions, and each command has its own result.
#[derive(Clone)]
pub struct HandleCommands {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
    revoke_tokens: RevokeTokens,
}

/// A request of another service.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Create a notification.
    Create(Box<Draft>),
    /// Mark notifications as read.
    MarkRead {
        /// The owner of the inbox.
        user: UserId,
        /// The notifications.
        ids: Vec<NotificationId>,
    },
    /// Delete notifications. It is no error if some of them do not exist.
    Delete {
        /// The owner of the inbox.
        user: UserId,
        /// The notifications.
        ids: Vec<NotificationId>,
    },
    /// Revoke the user's tokens.
    RevokeTokens {
        /// The user of the tokens.
        user: UserId,
        /// Revokes tokens issued before this instant; `None` means the current time.
        issued_before: Option<Timestamp>,
    },
    /// Mark all notifications of the user as read.
    MarkAllRead {
        /// The owner of the inbox.
        user: UserId,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The store failed or rejected the command.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The inbox does not know these notifications: it has never had them, or their tombstones are gone. The
    /// other notifications are marked as read. The command may have overtaken the creation of a notification,
    /// for example if two nodes consume the two messages. A later retry then succeeds.
    #[error("{}", describe_unknown(.0))]
    UnknownIds(Vec<NotificationId>),
}

/// The message of [`CommandError::UnknownIds`]. It names at most ten ids, because there can be many.
fn describe_unknown(ids: &[NotificationId]) -> String {
    let named: Vec<_> = ids.iter().take(10).map(NotificationId::as_str).collect();
    let more = ids.len() - named.len();
    let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("unknown notification ids: {}{and_more}", named.join(", "))
}

impl Command {
    /// The user whom the command concerns.
    pub const fn user(&self) -> &UserId {
        match self {
            Self::Create(draft) => &draft.user,
            Self::MarkRead { user, .. }
            | Self::Delete { user, .. }
            | Self::MarkAllRead { user }
            | Self::RevokeTokens { user, .. } => user,
        }
    }
}

impl HandleCommands {
    /// The commands change `inboxes`; `clock` gives the time of each change.
    pub fn new(
        inboxes: Arc<dyn InboxRepository>,
        clock: Arc<dyn Clock>,
        revoke_tokens: RevokeTokens,
    ) -> Self {
        Self { inboxes, clock, revoke_tokens }
    }

    /// Runs the commands in order and returns one result per command. After a transient failure of a command,
    /// later commands of the same user fail without being tried, so that they cannot overtake it.
    ///
    /// Consecutive creations share transactions of limited size. If the store rejects a transaction, each of
    /// its creations runs alone, so that an invalid one does not fail the others. If a transaction fails for
    /// another reason, the creations after it fail without being tried, up to the next command of another kind.
    /// That command and the creations after it are tried.
    pub async fn run<C>(&self, commands: C) -> Vec<Result<(), CommandError>>
    where
        C: IntoIterator<Item = Command, IntoIter: Send> + Send,
    {
        let mut run = Run {
            handler: self,
            results: Vec::new(),
            blocked: HashSet::new(),
            drafts: Vec::new(),
            text_bytes: 0,
            creation_error: None,
        };
        for command in commands {
            match command {
                Command::Create(draft) => run.add(*draft).await,
                other => {
                    run.flush_creations().await;
                    run.creation_error = None;
                    run.run_and_record(other).await;
                }
            }
        }
        run.flush_creations().await;
        run.results
    }

    async fn execute(&self, command: Command) -> Result<(), CommandError> {
        match command {
            Command::Create(draft) => {
                self.inboxes.create(vec![*draft]).await?;
            }
            Command::MarkRead { user, ids } => {
                let marked = self.inboxes.mark_read(&user, &ids, self.clock.now()).await?;
                if !marked.unknown.is_empty() {
                    return Err(CommandError::UnknownIds(marked.unknown));
                }
            }
            Command::Delete { user, ids } => {
                self.inboxes.delete(&user, &ids, self.clock.now()).await?;
            }
            Command::RevokeTokens { user, issued_before } => {
                self.revoke_tokens.run(TokenOwner::User(user), issued_before).await?;
            }
            Command::MarkAllRead { user } => {
                self.inboxes.mark_all_read(&user, self.clock.now()).await?;
            }
        }
        Ok(())
    }
}

/// The maximum number of notifications that are created in one transaction.
const MAX_DRAFTS: usize = 500;

/// The maximum size of the texts of the notifications that are created in one transaction, in bytes. A
/// notification with larger texts is created alone.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// The progress of one call of [`HandleCommands::run`].
struct Run<'a> {
    handler: &'a HandleCommands,
    /// The results so far, in the order of the commands.
    results: Vec<Result<(), CommandError>>,
    /// Users with a transient failure. Their later commands fail without being tried.
    blocked: HashSet<UserId>,
    /// The creations for the next transaction.
    drafts: Vec<Draft>,
    /// The size of the texts of `drafts` in bytes.
    text_bytes: usize,
    /// The error with which the next creations fail without being tried.
    creation_error: Option<PortError>,
}

impl Run<'_> {
    /// Adds a creation to the next transaction. If it does not fit, that transaction is executed first.
    async fn add(&mut self, draft: Draft) {
        let bytes = draft.text_bytes();
        if self.drafts.len() >= MAX_DRAFTS || self.text_bytes + bytes > MAX_TEXT_BYTES {
            self.flush_creations().await;
        }
        self.text_bytes += bytes;
        self.drafts.push(draft);
    }

    /// Executes the creations in `drafts`, in one transaction if possible.
    async fn flush_creations(&mut self) {
        let drafts = std::mem::take(&mut self.drafts);
        self.text_bytes = 0;
        if let Some(error) = self.creation_error.take() {
            for draft in drafts {
                self.record(draft.user, Err(error.clone_as_text().into()));
            }
            self.creation_error = Some(error);
            return;
        }
        if drafts.len() > 1 && !drafts.iter().any(|draft| self.blocked.contains(&draft.user)) {
            let created = self.handler.inboxes.create(drafts.clone()).await;
            if !matches!(created, Err(PortError::Rejected(_))) {
                for draft in drafts {
                    let result = created.as_ref().map(|_| ()).map_err(PortError::clone_as_text);
                    self.record(draft.user, result.map_err(CommandError::from));
                }
                self.creation_error = created.err();
                return;
            }
        }
        for draft in drafts {
            self.run_and_record(Command::Create(Box::new(draft))).await;
        }
    }

    async fn run_and_record(&mut self, command: Command) {
        let user = command.user().clone();
        let result = if self.blocked.contains(&user) {
            Err(PortError::unavailable("an earlier command of this user failed").into())
        } else {
            self.handler.execute(command).await
        };
        self.record(user, result);
    }

    /// Records a result. After a transient failure, the user's later commands fail without being tried.
    fn record(&mut self, user: UserId, result: Result<(), CommandError>) {
        if matches!(&result, Err(CommandError::Port(error)) if error.is_transient()) {
            self.blocked.insert(user);
        }
        self.results.push(result);
    }
}

#[cfg(test)]
mod tests {
    use belfry_domain::Data;
    use parking_lot::Mutex;

    use super::*;
    use crate::ports::inbox_repository::MockInboxRepository;
    use crate::revoked_tokens::RevokedTokens;
    use crate::testing::{InMemoryStore, ManualClock, a_draft, epoch, id, user};

    fn create(name: &str) -> Command {
        Command::Create(Box::new(a_draft("ada", name)))
    }

    fn handle(inboxes: Arc<dyn InboxRepository>) -> HandleCommands {
        let clock = Arc::new(ManualClock::at(1_000));
        let revocations = Arc::new(InMemoryStore::new(epoch("e1")));
        let revoked = Arc::new(RevokedTokens::empty());
        let revoke_tokens = RevokeTokens::new(revocations, revoked, clock.clone());
        HandleCommands::new(inboxes, clock, revoke_tokens)
    }

    #[tokio::test]
    async fn commands_run_in_order() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let mark = Command::MarkRead { user: user("ada"), ids: vec![id("n1")] };
        let commands = vec![create("n1"), mark, create("n2")];

        let results = handle(store.clone()).run(commands).await;

        assert!(results.iter().all(Result::is_ok));
        let state = store.state(&user("ada")).await.unwrap();
        assert_eq!((state.revision.get(), state.unread.get()), (3, 1));
    }

    #[tokio::test]
    async fn consecutive_creations_share_a_transaction() {
        let mut store = MockInboxRepository::new();
        let pair = |drafts: &Vec<Draft>| drafts.len() == 2;
        store.expect_create().withf(pair).once().returning(|_| Ok(vec![]));
        let results = handle(Arc::new(store)).run(vec![create("n1"), create("n2")]).await;
        assert!(results.len() == 2 && results.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn transactions_of_many_or_large_creations_have_a_limited_size() {
        let numbers = |range: std::ops::Range<usize>| range.map(|n| create(&format!("n{n}")));
        let large = |range| {
            let data = Data::from_valid_json(format!("\"{}\"", "x".repeat(16_000))).unwrap();
            numbers(range).map(move |command| match command {
                Command::Create(draft) => {
                    Command::Create(Box::new(Draft { data: Some(data.clone()), ..*draft }))
                }
                other => other,
            })
        };
        for (commands, sizes) in [
            (numbers(0..1_001).collect::<Vec<_>>(), &[500, 500, 1][..]),
            (large(0..100).collect(), &[65, 35]),
        ] {
            let mut store = MockInboxRepository::new();
            let calls = Arc::new(Mutex::new(Vec::new()));
            let recorded = calls.clone();
            store.expect_create().returning(move |drafts| {
                recorded.lock().push(drafts.len());
                Ok(vec![])
            });
            let results = handle(Arc::new(store)).run(commands).await;
            assert!(
                results.len() == sizes.iter().sum::<usize>() && results.iter().all(Result::is_ok)
            );
            assert_eq!(*calls.lock(), sizes);
        }
    }

    #[tokio::test]
    async fn creations_are_not_tried_after_an_outage_until_another_kind_of_command() {
        let mut store = MockInboxRepository::new();
        store.expect_create().times(2).returning(|_| Err(PortError::unavailable("down")));
        store.expect_mark_all_read().once().returning(|_, _| Ok(None));
        let creates = |name: &'static str| {
            (0..1_200).map(move |n| Command::Create(Box::new(a_draft(name, &format!("n{n}")))))
        };
        let mark = Command::MarkAllRead { user: user("cy") };
        let commands = creates("ada").chain([mark]).chain(creates("bob"));
        let results = handle(Arc::new(store)).run(commands).await;
        assert_eq!(results.len(), 2_401);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    }

    #[tokio::test]
    async fn rejected_single_creation_is_not_repeated() {
        let mut store = MockInboxRepository::new();
        store.expect_create().once().returning(|_| Err(PortError::rejected("bad")));
        let results = handle(Arc::new(store)).run(vec![create("n1")]).await;
        let [Err(CommandError::Port(PortError::Rejected(_)))] = &results[..] else {
            panic!("{results:?}")
        };
    }

    #[tokio::test]
    async fn rejected_creation_does_not_fail_the_others() {
        let mut store = MockInboxRepository::new();
        store.expect_create().returning(|drafts| {
            if drafts.iter().any(|draft| draft.id.as_str() == "bad") {
                Err(PortError::rejected("bad"))
            } else {
                Ok(vec![])
            }
        });
        let commands = vec![create("n1"), create("bad"), create("n2")];
        let results = handle(Arc::new(store)).run(commands).await;
        let succeeded: Vec<_> = results.iter().map(Result::is_ok).collect();
        assert_eq!(succeeded, [true, false, true]);
    }

    #[tokio::test]
    async fn outage_fails_a_batch_with_one_call() {
        let mut store = MockInboxRepository::new();
        store.expect_create().once().returning(|_| Err(PortError::unavailable("down")));
        let commands = vec![create("n1"), create("n2")];
        let results = handle(Arc::new(store)).run(commands).await;
        let is_unavailable =
            |result: &_| matches!(result, Err(CommandError::Port(PortError::Unavailable(_))));
        assert!(results.iter().all(is_unavailable));
    }

    #[tokio::test]
    async fn later_commands_of_a_user_do_not_overtake_a_failed_one() {
        let mut store = MockInboxRepository::new();
        let mut calls = 0;
        store.expect_create().times(2).returning(move |drafts| {
            calls += 1;
            if calls == 1 {
                return Err(PortError::unavailable("down for a moment"));
            }
            assert!(drafts.iter().all(|draft| draft.user == user("bob")));
            Ok(vec![])
        });
        store.expect_mark_all_read().once().returning(|_, _| Ok(None));
        let create_for_bob = Command::Create(Box::new(a_draft("bob", "n1")));
        let read_all = |name| Command::MarkAllRead { user: user(name) };
        let commands =
            vec![create("n1"), read_all("ada"), read_all("bob"), create_for_bob, create("n2")];
        let results = handle(Arc::new(store)).run(commands).await;
        let succeeded: Vec<_> = results.iter().map(Result::is_ok).collect();
        assert_eq!(succeeded, [false, false, true, true, false]);
    }

    #[tokio::test]
    async fn read_of_unknown_notification_fails_and_succeeds_later() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let handle = handle(store.clone());
        let mark = Command::MarkRead { user: user("ada"), ids: vec![id("n1"), id("n2")] };

        let results = handle.run(vec![create("n1"), mark.clone(), create("n2")]).await;
        assert!(matches!(&results[1], Err(CommandError::UnknownIds(ids)) if *ids == [id("n2")]));
        assert!(results[0].is_ok() && results[2].is_ok());
        let unread = store.state(&user("ada")).await.unwrap().unread.get();
        assert_eq!(unread, 1, "n1 is read, and n2 was created after the command");

        assert!(handle.run(vec![mark]).await[0].is_ok());
        assert_eq!(store.state(&user("ada")).await.unwrap().unread.get(), 0);
    }

    #[test]
    fn error_names_at_most_ten_unknown_ids() {
        let ids: Vec<_> = (1..=12).map(|n| id(&format!("n{n}"))).collect();
        let text = CommandError::UnknownIds(ids[..2].to_vec()).to_string();
        assert_eq!(text, "unknown notification ids: n1, n2");
        let text = CommandError::UnknownIds(ids).to_string();
        assert!(text.ends_with("n9, n10 and 2 more"), "{text}");
    }
}
