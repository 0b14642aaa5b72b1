//! The command line.

mod dead_letters;
mod migrate;
mod send;
mod serve;
mod token;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, DEFAULT_FILE, Layers};

/// Real-time notifications: events in from RabbitMQ or REST, inboxes in PostgreSQL or SQLite, pushes
/// out over Socket.IO.
#[derive(Debug, Parser)]
#[command(name = "belfry", version, about)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Settings {
    /// A settings file (see `belfry config`)
    #[arg(long, global = true, env = "BELFRY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any setting, by its path
    #[arg(long = "set", global = true, value_name = "PATH=VALUE", value_parser = path_and_value)]
    set: Vec<(String, String)>,
    /// The same as --set http.listen=…
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The same as --set database.url=…
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// The same as --set amqp.url=…
    #[arg(long, global = true, value_name = "URL")]
    amqp_url: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve (the default)
    Serve,
    /// Bring the database's schema up to date
    Migrate,
    /// Print a token for a user, signed with the development key or the secret that is set
    Token(token::TokenArgs),
    /// Send a notification to a running Belfry
    Send(send::SendArgs),
    /// Look at messages that Belfry could do nothing with, send them again or delete them
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Print the settings file with all defaults
    Config,
}

fn path_and_value(raw: &str) -> Result<(String, String), String> {
    raw.split_once('=')
        .map(|(path, value)| (path.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "expected PATH=VALUE, such as http.listen=127.0.0.1:0".to_owned())
}

impl Settings {
    fn load(self) -> anyhow::Result<Config> {
        let named = [
            ("http.listen", self.listen),
            ("database.url", self.database_url),
            ("amqp.url", self.amqp_url),
        ];
        let named = named.into_iter().filter_map(|(path, value)| Some((path.to_owned(), value?)));
        Ok(Layers::of_process(self.config, self.set.into_iter().chain(named).collect()).load()?)
    }
}

/// Does what the command line says. A failure is one line on standard error and exit code 1.
pub fn run() -> ExitCode {
    let Cli { settings, command } = Cli::parse();
    let done = match command.unwrap_or(Command::Serve) {
        Command::Serve => settings.load().and_then(serve::run),
        Command::Migrate => settings.load().and_then(|config| migrate::run(&config)),
        Command::Token(args) => settings.load().and_then(|config| token::run(&config, &args)),
        Command::Send(args) => settings.load().and_then(|config| send::run(&config, args)),
        Command::DeadLetters(args) => {
            settings.load().and_then(|config| dead_letters::run(&config, args))
        }
        Command::Config => say(DEFAULT_FILE.trim_end()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("belfry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A line on standard output. Whoever reads it may have gone, as `head` does; that is no failure.
fn say(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serving_is_the_default() {
        assert!(Cli::try_parse_from(["belfry"]).unwrap().command.is_none());
        assert!(Cli::try_parse_from(["belfry", "--set", "x"]).is_err());
    }
}
