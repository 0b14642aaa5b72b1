use anyhow::{Context, bail};
use belfry_adapters::outbound::jwt::TokenMint;
use belfry_adapters::outbound::system::SystemClock;
use belfry_adapters::transport::ListenAddress;
use belfry_application::ports::{Clock, Scopes};
use belfry_domain::UserId;
use clap::Args;
use serde_json::{Value, json};

use super::say;
use crate::app::jwt_settings;
use crate::config::Config;
use crate::web::TOKEN_LIFE;

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// The recipients; several by repeating
    #[arg(long, required = true, value_name = "USER")]
    to: Vec<String>,
    /// The headline
    #[arg(long)]
    title: String,
    /// The text below it
    #[arg(long, default_value = "")]
    message: String,
    /// What kind of notification it is
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Where a tap on it leads
    #[arg(long)]
    link: Option<String>,
    /// low, normal, high or urgent
    #[arg(long)]
    priority: Option<String>,
    /// An object for the application that shows it, in JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// The URL of Belfry, its base path included; taken from the settings if not given
    #[arg(long, env = "BELFRY_URL")]
    url: Option<String>,
    /// A token with the scope notifications:write; made, where Belfry can, if not given
    #[arg(long, env = "BELFRY_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Sends by REST, as any service would, and prints the answer.
pub(super) fn run(config: &Config, args: SendArgs) -> anyhow::Result<()> {
    let body = body(&args)?;
    let url = match (args.url, &config.http.listen) {
        (Some(url), _) => url,
        (None, ListenAddress::Tcp(address)) => {
            format!("{}://{address}{}", config.http.scheme(), config.http.base_path)
        }
        (None, ListenAddress::Unix(_)) => {
            bail!("http.listen is a Unix socket, which cannot be sent to from here; give --url")
        }
    };
    let token = match args.token {
        Some(token) => token,
        None => own_token(config)?,
    };
    // Whatever the status, the answer's body says what happened.
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut answer = agent
        .post(format!("{}/v1/notifications", url.trim_end_matches('/')))
        .header("authorization", format!("Bearer {token}"))
        .send_json(&body)
        .with_context(|| format!("Belfry does not answer at {url}"))?;
    let told: Value = answer.body_mut().read_json().unwrap_or(Value::Null);
    if !answer.status().is_success() {
        let detail = told["detail"].as_str().unwrap_or("no reason given").to_owned();
        bail!("{}: {detail}", answer.status());
    }
    say(&serde_json::to_string_pretty(&told)?)
}

fn body(args: &SendArgs) -> anyhow::Result<Value> {
    let data = args.data.as_deref().map(serde_json::from_str::<Value>).transpose();
    let mut body = json!({
        "title": args.title,
        "message": args.message,
        "type": args.kind,
        "link": args.link,
        "priority": args.priority,
        "data": data.context("--data is not JSON")?,
    });
    match args.to.as_slice() {
        [one] => body["userId"] = json!(one),
        many => body["userIds"] = json!(many),
    }
    Ok(body)
}

fn own_token(config: &Config) -> anyhow::Result<String> {
    let user = UserId::parse("belfry-send").expect("visible characters only");
    let mint = TokenMint::new(&jwt_settings(&config.auth)?)
        .context("no token can be made here; give one by --token or BELFRY_TOKEN")?;
    Ok(mint.mint(&user, &[Scopes::WRITE], TOKEN_LIFE, SystemClock.now()))
}
