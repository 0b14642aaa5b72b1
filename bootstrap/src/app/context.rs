use std::sync::Arc;

use belfry_adapters::inbound::rest::Readiness;
use belfry_adapters::outbound::system::{SystemClock, UuidV7Ids};
use belfry_application::ports::{Clock, IdGenerator};
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// The values that all parts of the server share: settings, technical ports, readiness and the shutdown
/// signal.
pub(super) struct AppContext {
    pub(super) config: Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn IdGenerator>,
    pub(super) readiness: Readiness,
    /// Cancelled to start the shutdown. Every task then ends.
    pub(super) stop: CancellationToken,
}

impl AppContext {
    pub(super) fn new(config: Config, stop: CancellationToken) -> Self {
        Self {
            config,
            clock: Arc::new(SystemClock),
            ids: Arc::new(UuidV7Ids),
            readiness: Readiness::default(),
            stop,
        }
    }
}
