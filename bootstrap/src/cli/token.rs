use std::time::Duration;

use anyhow::Context;
use belfry_adapters::outbound::jwt::TokenMint;
use belfry_adapters::outbound::system::SystemClock;
use belfry_application::ports::{Clock, Scopes};
use belfry_domain::UserId;
use clap::Args;

use super::output::print_line;
use crate::app::jwt_settings;
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// User id in the token
    #[arg(long)]
    user: String,
    /// Scopes of the token, separated by spaces; repeatable
    #[arg(long, default_value = Scopes::WRITE)]
    scope: Vec<String>,
    /// Lifetime of the token, such as 15m or 12h
    #[arg(long, default_value = "12h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

/// Signs a token with the first configured secret and prints it.
pub(super) fn run(config: &Config, args: &TokenArgs) -> anyhow::Result<()> {
    let user =
        UserId::parse_addressable(&args.user).with_context(|| format!("--user {:?}", args.user))?;
    let scopes: Vec<_> = args.scope.iter().map(String::as_str).collect();
    let mint = TokenMint::new(&jwt_settings(config)?)?;
    print_line(&mint.mint(&user, &scopes, args.ttl, SystemClock.now()))
}
