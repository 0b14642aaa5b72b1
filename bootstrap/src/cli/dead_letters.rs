//! `belfry dead-letters`: operations on the dead-letter queue.

mod format;

use anyhow::{Context, bail};
use belfry_adapters::inbound::amqp::{DeadLetterSelection, DeadLetters, FailureReason};
use clap::{Args, Subcommand, value_parser};

use super::output::print_line;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// List messages, one per line, oldest first; the queue does not change
    List {
        /// Maximum number of messages; other consumers cannot see them while they are listed
        #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..))]
        limit: u32,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Show one message with its headers, properties and body; the queue does not change
    Show {
        /// Position in the output of `list`, or message id
        #[arg(value_name = "POSITION|MESSAGE-ID", required_unless_present = "message_id")]
        message: Option<String>,
        /// Message id, also one that looks like a position
        #[arg(long, value_name = "ID", conflicts_with = "message")]
        message_id: Option<String>,
    },
    /// Move messages back to the ingest queue; their attempts start again at zero
    Replay {
        #[command(flatten)]
        selected: SelectionArgs,
        /// Maximum number of messages, oldest first
        #[arg(long, default_value_t = u32::MAX, hide_default_value = true)]
        limit: u32,
    },
    /// Delete messages: all of them, or those with one reason
    Purge {
        /// Delete; without it the command only prints how many messages it would delete
        #[arg(long)]
        yes: bool,
        /// Only messages that were dead-lettered for this reason
        #[arg(long, value_parser = FailureReason::parse)]
        reason: Option<FailureReason>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct SelectionArgs {
    /// All messages
    #[arg(long)]
    all: bool,
    /// Only messages with this message id
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Only messages that were dead-lettered for this reason
    #[arg(long, value_parser = FailureReason::parse)]
    reason: Option<FailureReason>,
}

impl From<SelectionArgs> for DeadLetterSelection {
    fn from(args: SelectionArgs) -> Self {
        match args {
            SelectionArgs { message_id: Some(id), .. } => Self::MessageId(id),
            SelectionArgs { reason: Some(reason), .. } => Self::Reason(reason),
            SelectionArgs { .. } => Self::All,
        }
    }
}

/// Connects to the broker and runs one command.
pub(super) fn run(config: &Config, args: DeadLettersArgs) -> anyhow::Result<()> {
    // This process is not a node and has no node queue, so the node's name is not used.
    let (amqp, topology) = config
        .amqp
        .broker("none")?
        .context("there is no dead-letter queue without RabbitMQ; set amqp.url to its URL")?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(
        async {
            let dead_letters = DeadLetters::connect(amqp, topology).await?;
            let result = run_command(&dead_letters, args.command).await;
            dead_letters.close().await;
            result
        },
    )
}

async fn run_command(
    dead_letters: &DeadLetters,
    command: DeadLettersCommand,
) -> anyhow::Result<()> {
    match command {
        DeadLettersCommand::List { limit, json } => {
            let found = dead_letters.list(limit).await?;
            let lines =
                if json { found.iter().map(format::json).collect() } else { format::table(&found) };
            lines.iter().try_for_each(|line| print_line(line))
        }
        DeadLettersCommand::Show { message, message_id } => {
            let selection = select_one(message, message_id);
            let found = dead_letters.show(&selection).await?;
            print_line(&format::details(&found.context("there is no such dead letter")?))
        }
        DeadLettersCommand::Replay { selected, limit } => {
            let replayed = dead_letters.replay(&selected.into(), limit).await?;
            print_line(&format!("{} sent to the ingest queue again", format::messages(replayed)))
        }
        DeadLettersCommand::Purge { yes, reason } => {
            let selection = reason.map_or(DeadLetterSelection::All, DeadLetterSelection::Reason);
            if !yes {
                let count = dead_letters.count(&selection).await?;
                bail!("{} would be deleted; pass --yes to delete", format::messages(count));
            }
            let deleted = dead_letters.purge(&selection).await?;
            print_line(&format!("{} deleted", format::messages(deleted)))
        }
    }
}

fn select_one(message: Option<String>, message_id: Option<String>) -> DeadLetterSelection {
    let position = message.as_deref().and_then(|text| text.parse().ok());
    match position {
        Some(position) => DeadLetterSelection::Position(position),
        None => DeadLetterSelection::MessageId(message.or(message_id).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_a_position_unless_passed_as_message_id() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(select_one(text("3"), None), DeadLetterSelection::Position(3));
        assert_eq!(select_one(text("m3"), None), DeadLetterSelection::MessageId("m3".to_owned()));
        assert_eq!(select_one(None, text("3")), DeadLetterSelection::MessageId("3".to_owned()));
    }
}
