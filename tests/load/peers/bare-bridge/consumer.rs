//! Consumes the queue and sends events to the sockets.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{DeliveryTag, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use crate::{Hub, frames};

const PREFETCH: u16 = 500;
/// The number of messages after which an ack is sent for all of them.
const ACK_BATCH: u32 = 256;
/// The time from the first unacked message after which an ack is sent, even for fewer messages.
const ACK_DELAY: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    pattern: Cow<'a, str>,
    #[serde(borrow)]
    data: Created<'a>,
}

/// The data of a message. The notification and the count are not parsed, but copied from the message into the
/// frame.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created<'a> {
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    #[serde(borrow)]
    notification: &'a RawValue,
    #[serde(borrow)]
    unread_count: Option<&'a RawValue>,
}

pub(crate) struct Consumer {
    channel: Channel,
    deliveries: lapin::Consumer,
    ack_each: bool,
}

impl Consumer {
    /// Connects and starts to consume the queue. Also returns the connection.
    pub(crate) async fn start(
        url: &str,
        queue: &str,
        ack_each: bool,
    ) -> anyhow::Result<(Connection, Self)> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), durable, FieldTable::default()).await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let options = BasicConsumeOptions { no_ack: !ack_each, ..BasicConsumeOptions::default() };
        let deliveries =
            channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
        Ok((connection, Self { channel, deliveries, ack_each }))
    }

    /// Pushes events until the broker ends the consumer, which is an error.
    pub(crate) async fn run(mut self, hub: Arc<Hub>) -> anyhow::Result<()> {
        let mut event = Vec::new();
        let mut unacked = 0;
        let mut newest: DeliveryTag = 0;
        let ack_timer = sleep(ACK_DELAY);
        tokio::pin!(ack_timer);
        loop {
            tokio::select! {
                biased;
                delivery = self.deliveries.next() => {
                    let delivery = delivery.context("the consumer was cancelled")??;
                    push(&hub, &delivery.data, &mut event);
                    if !self.ack_each {
                        continue;
                    }
                    newest = delivery.delivery_tag;
                    unacked += 1;
                    if unacked == 1 {
                        ack_timer.as_mut().reset(Instant::now() + ACK_DELAY);
                    }
                    if unacked < ACK_BATCH {
                        continue;
                    }
                }
                () = &mut ack_timer, if unacked > 0 => {}
            }
            self.channel.basic_ack(newest, BasicAckOptions { multiple: true }).await?;
            unacked = 0;
        }
    }
}

/// Pushes the event in a message to the user's sockets. `event` is a buffer for the frames, which is reused
/// for each message.
fn push(hub: &Hub, message: &[u8], event: &mut Vec<u8>) {
    let data = match serde_json::from_slice(message) {
        Ok(Message { pattern, data }) if pattern == "notification.created" => data,
        Ok(Message { pattern, .. }) => {
            return eprintln!("ignoring a message with the pattern {pattern}");
        }
        Err(error) => return eprintln!("ignoring an invalid message: {error}"),
    };
    hub.users.with_sockets(&data.user_id, |sockets| {
        event.clear();
        let notification = data.notification.get();
        frames::text(event, &[r#"42["notification:new","#, notification, "]"]);
        if let Some(count) = data.unread_count {
            let count = count.get();
            frames::text(event, &[r#"42["notification:unread_count",{"count":"#, count, "}]"]);
        }
        for socket in sockets {
            socket.send(event);
        }
    });
}
