//! The lines that Belfry prints on standard output at start.

use belfry_adapters::outbound::jwt::TokenMint;
use belfry_adapters::transport::ListenAddress;
use belfry_application::ports::{Clock, Scopes};
use belfry_domain::UserId;

use super::context::AppContext;
use super::listening::Listeners;
use crate::config::{Config, Http, IngestMode};
use crate::web::TOKEN_LIFETIME;

/// The bound addresses and, with a development key, how to try the server. Scripts read the first two
/// lines, so their form is fixed.
pub(super) fn lines(
    context: &AppContext,
    listeners: &Listeners,
    development: Option<&TokenMint>,
) -> anyhow::Result<Vec<String>> {
    let http = &context.config.http;
    let (public, admin) = (listeners.public.address()?, listeners.admin.address()?);
    let mut lines = vec![
        format!("listening on {}", public_url(http, &public)),
        format!("admin on {}", url("http", &admin)),
    ];
    if let Some(mint) = development {
        lines.extend(development_lines(&context.config, &public, mint, &*context.clock));
    }
    Ok(lines)
}

/// The URL of the development page, if Belfry serves it, and a command that sends a notification. In forward mode
/// only a line about development mode.
fn development_lines(
    config: &Config,
    public: &ListenAddress,
    mint: &TokenMint,
    clock: &dyn Clock,
) -> Vec<String> {
    let (http, has_page) = (&config.http, config.serves_development_page());
    let scheme = http.scheme();
    // `curl -k` accepts self-signed certificates, which development machines usually have.
    let insecure = if scheme == "https" { "-k " } else { "" };
    let (curl, base) = match public {
        ListenAddress::Tcp(_) => (format!("curl {insecure}"), url(scheme, public)),
        ListenAddress::Unix(path) => (
            format!("curl {insecure}--unix-socket {} ", path.display()),
            format!("{scheme}://localhost"),
        ),
    };
    let base = format!("{base}{}", http.base_path);
    let mode = if has_page {
        "  Development mode: anybody on this machine can sign in as any user. Belfry listens on loopback only."
    } else {
        "  Development mode: `belfry token` signs tokens of any user. There is no sign-in page, because http.listen \
         is a Unix socket, proxies, TLS or origins are set in [http], or amqp.ingest.mode is \"forward\"."
    };
    if config.amqp.ingest.mode == IngestMode::Forward {
        // Notifications cannot be created by REST.
        return vec![String::new(), mode.to_owned()];
    }
    let user = UserId::parse("curl").expect("it has visible characters only");
    let token = mint.mint(&user, &[Scopes::WRITE], TOKEN_LIFETIME, clock.now());
    let invitation = if has_page {
        format!("  Open {base}/ and send a notification to that page:")
    } else {
        "  Send a notification:".to_owned()
    };
    vec![
        String::new(),
        invitation,
        String::new(),
        format!(
            "  {curl}-X POST {base}/v1/notifications -H 'content-type: application/json' \\\n    \
             -H 'authorization: Bearer {token}' \\\n    \
             -d '{{\"userId\":\"alice\",\"title\":\"Hello, Alice\",\"message\":\"It works.\"}}'"
        ),
        String::new(),
        mode.to_owned(),
    ]
}

/// The address of the public listener, with the base path. The URL of a Unix socket cannot contain a base path, so
/// the base path follows it as a word of its own.
fn public_url(http: &Http, address: &ListenAddress) -> String {
    let (url, base_path) = (url(http.scheme(), address), &http.base_path);
    match address {
        ListenAddress::Unix(_) if !base_path.is_root() => format!("{url} under {base_path}"),
        _ => format!("{url}{base_path}"),
    }
}

fn url(scheme: &str, address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => format!("{scheme}://{address}"),
        ListenAddress::Unix(_) => address.to_string(),
    }
}
