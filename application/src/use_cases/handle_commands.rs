use std::collections::HashSet;
use std::sync::Arc;

use belfry_domain::{Draft, NotificationId, Timestamp, UserId};

use super::RevokeTokens;
use crate::ports::{Clock, InboxRepository, PortError};

/// Other services say what shall happen. Many commands come at once; each gets its own answer.
#[derive(Clone)]
pub struct HandleCommands {
    inboxes: Arc<dyn InboxRepository>,
    clock: Arc<dyn Clock>,
    revoke_tokens: RevokeTokens,
}

/// What another service can ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Put this into its recipient's inbox.
    Create(Box<Draft>),
    /// The user has read these.
    MarkRead {
        /// Who.
        user: UserId,
        /// What.
        ids: Vec<NotificationId>,
    },
    /// The user's tokens hold no more if they were issued before that instant, or before now.
    RevokeTokens {
        /// Whose.
        user: UserId,
        /// That instant.
        issued_before: Option<Timestamp>,
    },
    /// The user has read everything.
    MarkAllRead {
        /// Who.
        user: UserId,
    },
}

/// Why a command is not done.
#[derive(Debug, thiserror::Error)]
pub enum NotDone {
    /// The store could not do it, or refused to.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Some of what was read is not in the inbox and never was. The rest is marked. The read may
    /// have overtaken its notification, as when two nodes take one each: then it works later.
    #[error("{}", unknown(.0))]
    Unknown(Vec<NotificationId>),
}

/// Names a few of them; there can be many.
fn unknown(ids: &[NotificationId]) -> String {
    let named: Vec<_> = ids.iter().take(10).map(NotificationId::as_str).collect();
    let more = ids.len() - named.len();
    let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("the inbox knows nothing of {}{and_more}", named.join(", "))
}

impl Command {
    /// Whom it concerns.
    pub const fn user(&self) -> &UserId {
        match self {
            Self::Create(draft) => &draft.user,
            Self::MarkRead { user, .. }
            | Self::MarkAllRead { user }
            | Self::RevokeTokens { user, .. } => user,
        }
    }
}

impl HandleCommands {
    /// Does it in that store, by that clock.
    pub fn new(
        inboxes: Arc<dyn InboxRepository>,
        clock: Arc<dyn Clock>,
        revoke_tokens: RevokeTokens,
    ) -> Self {
        Self { inboxes, clock, revoke_tokens }
    }

    /// Does all of them, in order, and answers for each; one that is not done keeps none of the
    /// others from it. Runs of creations share a transaction; if
    /// the store rejects it, each is tried alone, so that a bad one does not fail its neighbours. Where
    /// the store fails, what comes after it for the same user is not tried: it would get ahead.
    pub async fn run(&self, commands: Vec<Command>) -> Vec<Result<(), NotDone>> {
        let mut run = Run {
            handle: self,
            answers: Vec::with_capacity(commands.len()),
            waiting: HashSet::new(),
        };
        let mut drafts = Vec::new();
        for command in commands {
            match command {
                Command::Create(draft) => drafts.push(*draft),
                other => {
                    run.create(std::mem::take(&mut drafts)).await;
                    run.one(other).await;
                }
            }
        }
        run.create(drafts).await;
        run.answers
    }

    async fn one(&self, command: Command) -> Result<(), NotDone> {
        match command {
            Command::Create(draft) => {
                self.inboxes.create(vec![*draft]).await?;
            }
            Command::MarkRead { user, ids } => {
                let marked = self.inboxes.mark_read(&user, &ids, self.clock.now()).await?;
                if !marked.unknown.is_empty() {
                    return Err(NotDone::Unknown(marked.unknown));
                }
            }
            Command::RevokeTokens { user, issued_before } => {
                self.revoke_tokens.run(user, issued_before).await?;
            }
            Command::MarkAllRead { user } => {
                self.inboxes.mark_all_read(&user, self.clock.now()).await?;
            }
        }
        Ok(())
    }
}

/// Commands on their way, and what became of those before.
struct Run<'a> {
    handle: &'a HandleCommands,
    answers: Vec<Result<(), NotDone>>,
    /// Whose command could not be done for now: what comes after it must wait for it.
    waiting: HashSet<UserId>,
}

