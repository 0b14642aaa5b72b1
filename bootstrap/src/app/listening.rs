//! The public listener and the admin listener.

use anyhow::Context;
use axum::Router;
use belfry_adapters::transport::{ListenAddress, Listener, Server, ServerSettings, TcpSettings};
use tracing::warn;

use super::context::AppContext;
use super::tasks::Task;
use crate::config::Config;

/// Both listeners, bound but not serving yet.
pub(super) struct Listeners {
    pub(super) public: Server,
    pub(super) admin: Server,
}

impl Listeners {
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let settings = config.http.server_settings(config.limits.connection_limits())?;
        let public = bind(config.http.listen.clone(), "http.listen", settings).await?;
        let address = config.admin.listen;
        let admin = bind(address.into(), "admin.listen", ServerSettings::default()).await?;
        if !address.ip().is_loopback() {
            warn!(
                admin.listen = %address,
                "admin listener is not on loopback; it serves metrics and /debug without a token"
            );
        }
        Ok(Self { public, admin })
    }

    /// Each task accepts connections until the stop and then finishes the requests in flight.
    pub(super) fn serve(self, context: &AppContext, public: Router, admin: Router) -> [Task; 2] {
        [
            Task::new("public listener", self.public.serve(public, context.stop.clone())),
            Task::new("admin listener", self.admin.serve(admin, context.stop.clone())),
        ]
    }
}

async fn bind(
    address: ListenAddress,
    setting: &str,
    settings: ServerSettings,
) -> anyhow::Result<Server> {
    let cannot_listen = || format!("{setting}: cannot listen on {address}");
    let listener = Listener::bind(address.clone(), TcpSettings::default());
    let listener = listener.await.with_context(cannot_listen)?;
    Server::new(listener, settings).with_context(cannot_listen)
}
