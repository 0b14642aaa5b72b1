use lapin::Channel;
use lapin::options::BasicAckOptions;

use crate::amqp::{BrokerConnection, ConnectionError, HeldDelivery};

/// The delivery tags of finished messages that are not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct FinishedDeliveries(Vec<u64>);

impl FinishedDeliveries {
    /// Adds deliveries, except those of a closed channel: they cannot be acknowledged any more.
    pub(super) fn extend<'a>(&mut self, deliveries: impl IntoIterator<Item = &'a HeldDelivery>) {
        let open = deliveries.into_iter().filter(|delivery| !delivery.acker.poisoned());
        self.0.extend(open.map(|delivery| delivery.delivery_tag));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Acknowledges all of them with one frame. Only correct while no message is pending, because the broker also
    /// counts all earlier deliveries as acknowledged.
    ///
    /// The tag is that of the newest finished message, not of the newest delivery. The newest delivery may be
    /// acknowledged already, and RabbitMQ closes the channel on an unknown tag.
    pub(super) async fn acknowledge_all(
        &mut self,
        connection: &BrokerConnection,
        channel: &Channel,
    ) -> Result<(), ConnectionError> {
        if let Some(newest) = self.0.drain(..).max() {
            let multiple = BasicAckOptions { multiple: true };
            connection.unless_ended(channel.basic_ack(newest, multiple)).await?;
        }
        Ok(())
    }

    /// Acknowledges each of them with a frame of its own.
    pub(super) async fn acknowledge_each(
        &mut self,
        connection: &BrokerConnection,
        channel: &Channel,
    ) -> Result<(), ConnectionError> {
        for tag in self.0.drain(..) {
            let single = BasicAckOptions::default();
            connection.unless_ended(channel.basic_ack(tag, single)).await?;
        }
        Ok(())
    }
}
