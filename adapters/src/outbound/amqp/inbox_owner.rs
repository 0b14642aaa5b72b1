use std::error::Error;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use async_trait::async_trait;
use belfry_application::ports::{InboxOwner, PortError, RequestedChange};
use belfry_domain::{NotificationId, UserId};
use lapin::BasicProperties;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use crate::amqp::metrics::DEVICE_REQUESTS;
use crate::amqp::{ConfirmChannel, PERSISTENT, Publish, Publisher, RequiredTopology, Topology};
use crate::limits::ThrottledLog;

/// In forward mode, publishes the requests of devices to the devices exchange, for the service that keeps the
/// inboxes.
///
/// The body of a message has the form
/// `{"pattern":"device.mark_read","data":{"userId":"ada","ids":["n1","n2"]}}`. The message is persistent, and
/// its routing key and `type` are the pattern. A request has succeeded once the broker has confirmed that the
/// message is in a queue.
pub struct AmqpInboxOwner {
    exchange: Box<str>,
    /// Several channels, because each message waits for the confirm of the previous one on its channel. All
    /// messages of a user use the same channel, so they keep their order.
    channels: Vec<ConfirmChannel>,
    /// Each request holds one permit while it waits for its confirm.
    permits: Semaphore,
    failure_log: ThrottledLog,
}

impl AmqpInboxOwner {
    /// The number of channels.
    const CHANNELS: usize = 8;

    /// The maximum number of requests that wait for their confirms. Further ones fail at once.
    const MAX_WAITING: usize = 1_000;

    /// How long a request waits for its confirm. A device that waits longer shows an error anyway.
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Creates a publisher to the devices exchange of `topology`. Returns `None` if there is no such exchange.
    pub fn new(publisher: &Publisher, topology: &Topology) -> Option<Self> {
        let exchange = topology.devices_exchange()?;
        let channel = |_| publisher.channel(RequiredTopology::Devices);
        Some(Self {
            exchange: exchange.into(),
            channels: (0..Self::CHANNELS).map(channel).collect(),
            permits: Semaphore::new(Self::MAX_WAITING),
            failure_log: ThrottledLog::new(),
        })
    }

    fn channel_of(&self, user: &UserId) -> &ConfirmChannel {
        let mut hasher = DefaultHasher::new();
        user.hash(&mut hasher);
        let index = hasher.finish() % self.channels.len() as u64;
        &self.channels[usize::try_from(index).unwrap_or_default()]
    }

    async fn publish(&self, user: &UserId, change: &RequestedChange) -> Result<(), PortError> {
        let Ok(_permit) = self.permits.try_acquire() else {
            return Err(PortError::unavailable("too many requests of devices wait for RabbitMQ"));
        };
        let form = RequestForm::of(user, change);
        let body = serde_json::to_vec(&form).map_err(PortError::rejected)?;
        let message = Publish {
            exchange: &self.exchange,
            routing_key: form.pattern,
            mandatory: true,
            properties: BasicProperties::default()
                .with_content_type("application/json".into())
                .with_delivery_mode(PERSISTENT)
                .with_type(form.pattern.into())
                .with_app_id("belfry".into()),
            body: &body,
        };
        let publishing = self.channel_of(user).publish(std::slice::from_ref(&message));
        match timeout(Self::TIMEOUT, publishing).await {
            Ok(confirmation) => {
                confirmation.error.map_or(Ok(()), |error| Err(PortError::unavailable(error)))
            }
            Err(elapsed) => Err(PortError::unavailable(elapsed)),
        }
    }
}

#[async_trait]
impl InboxOwner for AmqpInboxOwner {
    async fn request(&self, user: &UserId, change: &RequestedChange) -> Result<(), PortError> {
        let result = self.publish(user, change).await;
        let outcome = if result.is_ok() { "confirmed" } else { "failed" };
        metrics::counter!(DEVICE_REQUESTS, "outcome" => outcome).increment(1);
        if let Err(error) = &result
            && let Some(times) = self.failure_log.record()
        {
            let (exchange, error) = (&*self.exchange, error as &dyn Error);
            warn!(
                times,
                exchange, error, "cannot publish the requests of devices; they get an error"
            );
        }
        result
    }
}

/// The body of a message. There must never be an `id` beside `pattern`: a NestJS listener would treat the
/// message as a request that it has to answer.
#[derive(Debug, Serialize)]
struct RequestForm<'a> {
    pattern: &'static str,
    data: DataForm<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DataForm<'a> {
    user_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<&'a str>>,
    /// The id if there is exactly one, in addition to `ids`: many services mark one notification at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    notification_id: Option<&'a str>,
}

impl<'a> RequestForm<'a> {
    fn of(user: &'a UserId, change: &'a RequestedChange) -> Self {
        let (pattern, ids) = match change {
            RequestedChange::MarkRead(ids) => ("device.mark_read", Some(&**ids)),
            RequestedChange::MarkAllRead => ("device.mark_all_read", None),
            RequestedChange::Delete(id) => ("device.delete", Some(std::slice::from_ref(id))),
        };
        let notification_id = match ids {
            Some([only]) => Some(only.as_str()),
            _ => None,
        };
        let ids = ids.map(|ids| ids.iter().map(NotificationId::as_str).collect());
        Self { pattern, data: DataForm { user_id: user.as_str(), ids, notification_id } }
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::{id, user};

    use super::*;

    #[test]
    fn each_change_has_its_pattern_and_data() {
        let ada = user("ada");
        for (change, expected) in [
            (
                RequestedChange::MarkRead(vec![id("n1"), id("n2")]),
                r#"{"pattern":"device.mark_read","data":{"userId":"ada","ids":["n1","n2"]}}"#,
            ),
            (
                RequestedChange::MarkRead(vec![id("n1")]),
                r#"{"pattern":"device.mark_read","data":{"userId":"ada","ids":["n1"],"notificationId":"n1"}}"#,
            ),
            (
                RequestedChange::MarkAllRead,
                r#"{"pattern":"device.mark_all_read","data":{"userId":"ada"}}"#,
            ),
            (
                RequestedChange::Delete(id("n1")),
                r#"{"pattern":"device.delete","data":{"userId":"ada","ids":["n1"],"notificationId":"n1"}}"#,
            ),
        ] {
            let form = RequestForm::of(&ada, &change);
            assert_eq!(serde_json::to_string(&form).unwrap(), expected);
        }
    }
}
