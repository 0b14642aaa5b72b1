use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::maybe_done;
use futures_util::poll;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Event};
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{AmqpSettings, Link, Lost, Role, Topology, Up, keep};

/// Publishes with confirms, for whoever has something to publish. All share one connection, and none
/// that consumes: the broker may stop those that publish.
#[derive(Clone)]
pub struct Publisher(Arc<Shared>);

struct Shared {
    settings: AmqpSettings,
    topology: Topology,
    link: RwLock<Option<Arc<Link>>>,
}

impl Publisher {
    /// How often a silent connection is looked at.
    const ROUND: Duration = Duration::from_secs(1);

    /// A publisher to that broker. It has no connection until it is [run](Self::run).
    pub fn new(settings: AmqpSettings, topology: Topology) -> Self {
        Self(Arc::new(Shared { settings, topology, link: RwLock::default() }))
    }

    /// Keeps the connection until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        keep(self, &self.0.settings, &stop).await;
    }

    /// Whether it has a connection that the broker lets publish.
    pub fn is_ready(&self) -> bool {
        self.link().is_ok()
    }

    pub(crate) fn lane(&self, needs: Needs) -> Lane {
        Lane { publisher: self.clone(), needs, channel: Mutex::default() }
    }

    fn link(&self) -> Result<Arc<Link>, NotSent> {
        let link = self.0.link.read().clone().ok_or(NotSent::NotConnected)?;
        if link.status().blocked() {
            return Err(NotSent::Blocked);
        }
        Ok(link)
    }
}

impl Role for Publisher {
    const NAME: &'static str = "publisher";

    async fn serve(&self, link: &Arc<Link>, up: &Up, stop: &CancellationToken) -> Result<(), Lost> {
        let mut events = Box::pin(link.events_listener());
        *self.0.link.write() = Some(link.clone());
        up.now();
        let end = loop {
            if !link.status().connected() {
                break Err(Lost::Closed);
            }
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = sleep(Self::ROUND) => {}
                () = link.gone() => break Err(Lost::Closed),
                event = events.next() => match event {
                    Some(Event::Error(error)) => break Err(error.into()),
                    Some(Event::ConnectionBlocked(why)) => {
                        warn!(%why, "RabbitMQ takes no messages for now");
                    }
                    Some(Event::ConnectionUnblocked) => info!("RabbitMQ takes messages again"),
                    Some(_) => {}
                    None => break Err(Lost::Closed),
                }
            }
        };
        *self.0.link.write() = None;
        end
    }
}

/// What must exist before a lane can publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Events,
    RetryAndDead,
}

/// One publisher's own channel, so that its order is kept and its confirms are its own.
pub(crate) struct Lane {
    publisher: Publisher,
    needs: Needs,
    /// Taken out while it is used: whatever goes wrong with it, or whoever gives up waiting, leaves
    /// none behind, and the next one is opened with all that is needed declared again.
    channel: Mutex<Option<(Channel, Arc<Link>)>>,
}

/// A message to publish.
pub(crate) struct Outgoing<'a> {
    /// Empty for the default exchange.
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    /// Whether it must reach a queue.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: &'a [u8],
}

/// How far publishing came.
#[derive(Debug)]
pub(crate) struct Sent {
    /// So many, from the front, were confirmed.
    pub(crate) confirmed: usize,
    /// What stopped it there.
    pub(crate) stopped_by: Option<NotSent>,
}

/// Why the broker did not confirm a message. It may have it all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSent {
    #[error("not connected to RabbitMQ")]
    NotConnected,
    #[error("RabbitMQ takes no messages for now (a memory or disk alarm)")]
    Blocked,
    #[error("a queue refused the message (basic.nack)")]
    Nacked,
    #[error("no queue took the message")]
    Unroutable,
    #[error("RabbitMQ did not confirm within {0:?}")]
    NoConfirm(Duration),
    #[error("{0}")]
    Amqp(#[from] lapin::Error),
}

