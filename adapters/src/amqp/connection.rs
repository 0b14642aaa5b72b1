use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::Connection;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::{AmqpSettings, Link, Pauses, measures, transport};

/// How long a farewell to the broker may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a connection is kept for.
pub(crate) trait Role: Send + Sync {
    /// Names it in logs, metrics and RabbitMQ's list of connections.
    const NAME: &'static str;

    /// Declares what it needs, calls `up` once it is at work, and works on that connection: until told
    /// to stop, then what is in flight is finished and the answer is `Ok`, or until anything is lost.
    fn serve(
        &self,
        link: &Arc<Link>,
        up: &Up,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<(), Lost>> + Send;
}

/// Why a role can no longer work on its connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
    #[error("the broker did not answer within {0:?}")]
    NoAnswer(Duration),
    #[error("the queue {0} was deleted, or moved to another node of the broker")]
    ConsumerCancelled(String),
    #[error(
        "the queue {0} is consumed by somebody else: is there another process with this node name?"
    )]
    Taken(String),
    #[error("the connection was closed")]
    Closed,
}

/// Tells that a role is at work.
pub(crate) struct Up {
    role: &'static str,
    since: Option<Instant>,
    told: AtomicBool,
}

impl Up {
    pub(crate) fn now(&self) {
        self.told.store(true, Ordering::Relaxed);
        metrics::gauge!(measures::UP, "role" => self.role).set(1.0);
        if let Some(since) = self.since {
            info!(role = self.role, after = ?since.elapsed(), "back at RabbitMQ");
        } else {
            info!(role = self.role, "at work with RabbitMQ");
        }
    }
}

/// A connection for one errand, that is not made again when it is lost. It ends when it is dropped.
pub(crate) struct Errand {
    link: Link,
    _ends_with_it: DropGuard,
}

impl Errand {
    /// Connects once. `name` tells the connection from others in RabbitMQ's list of them.
    pub(crate) async fn begin(settings: &AmqpSettings, name: &str) -> Result<Self, Lost> {
        let lifeline = CancellationToken::new();
        let ends_with_it = lifeline.clone().drop_guard();
        let connecting = transport::connect(settings.uri(), settings.properties(name), lifeline);
        let connected = timeout(settings.connect_timeout, connecting).await;
        let link = connected.map_err(|_| Lost::NoAnswer(settings.connect_timeout))??;
        Ok(Self { link, _ends_with_it: ends_with_it })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.link
    }

    /// Lets the last acknowledgements out.
    pub(crate) async fn end(self) {
        let _ = timeout(FAREWELL, self.link.close(200, "done".into())).await;
    }
}

/// Keeps a role at work until told to stop. A loss is a pause, never the end.
pub(crate) async fn keep<R: Role>(role: &R, settings: &AmqpSettings, stop: &CancellationToken) {
    let mut pauses = Pauses::between(settings.shortest_pause, settings.longest_pause);
    let mut outage = None;
    metrics::gauge!(measures::UP, "role" => R::NAME).set(0.0);
    while !stop.is_cancelled() {
        let up = Up { role: R::NAME, since: outage, told: AtomicBool::new(false) };
        let begun = Instant::now();
        let end = connect_and_serve(role, settings, &up, stop).await;
        metrics::gauge!(measures::UP, "role" => R::NAME).set(0.0);
        let Err(error) = end else { return };

        if up.told.into_inner() {
            outage = None;
            // What comes up only to fall again at once is no better than what never came up.
            if begun.elapsed() > settings.longest_pause {
                pauses.reset();
            }
        }
        let pause = pauses.next();
        if outage.is_none() {
            outage = Some(Instant::now());
            metrics::counter!(measures::OUTAGES, "role" => R::NAME).increment(1);
            let error = &error as &dyn Error;
            warn!(role = R::NAME, error, ?pause, "no RabbitMQ; trying until it is back");
        } else {
            debug!(role = R::NAME, error = &error as &dyn Error, ?pause, "still no RabbitMQ");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn connect_and_serve<R: Role>(
    role: &R,
    settings: &AmqpSettings,
    up: &Up,
    stop: &CancellationToken,
) -> Result<(), Lost> {
    let lifeline = CancellationToken::new();
    let _ends_with_it = lifeline.clone().drop_guard();
    let connecting = transport::connect(settings.uri(), settings.properties(R::NAME), lifeline);
    let link = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        connected = timeout(settings.connect_timeout, connecting) => {
            Arc::new(connected.map_err(|_| Lost::NoAnswer(settings.connect_timeout))??)
        }
    };
    let end = role.serve(&link, up, stop).await;
    // A connection that is dropped closes by itself; waiting lets the last acknowledgements out.
    let _ = timeout(FAREWELL, link.close(200, "done".into())).await;
    end
}
