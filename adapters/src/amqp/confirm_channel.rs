use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::maybe_done;
use futures_util::poll;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, PublisherConfirm};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::broker_connection::BrokerConnection;
use super::channels::open_confirm_channel;
use super::connection_error::ConnectionError;
use super::declare::is_access_refused;
use super::missing_right::{MissingRight, Right};
use super::publish_error::PublishError;
use super::publisher_connection::PublisherConnection;

/// The topology that must be declared before a channel can publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequiredTopology {
    Events,
    Ingest,
    RetryAndDead,
    /// No topology: the reply queues belong to the senders of requests.
    Replies,
    /// The exchange for the requests of devices.
    Devices,
}

impl RequiredTopology {
    /// The name of the channel in reports of missing rights.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Ingest => "ingest queue",
            Self::RetryAndDead => "retry and dead queues",
            Self::Replies => "replies",
            Self::Devices => "devices exchange",
        }
    }
}

/// A channel with publisher confirms. Each component that publishes has its own channel, so that its messages
/// keep their order and its confirms are not mixed with those of others.
pub(crate) struct ConfirmChannel {
    connection: Arc<PublisherConnection>,
    required: RequiredTopology,
    /// The open channel and its connection. A publish takes them out, and puts them back if it succeeds. After a
    /// failed or cancelled publish, the next one opens a new channel and declares the topology again.
    open: Mutex<Option<(Channel, Arc<BrokerConnection>)>>,
}

/// A message to publish.
pub(crate) struct Publish<'a> {
    /// Empty for the default exchange.
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    /// Whether the broker returns the message if it is not routed to any queue.
    pub(crate) mandatory: bool,
    pub(crate) properties: BasicProperties,
    pub(crate) body: &'a [u8],
}

/// The result of publishing several messages.
#[derive(Debug)]
pub(crate) struct Confirmation {
    /// How many messages were confirmed, counted from the first one.
    pub(crate) confirmed: usize,
    /// Why the message after them was not confirmed. `None` if all messages were.
    pub(crate) error: Option<PublishError>,
}

impl Confirmation {
    fn none(error: PublishError) -> Self {
        Self { confirmed: 0, error: Some(error) }
    }
}

impl ConfirmChannel {
    /// The maximum number of bytes in flight: published and not confirmed yet. A larger message is in flight
    /// alone. lapin copies each body into frames, so this also limits the copies.
    const MAX_IN_FLIGHT_BYTES: usize = 4 << 20;

    pub(super) fn new(connection: Arc<PublisherConnection>, required: RequiredTopology) -> Self {
        Self { connection, required, open: Mutex::default() }
    }

