use std::sync::Arc;
use std::time::Duration;

use belfry_application::ports::Device as _;
use belfry_application::session::Session;
use belfry_application::use_cases::CatchUpPlan;
use parking_lot::Mutex;
use tokio::sync::MutexGuard;

use super::message_limiter::MessageLimiter;
use crate::limits::PerSecond;
use crate::outbound::socketio::SocketIoDevice;

/// A device in one namespace.
pub(super) struct DeviceSession {
    pub(super) session: Arc<Session<SocketIoDevice>>,
    pub(super) limiter: MessageLimiter,
    /// The plan of the catch-up that follows the connect; `None` once the catch-up has started.
    plan: Mutex<Option<Box<CatchUpPlan>>>,
    /// Held while a message with a large reply is processed, until the reply is sent.
    large_reply: tokio::sync::Mutex<()>,
}

impl DeviceSession {
    pub(super) fn new(
        session: Arc<Session<SocketIoDevice>>,
        plan: CatchUpPlan,
        message_rate: Option<PerSecond>,
    ) -> Arc<Self> {
        Arc::new(Self {
            session,
            limiter: MessageLimiter::new(message_rate),
            plan: Mutex::new(Some(Box::new(plan))),
            large_reply: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn take_plan(&self) -> Option<Box<CatchUpPlan>> {
        self.plan.lock().take()
    }

    /// Waits until the device has read everything that was sent to it and no other large reply is in progress.
    /// The caller holds the guard until the reply is sent, so that at most one large reply is queued for a device.
    pub(super) async fn large_reply_turn(&self) -> MutexGuard<'_, ()> {
        const CHECK_EVERY: Duration = Duration::from_millis(20);
        let turn = self.large_reply.lock().await;
        while self.session.device().queued() > 0 {
            tokio::time::sleep(CHECK_EVERY).await;
        }
        turn
    }
}
