use std::time::Duration;

use anyhow::Context;
use belfry_adapters::outbound::jwt::TokenMint;
use belfry_adapters::outbound::system::SystemClock;
use belfry_application::ports::{Clock, Scopes};
use belfry_domain::UserId;
use clap::Args;

use super::say;
use crate::app::jwt_settings;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// Whom the token speaks for
    #[arg(long)]
    user: String,
    /// What its bearer may do besides; several by repeating, or with spaces between
    #[arg(long, default_value = Scopes::WRITE)]
    scope: Vec<String>,
    /// How long it holds
    #[arg(long, default_value = "12h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

/// Prints a token.
pub(super) fn run(config: &Config, args: &TokenArgs) -> anyhow::Result<()> {
    let user = UserId::parse(&args.user).with_context(|| format!("--user {:?}", args.user))?;
    let scopes: Vec<_> = args.scope.iter().map(String::as_str).collect();
    let mint = TokenMint::new(&jwt_settings(&config.auth)?)?;
    say(&mint.mint(&user, &scopes, args.ttl, SystemClock.now()))
}
