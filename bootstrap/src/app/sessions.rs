//! The sessions of connected devices, and the tasks that maintain them.

use std::sync::Arc;

use belfry_adapters::inbound::amqp::NodeQueueState;
use belfry_adapters::inbound::rest::ReadinessCheck;
use belfry_adapters::limits::UserWork;
use belfry_adapters::outbound::metrics::CatchUpHistograms;
use belfry_adapters::outbound::socketio::SocketIoSessions;
use belfry_application::session::{SessionSettings, Sessions};
use belfry_application::use_cases::{CatchUp, SignIn};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::AppContext;
use super::tasks::Task;
use crate::config::IngestMode;
use crate::store::Store;

/// The number of lagging sessions (sessions that missed an event) that catch up at the same time. Each one reads
/// from the store.
const CATCH_UP_WORKERS: usize = 4;

/// Builds the sessions and the tasks for their expiry, withdrawn keys, token revocation and catch-up.
pub(super) fn build(
    context: &AppContext,
    sign_in: SignIn,
    store: &Store,
    user_work: UserWork,
) -> (Arc<SocketIoSessions>, Vec<Task>) {
    let catch_up = match context.config.amqp.ingest.mode {
        IngestMode::Store => {
            CatchUp::new(store.inboxes.clone(), context.config.socket.catch_up_limit)
        }
        IngestMode::Forward => CatchUp::for_forward_mode(store.inboxes.clone()),
    };
    let limit = context.config.limits.session_limit();
    let settings = SessionSettings { limit, ..SessionSettings::default() };
    let (user_work, clock) = (Arc::new(user_work), context.clock.clone());
    let sessions = Sessions::new(sign_in, catch_up, user_work, clock, settings);
    let sessions = Arc::new(sessions.monitored_by(Arc::new(CatchUpHistograms::register())));
    let tasks = tasks(context, store, &sessions);
    (sessions, tasks)
}

fn tasks(context: &AppContext, store: &Store, sessions: &Arc<SocketIoSessions>) -> Vec<Task> {
    let shared = || (sessions.clone(), context.stop.clone());
    let revocations_check = context.readiness.register("revocations");
    let (expiring, stop) = shared();
    let expiry = Task::new("session expiry", async move { expiring.run_expiry(stop).await });
    let (withdrawing, stop) = shared();
    let withdrawal = async move { withdrawing.run_key_withdrawal(stop).await };
    let withdrawal = Task::new("key withdrawal", withdrawal);
    let revocation =
        Task::new("token revocation", poll_revocations(shared(), store.clone(), revocations_check));
    let catch_up = (0..CATCH_UP_WORKERS).map(|_| {
        let (lagging, stop) = shared();
        Task::new("catch-up", async move { lagging.catch_up_lagging(stop).await })
    });
    [expiry, withdrawal, revocation].into_iter().chain(catch_up).collect()
}

/// Polls the token revocations once the store is usable. `check` is down until the first successful read.
async fn poll_revocations(
    (sessions, stop): (Arc<SocketIoSessions>, CancellationToken),
    store: Store,
    check: ReadinessCheck,
) {
    let poll = sessions.poll_revocations(store.revocations.clone(), stop.clone());
    let poll = store.run_when_usable(&stop, poll);
    check.down("the token revocations are not read yet");
    let report = async {
        if stop.run_until_cancelled(sessions.revocations_loaded()).await.is_some() {
            check.up();
        }
    };
    tokio::join!(poll, report);
}

/// Builds a task that makes all sessions of this node catch up when the node queue may have lost events.
pub(super) fn catch_up_after_gaps(
    context: &AppContext,
    sessions: &Arc<SocketIoSessions>,
    node_queue: watch::Receiver<NodeQueueState>,
) -> Task {
    let watching = watch_node_queue(sessions.clone(), node_queue, context.stop.clone());
    Task::new("catch-up after gaps", watching)
}

async fn watch_node_queue(
    sessions: Arc<SocketIoSessions>,
    mut node_queue: watch::Receiver<NodeQueueState>,
    stop: CancellationToken,
) {
    while let Some(Ok(())) = stop.run_until_cancelled(node_queue.changed()).await {
        let may_have_missed = matches!(
            *node_queue.borrow_and_update(),
            NodeQueueState::Attached { missed: true, .. }
        );
        if may_have_missed {
            stop.run_until_cancelled(sessions.catch_up_all()).await;
        }
    }
}