impl Run<'_> {
    async fn create(&mut self, drafts: Vec<Draft>) {
        if drafts.iter().any(|draft| self.waiting.contains(&draft.user)) || drafts.len() < 2 {
            return self.create_each(drafts).await;
        }
        match self.handle.inboxes.create(drafts.clone()).await {
            Ok(_) => self.answers.extend(drafts.iter().map(|_| Ok(()))),
            Err(PortError::Rejected(_)) => self.create_each(drafts).await,
            Err(passing) => {
                for draft in drafts {
                    self.answers.push(Err(passing.again().into()));
                    self.waiting.insert(draft.user);
                }
            }
        }
    }

    async fn create_each(&mut self, drafts: Vec<Draft>) {
        for draft in drafts {
            self.one(Command::Create(Box::new(draft))).await;
        }
    }

    async fn one(&mut self, command: Command) {
        let user = command.user().clone();
        let answer = if self.waiting.contains(&user) {
            Err(PortError::unavailable("one before it could not be done").into())
        } else {
            self.handle.one(command).await
        };
        if matches!(&answer, Err(NotDone::Port(error)) if error.is_transient()) {
            self.waiting.insert(user);
        }
        self.answers.push(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::RevokeTokens;
    use super::*;
    use crate::ports::inbox_repository::MockInboxRepository;
    use crate::testing::{InMemoryStore, ManualClock, a_draft, epoch, id, user};

    fn create(name: &str) -> Command {
        Command::Create(Box::new(a_draft("ada", name)))
    }

    fn handle(inboxes: Arc<dyn InboxRepository>) -> HandleCommands {
        let clock = Arc::new(ManualClock::at(1_000));
        let revocations = Arc::new(InMemoryStore::new(epoch("e1")));
        HandleCommands::new(inboxes, clock.clone(), RevokeTokens::new(revocations, clock))
    }

    #[tokio::test]
    async fn commands_take_effect_in_their_order() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let mark = Command::MarkRead { user: user("ada"), ids: vec![id("n1")] };
        let commands = vec![create("n1"), mark, create("n2")];

        let answers = handle(store.clone()).run(commands).await;

        assert!(answers.iter().all(Result::is_ok));
        let state = store.state(&user("ada")).await.unwrap();
        assert_eq!((state.revision.get(), state.unread.get()), (3, 1));
    }

    #[tokio::test]
    async fn a_bad_one_does_not_fail_its_neighbours() {
        let mut store = MockInboxRepository::new();
        store.expect_create().returning(|drafts| {
            if drafts.iter().any(|draft| draft.id.as_str() == "bad") {
                Err(PortError::rejected("bad"))
            } else {
                Ok(vec![])
            }
        });
        let commands = vec![create("n1"), create("bad"), create("n2")];
        let answers = handle(Arc::new(store)).run(commands).await;
        let done: Vec<_> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(done, [true, false, true]);
    }

    #[tokio::test]
    async fn an_outage_is_not_probed_one_by_one() {
        let mut store = MockInboxRepository::new();
        store.expect_create().once().returning(|_| Err(PortError::unavailable("down")));
        let commands = vec![create("n1"), create("n2")];
        let answers = handle(Arc::new(store)).run(commands).await;
        let down = |one: &_| matches!(one, Err(NotDone::Port(PortError::Unavailable(_))));
        assert!(answers.iter().all(down));
    }

    #[tokio::test]
    async fn nothing_gets_ahead_of_what_could_not_be_done() {
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
        let of_bob = || Command::Create(Box::new(a_draft("bob", "n1")));
        let read_all = |name| Command::MarkAllRead { user: user(name) };
        let commands = vec![create("n1"), read_all("ada"), read_all("bob"), of_bob(), create("n2")];
        let answers = handle(Arc::new(store)).run(commands).await;
        let done: Vec<_> = answers.iter().map(Result::is_ok).collect();
        assert_eq!(done, [false, false, true, true, false]);
    }

    #[tokio::test]
    async fn a_read_before_its_notification_is_not_done_and_works_later() {
        let store = Arc::new(InMemoryStore::new(epoch("e1")));
        let handle = handle(store.clone());
        let mark = Command::MarkRead { user: user("ada"), ids: vec![id("n1"), id("n2")] };

        let answers = handle.run(vec![create("n1"), mark.clone(), create("n2")]).await;
        assert!(matches!(&answers[1], Err(NotDone::Unknown(ids)) if *ids == [id("n2")]));
        assert!(answers[0].is_ok() && answers[2].is_ok());
        assert_eq!(store.state(&user("ada")).await.unwrap().unread.get(), 1, "n1 is marked");

        assert!(handle.run(vec![mark]).await[0].is_ok());
        assert_eq!(store.state(&user("ada")).await.unwrap().unread.get(), 0);
    }

    #[test]
    fn what_is_unknown_is_named_as_far_as_there_is_room() {
        let ids: Vec<_> = (1..=12).map(|n| id(&format!("n{n}"))).collect();
        let said = NotDone::Unknown(ids[..2].to_vec()).to_string();
        assert_eq!(said, "the inbox knows nothing of n1, n2");
        let said = NotDone::Unknown(ids).to_string();
        assert!(said.ends_with("n9, n10 and 2 more"), "{said}");
    }
}
