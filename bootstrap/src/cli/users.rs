//! `belfry users`: operations on users.

use anyhow::Context;
use belfry_application::ports::Erased;
use belfry_application::use_cases::EraseUser;
use belfry_domain::UserId;
use clap::{Args, Subcommand};

use super::output::print_line;
use crate::config::Config;
use crate::store::Store;
use crate::telemetry;

#[derive(Debug, Args)]
pub(super) struct UsersArgs {
    #[command(subcommand)]
    command: UsersCommand,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// Erase a user: the inbox, events that are not published yet, and idempotency keys. Asks nothing and cannot
    /// be undone. With SQLite, the server must not run; use its REST route instead
    Erase {
        /// The user's id
        #[arg(long)]
        user: String,
    },
}

/// Opens the store and runs one command.
pub(super) fn run(config: &Config, args: &UsersArgs) -> anyhow::Result<()> {
    let UsersCommand::Erase { user } = &args.command;
    let user = UserId::parse(user).with_context(|| format!("--user {user:?}"))?;
    telemetry::init_logging(&config.log)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let store = Store::open(&config.database).await?;
        let erased = erase(&store, &user).await;
        store.close().await;
        print_line(&summary(&erased?))
    })
}

async fn erase(store: &Store, user: &UserId) -> anyhow::Result<Erased> {
    // The error of the check says why the store cannot be used, such as that migrations are missing.
    let checked = store.check().await;
    checked.map_err(|not_ready| not_ready.error).context("cannot use the database")?;
    EraseUser::new(store.erasure.clone()).run(user).await.context("nothing was erased")
}

fn summary(erased: &Erased) -> String {
    if *erased == Erased::default() {
        return "there is nothing to erase".to_owned();
    }
    let Erased { notifications, idempotency_keys, events, .. } = erased;
    let count = |number: u64, noun: &str| match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    };
    format!(
        "erased {} (deleted ones included), {} and {}",
        count(*notifications, "notification"),
        count(*idempotency_keys, "idempotency key"),
        count(*events, "unpublished event"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_has_the_numbers() {
        assert_eq!(summary(&Erased::default()), "there is nothing to erase");
        let erased = Erased { inbox: true, notifications: 1, idempotency_keys: 0, events: 2 };
        let expected = "erased 1 notification (deleted ones included), 0 idempotency keys and \
             2 unpublished events";
        assert_eq!(summary(&erased), expected);
    }
}