    /// Publishes the messages in order, many in flight at a time, and awaits the confirms.
    ///
    /// If one of several mandatory messages is returned as unroutable, none of them counts as confirmed: the
    /// broker returns a message without its delivery tag, and lapin matches returns to confirms by their
    /// order alone.
    pub(crate) async fn publish(&self, messages: &[Publish<'_>]) -> Confirmation {
        if let Err(error) = self.connection.get() {
            return Confirmation::none(error);
        }
        let mut slot = self.open.lock().await;
        let open = slot.take().filter(|(channel, _)| channel.status().connected());
        let (channel, connection) = match open {
            Some(open) => open,
            None => match self.open().await {
                Ok(open) => open,
                Err(error) => {
                    self.report(Some(&error));
                    return Confirmation::none(error);
                }
            },
        };
        let mut confirmation = self.publish_on(&channel, &connection, messages).await;
        match confirmation.error.take() {
            None => *slot = Some((channel, connection)),
            Some(error) => {
                let message = messages.get(confirmation.confirmed);
                confirmation.error = Some(with_missing_right(error, message));
            }
        }
        self.report(confirmation.error.as_ref());
        confirmation
    }

    /// Reports whether the channel lacks a right. After a success it lacks none. An error other than a
    /// missing right does not show whether one is missing, so it changes nothing.
    fn report(&self, error: Option<&PublishError>) {
        let missing_rights = &self.connection.settings.missing_rights;
        match error {
            None => missing_rights.set(self.required.as_str(), false),
            Some(PublishError::MissingRight(_)) => {
                missing_rights.set(self.required.as_str(), true);
            }
            Some(_) => {}
        }
    }

    /// Declares the required topology and opens a channel.
    async fn open(&self) -> Result<(Channel, Arc<BrokerConnection>), PublishError> {
        let PublisherConnection { settings, topology, .. } = &*self.connection;
        let connection = self.connection.get()?;
        let opening = connection.unless_ended(async {
            match self.required {
                RequiredTopology::Events => topology.declare_events(&connection).await?,
                RequiredTopology::Ingest => topology.declare_ingest(&connection).await?,
                RequiredTopology::RetryAndDead => {
                    topology.declare_retry_and_dead(&connection).await?;
                }
                RequiredTopology::Replies => {}
                RequiredTopology::Devices => topology.declare_devices(&connection).await?,
            }
            Ok::<_, ConnectionError>(open_confirm_channel(&connection).await?)
        });
        let limit = settings.confirm_timeout;
        let opened = timeout(limit, opening).await.unwrap_or(Err(ConnectionError::Timeout(limit)));
        Ok((opened?, connection))
    }

    async fn publish_on(
        &self,
        channel: &Channel,
        connection: &BrokerConnection,
        messages: &[Publish<'_>],
    ) -> Confirmation {
        let limit = self.connection.settings.confirm_timeout;
        let mut confirmation = Confirmation { confirmed: 0, error: None };
        let mut unpublished = messages.iter().peekable();
        let mut in_flight = VecDeque::with_capacity(messages.len());
        let mut bytes_in_flight = 0;
        loop {
            while let Some(message) = unpublished.next_if(|next| {
                in_flight.is_empty()
                    || bytes_in_flight + next.body.len() <= Self::MAX_IN_FLIGHT_BYTES
            }) {
                let mut publishing = Box::pin(maybe_done(send(channel, message)));
                // The first poll queues the message behind the earlier ones.
                let _ = poll!(publishing.as_mut());
                in_flight.push_back((publishing, message.body.len()));
                bytes_in_flight += message.body.len();
            }
            let Some((mut publishing, bytes)) = in_flight.pop_front() else {
                return confirmation;
            };
            let confirm = connection.unless_ended(async {
                publishing.as_mut().await;
                let sent = publishing.as_mut().take_output();
                let confirm = sent.ok_or(PublishError::NotConnected)??;
                check(&confirm.await?)
            });
            match timeout(limit, confirm).await.unwrap_or(Err(PublishError::Timeout(limit))) {
                Ok(()) => confirmation.confirmed += 1,
                Err(error) => {
                    if matches!(error, PublishError::Unroutable) {
                        confirmation.confirmed = 0;
                    }
                    confirmation.error = Some(error);
                    return confirmation;
                }
            }
            bytes_in_flight -= bytes;
        }
    }
}

/// Converts `error` if it is due to a missing right: RabbitMQ closes the channel if Belfry may not write to the
/// exchange of `message`, the first unconfirmed message.
fn with_missing_right(error: PublishError, message: Option<&Publish<'_>>) -> PublishError {
    match (error, message) {
        (PublishError::Amqp(error), Some(message)) if is_access_refused(&error) => {
            let object = match message.exchange {
                "" => "the default exchange (amq.default)".to_owned(),
                name => format!("exchange {name}"),
            };
            Box::new(MissingRight { right: Right::Write, object, error }).into()
        }
        (error, _) => error,
    }
}

/// Publishes one message on a channel with confirms and awaits the confirm.
pub(crate) async fn publish_one(
    channel: &Channel,
    message: &Publish<'_>,
) -> Result<(), PublishError> {
    check(&send(channel, message).await?.await?)
}

async fn send(channel: &Channel, message: &Publish<'_>) -> lapin::Result<PublisherConfirm> {
    let options = BasicPublishOptions { mandatory: message.mandatory, immediate: false };
    let (exchange, key) = (message.exchange.into(), message.routing_key.into());
    channel.basic_publish(exchange, key, options, message.body, message.properties.clone()).await
}

/// Checks that the broker accepted a message, and routed it if it was mandatory.
fn check(confirmation: &lapin::Confirmation) -> Result<(), PublishError> {
    use lapin::Confirmation::{Ack, Nack, NotRequested};
    match confirmation {
        Ack(None) => Ok(()),
        // Contains the message, which the broker has returned.
        Ack(Some(_)) | Nack(Some(_)) => Err(PublishError::Unroutable),
        Nack(None) => Err(PublishError::Nacked),
        // Every channel that is opened here has confirms enabled.
        NotRequested => Err(PublishError::NotConnected),
    }
}
