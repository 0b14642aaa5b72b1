use std::fmt::Write;

use anyhow::{Context, bail};
use belfry_adapters::inbound::amqp::{DeadLetter, DeadLetterSelection, DeadLetters, FailureReason};
use clap::{Args, Subcommand, value_parser};
use serde_json::json;

use super::say;
use crate::app::broker;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One line for each, the oldest first; all stay where they are
    List {
        /// How many at most; so many are held back from others for a moment
        #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..))]
        limit: u32,
        /// A line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// One with its headers, properties and body; it stays where it is
    Show {
        /// Its position as `list` tells it, or its message id
        #[arg(value_name = "POSITION|MESSAGE-ID", required_unless_present = "message_id")]
        which: Option<String>,
        /// Its message id, also where that looks like a position
        #[arg(long, value_name = "ID", conflicts_with = "which")]
        message_id: Option<String>,
    },
    /// Send messages to the ingest queue again, with all their attempts before them
    Replay {
        #[command(flatten)]
        chosen: Chosen,
        /// How many at most, the oldest first
        #[arg(long, default_value_t = u32::MAX, hide_default_value = true)]
        limit: u32,
    },
    /// Delete messages, all if no others are named
    Purge {
        /// Do it; else it is only said how many they are
        #[arg(long)]
        yes: bool,
        /// Those that are dead for this reason
        #[arg(long, value_parser = FailureReason::parse)]
        reason: Option<FailureReason>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// Each of them
    #[arg(long)]
    all: bool,
    /// Those with this message id
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Those that are dead for this reason
    #[arg(long, value_parser = FailureReason::parse)]
    reason: Option<FailureReason>,
}

impl From<Chosen> for DeadLetterSelection {
    fn from(chosen: Chosen) -> Self {
        match chosen {
            Chosen { message_id: Some(id), .. } => Self::MessageId(id),
            Chosen { reason: Some(reason), .. } => Self::Reason(reason),
            Chosen { .. } => Self::All,
        }
    }
}

/// Looks after the dead queue.
pub(super) fn run(config: &Config, args: DeadLettersArgs) -> anyhow::Result<()> {
    let (amqp, topology) = broker(&config.amqp)?.context(
        "there are dead letters only where messages come by RabbitMQ; set amqp.url to say where it is",
    )?;
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(
        async {
            let letters = DeadLetters::connect(amqp, topology).await?;
            let done = work(&letters, args.what).await;
            letters.close().await;
            done
        },
    )
}

async fn work(letters: &DeadLetters, what: What) -> anyhow::Result<()> {
    match what {
        What::List { limit, json } => {
            let there = letters.list(limit).await?;
            if json {
                return there.iter().try_for_each(|letter| say(&json_line(letter)));
            }
            table(&there).iter().try_for_each(|line| say(line))
        }
        What::Show { which, message_id } => {
            let which = one(which, message_id);
            let letter = letters.show(&which).await?.context("there is no such dead letter")?;
            say(&whole(&letter))
        }
        What::Replay { chosen, limit } => {
            let replayed = letters.replay(&chosen.into(), limit).await?;
            say(&format!("{} sent to the ingest queue again", messages(replayed)))
        }
        What::Purge { yes, reason } => {
            let which = reason.map_or(DeadLetterSelection::All, DeadLetterSelection::Reason);
            if !yes {
                let there = letters.count(&which).await?;
                bail!("{} would be deleted; --yes does it", messages(there));
            }
            say(&format!("{} deleted", messages(letters.purge(&which).await?)))
        }
    }
}

fn one(which: Option<String>, message_id: Option<String>) -> DeadLetterSelection {
    let position = which.as_deref().and_then(|it| it.parse().ok());
    match position {
        Some(position) => DeadLetterSelection::Position(position),
        None => DeadLetterSelection::MessageId(which.or(message_id).unwrap_or_default()),
    }
}

fn messages(count: u32) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

const HEADING: [&str; 8] =
    ["#", "reason", "attempts", "first failed", "last failed", "pattern", "message id", "bytes"];

/// A heading and a line for each, in columns.
fn table(letters: &[DeadLetter]) -> Vec<String> {
    let rows: Vec<_> =
        std::iter::once(HEADING.map(str::to_owned)).chain(letters.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..HEADING.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(letter: &DeadLetter) -> [String; 8] {
    let or_dash = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), printable);
    [
        letter.position().to_string(),
        or_dash(letter.reason()),
        letter.attempts().to_string(),
        or_dash(letter.first_failed_at()),
        or_dash(letter.last_failed_at()),
        or_dash(letter.pattern()),
        or_dash(letter.message_id()),
        letter.body().len().to_string(),
    ]
}

fn json_line(letter: &DeadLetter) -> String {
    json!({
        "position": letter.position(),
        "reason": letter.reason(),
        "error": letter.error(),
        "attempts": letter.attempts(),
        "firstFailedAt": letter.first_failed_at(),
        "lastFailedAt": letter.last_failed_at(),
        "pattern": letter.pattern(),
        "messageId": letter.message_id(),
        "bytes": letter.body().len(),
    })
    .to_string()
}

fn whole(letter: &DeadLetter) -> String {
    let properties = letter.properties().into_iter().map(|(name, value)| (name.to_owned(), value));
    let mut shown = String::new();
    for (name, value) in properties.chain(letter.headers()) {
        writeln!(shown, "{}: {}", printable(&name), printable(&value))
            .expect("there is room in memory");
    }
    shown.push('\n');
    shown.push_str(&text_or_hex(letter.body()));
    shown
}

/// A sender's text must not move the cursor or break the line of whoever looks at it.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    })
}

/// Hexadecimal where it is not UTF-8, or would do something to a terminal.
fn text_or_hex(body: &[u8]) -> String {
    let harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    match std::str::from_utf8(body) {
        Ok(text) if text.chars().all(harmless) => text.to_owned(),
        _ => body.iter().fold(String::with_capacity(body.len() * 2), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("there is room in memory");
            hex
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_position_unless_it_is_called_an_id() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(one(text("3"), None), DeadLetterSelection::Position(3));
        assert_eq!(one(text("m3"), None), DeadLetterSelection::MessageId("m3".to_owned()));
        assert_eq!(one(None, text("3")), DeadLetterSelection::MessageId("3".to_owned()));
    }

    #[test]
    fn what_is_shown_does_nothing_to_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc é"), "a\\u{1b}[2Jb\\nc é");
        assert_eq!(text_or_hex(b"{\n\t\"a\": 1}"), "{\n\t\"a\": 1}");
        assert_eq!(text_or_hex(&[0xff, 0x00]), "ff00");
        assert_eq!(text_or_hex(b"\x1b[2J"), "1b5b324a");
    }
}
