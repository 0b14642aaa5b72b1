//! The command line.

mod check_config;
mod dead_letters;
mod migrate;
mod output;
mod send;
mod serve;
mod token;
mod users;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::output::print_line;
use crate::config::{Config, DEFAULT_FILE, Layers};

/// Real-time notifications: receives events over RabbitMQ or REST, stores inboxes in PostgreSQL or SQLite,
/// and pushes changes over Socket.IO.
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
    /// Settings file or pipe in TOML; `belfry config` prints a template
    // An `OsString`, because clap rejects an empty `PathBuf`, but an empty variable must count as unset.
    #[arg(long, global = true, env = "BELFRY_CONFIG", value_name = "FILE")]
    config: Option<OsString>,
    /// Override a setting by its path, such as http.listen=127.0.0.1:0; repeatable. Secrets are refused, because
    /// other users can see flags
    #[arg(long = "set", global = true, value_name = "PATH=VALUE", value_parser = path_and_value)]
    set: Vec<(String, String)>,
    /// Short for --set http.listen=ADDRESS
    #[arg(long, global = true, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Short for --set database.url=URL, without a password
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// Short for --set amqp.url=URL, without a password
    #[arg(long, global = true, value_name = "URL")]
    amqp_url: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default command)
    Serve,
    /// Run the database migrations and exit
    Migrate,
    /// Print a token for a user, signed with the configured secret or the development key
    Token(token::TokenArgs),
    /// Send a notification to a running server
    Send(send::SendArgs),
    /// Inspect, replay or delete the messages in the dead-letter queue
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Erase users
    Users(users::UsersArgs),
    /// Print all settings with their defaults and comments, in TOML
    Config,
    /// Check the settings and print those in use with their sources, without secrets; starts nothing
    CheckConfig,
}

fn path_and_value(raw: &str) -> Result<(String, String), String> {
    raw.split_once('=')
        .map(|(path, value)| (path.trim().to_owned(), value.to_owned()))
        .ok_or_else(|| "expected PATH=VALUE, such as http.listen=127.0.0.1:0".to_owned())
}

impl Settings {
    fn load(self) -> anyhow::Result<Config> {
        Ok(Config::load(self.layers()?)?)
    }

    fn layers(self) -> anyhow::Result<Layers> {
        let short_forms = [
            ("http.listen", self.listen),
            ("database.url", self.database_url),
            ("amqp.url", self.amqp_url),
        ];
        let short_forms =
            short_forms.into_iter().filter_map(|(path, value)| Some((path.to_owned(), value?)));
        let flags = self.set.into_iter().chain(short_forms).collect();
        let file = self.config.filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Layers::of_process(file, flags)?)
    }
}

/// Runs the command that the arguments of the process name. If it fails, prints one line on standard error and
/// returns exit code 1.
pub fn run() -> ExitCode {
    let Cli { settings, command } = Cli::parse();
    let result = match command.unwrap_or(Command::Serve) {
        Command::Serve => settings.load().and_then(serve::run),
        Command::Migrate => settings.load().and_then(|config| migrate::run(&config)),
        Command::Token(args) => settings.load().and_then(|config| token::run(&config, &args)),
        Command::Send(args) => settings.load().and_then(|config| send::run(&config, args)),
        Command::DeadLetters(args) => {
            settings.load().and_then(|config| dead_letters::run(&config, args))
        }
        Command::Users(args) => settings.load().and_then(|config| users::run(&config, &args)),
        Command::CheckConfig => settings.layers().and_then(check_config::run),
        Command::Config => print_line(DEFAULT_FILE.trim_end()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("belfry: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_defaults_to_serve() {
        assert!(Cli::try_parse_from(["belfry"]).unwrap().command.is_none());
        assert!(Cli::try_parse_from(["belfry", "--set", "x"]).is_err());
    }
}
