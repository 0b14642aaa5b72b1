//! Servers that are started from programs on this machine, each in a temporary folder.

use super::Kind;
use super::supervisor::Server;

mod postgres;
mod program;
mod rabbit;

/// Starts a server from the programs on this machine.
pub(super) async fn start(kind: Kind, management: bool) -> anyhow::Result<Box<dyn Server>> {
    match kind {
        Kind::Postgres => Ok(Box::new(postgres::start().await?)),
        Kind::Rabbit => Ok(Box::new(rabbit::start(management).await?)),
    }
}

/// The error when no server of this kind can be found or started.
fn nothing_found(kind: Kind, image: &str, package: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "The tests need {kind} and found none: set {}, or start a Docker engine that has or can pull \
         {image}, or install the server (on Debian: apt-get install {package}).",
        kind.url_variable()
    )
}
