use anyhow::{Context, bail};
use belfry_adapters::http_client;
use belfry_adapters::outbound::jwt::TokenMint;
use belfry_adapters::outbound::system::SystemClock;
use belfry_adapters::transport::ListenAddress;
use belfry_application::ports::{Clock, Scopes};
use belfry_domain::UserId;
use clap::Args;
use serde_json::{Value, json};

use super::output::print_line;
use crate::app::jwt_settings;
use crate::config::Config;
use crate::web::TOKEN_LIFETIME;

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// User id of a recipient; repeatable
    #[arg(long, required = true, value_name = "USER")]
    to: Vec<String>,
    /// Title of the notification
    #[arg(long)]
    title: String,
    /// Text below the title
    #[arg(long, default_value = "")]
    message: String,
    /// Notification type, such as order.shipped
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// URL or path that a click on the notification opens
    #[arg(long)]
    link: Option<String>,
    /// Priority: low, normal, high or urgent
    #[arg(long)]
    priority: Option<String>,
    /// JSON object with data for the client application
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// URL of the server with its base path [default: derived from the settings]
    #[arg(long, env = "BELFRY_URL")]
    url: Option<String>,
    /// Token with the scope notifications:write [default: signed with the configured secret or the
    /// development key]; prefer the variable, because other users can see flags
    #[arg(long, env = "BELFRY_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// Sends the notification over REST and prints the response.
pub(super) fn run(config: &Config, args: SendArgs) -> anyhow::Result<()> {
    let body = body(&args)?;
    // An empty variable counts as unset.
    let is_not_empty = |text: &String| !text.is_empty();
    let url = match (args.url.filter(is_not_empty), &config.http.listen) {
        (Some(url), _) => url,
        (None, ListenAddress::Tcp(address)) => {
            format!("{}://{address}{}", config.http.scheme(), config.http.base_path)
        }
        (None, ListenAddress::Unix(_)) => {
            bail!("http.listen is a Unix socket, which `belfry send` does not support; set --url")
        }
    };
    let token = match args.token.filter(is_not_empty) {
        Some(token) => token,
        None => sign_token(config)?,
    };
    let post = post(&url, &token, &body);
    let response =
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(post)?;
    print_line(&serde_json::to_string_pretty(&response)?)
}

/// Posts the notification and returns the body of the response. If the server rejects the request, the error has
/// the reason from that body.
async fn post(url: &str, token: &str, body: &Value) -> anyhow::Result<Value> {
    let client = http_client::builder(http_client::system_roots())?.build()?;
    let response = client
        .post(format!("{}/v1/notifications", url.trim_end_matches('/')))
        .bearer_auth(token)
        .json(body)
        .send()
        .await
        .map_err(reqwest::Error::without_url)
        .with_context(|| format!("no response from {url}"))?;
    let status = response.status();
    let body: Value = response.json().await.unwrap_or(Value::Null);
    if !status.is_success() {
        let detail = body["detail"].as_str().unwrap_or("the response has no reason");
        bail!("{status}: {detail}");
    }
    Ok(body)
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

fn sign_token(config: &Config) -> anyhow::Result<String> {
    let user = UserId::parse("belfry-send").expect("visible characters only");
    let mint = TokenMint::new(&jwt_settings(config)?)
        .context("cannot sign a token; pass one with --token or BELFRY_TOKEN")?;
    Ok(mint.mint(&user, &[Scopes::WRITE], TOKEN_LIFETIME, SystemClock.now()))
}