impl Lane {
    /// Publishes all of them in order, without waiting for one before the next, and then waits for
    /// the confirms.
    ///
    /// The broker names a message that no queue took only by what is in it, and lapin tells the
    /// confirms of one channel apart by their order alone: so where one of several mandatory messages
    /// found no queue, none of them counts as confirmed.
    pub(crate) async fn publish(&self, messages: &[Outgoing<'_>]) -> Sent {
        if let Err(error) = self.publisher.link() {
            return Sent { confirmed: 0, stopped_by: Some(error) };
        }
        let mut slot = self.channel.lock().await;
        let (channel, link) = match slot.take().filter(|(channel, _)| channel.status().connected())
        {
            Some(open) => open,
            None => match self.open().await {
                Ok(open) => open,
                Err(error) => return Sent { confirmed: 0, stopped_by: Some(error) },
            },
        };
        let sent = self.publish_on(&channel, &link, messages).await;
        if sent.stopped_by.is_none() {
            *slot = Some((channel, link));
        }
        sent
    }

    async fn open(&self) -> Result<(Channel, Arc<Link>), NotSent> {
        let Shared { settings, topology, .. } = &*self.publisher.0;
        let link = self.publisher.link()?;
        let opening = link.answered(async {
            match self.needs {
                Needs::Events => topology.declare_events(&link).await?,
                Needs::RetryAndDead => topology.declare_retry_and_dead(&link).await?,
            }
            let channel = link.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok(channel)
        });
        let patience = settings.confirm_timeout;
        let opened = tokio::time::timeout(patience, opening).await;
        Ok((opened.unwrap_or(Err(NotSent::NoConfirm(patience)))?, link))
    }

    async fn publish_on(&self, channel: &Channel, link: &Link, messages: &[Outgoing<'_>]) -> Sent {
        let patience = self.publisher.0.settings.confirm_timeout;
        let deadline = Instant::now() + patience;
        let mut in_line = Vec::with_capacity(messages.len());
        for message in messages {
            let mut publishing = Box::pin(maybe_done(publish_one(channel, message)));
            // The first poll puts it in line behind those before it.
            let _ = poll!(publishing.as_mut());
            in_line.push(publishing);
        }
        let mut sent = Sent { confirmed: 0, stopped_by: None };
        for mut publishing in in_line {
            let confirm = link.answered(async {
                publishing.as_mut().await;
                let confirm = publishing.as_mut().take_output();
                verdict(&confirm.ok_or(NotSent::NotConnected)??.await?)
            });
            let confirmed = timeout_at(deadline, confirm);
            match confirmed.await.unwrap_or(Err(NotSent::NoConfirm(patience))) {
                Ok(()) => sent.confirmed += 1,
                Err(error) => {
                    if matches!(error, NotSent::Unroutable) {
                        sent.confirmed = 0;
                    }
                    sent.stopped_by = Some(error);
                    break;
                }
            }
        }
        sent
    }
}

/// Puts a message in line; what it answers is the confirm to wait for.
pub(crate) async fn publish_one(
    channel: &Channel,
    message: &Outgoing<'_>,
) -> lapin::Result<lapin::PublisherConfirm> {
    let options = BasicPublishOptions { mandatory: message.mandatory, immediate: false };
    let (exchange, key) = (message.exchange.into(), message.routing_key.into());
    channel.basic_publish(exchange, key, options, message.body, message.properties.clone()).await
}

/// Whether the broker took a message, and a queue if it had to.
pub(crate) fn verdict(confirmation: &Confirmation) -> Result<(), NotSent> {
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Err(NotSent::Unroutable),
        Confirmation::Nack(None) => Err(NotSent::Nacked),
        // Confirms are asked for on every channel that is opened here.
        Confirmation::NotRequested => Err(NotSent::NotConnected),
    }
}
