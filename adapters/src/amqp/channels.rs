use std::time::Duration;

use lapin::options::{BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::protocol::constants::REPLY_SUCCESS;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use tokio::time::timeout;

/// How long closing a channel may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Consumes a queue on a new channel. `prefetch` limits the unacknowledged deliveries. If `exclusive` is true, the
/// broker refuses other consumers of the queue.
pub(crate) async fn subscribe(
    connection: &Connection,
    queue: &str,
    prefetch: u16,
    exclusive: bool,
) -> lapin::Result<(Channel, Consumer)> {
    let channel = connection.create_channel().await?;
    // 0 would mean no limit.
    channel.basic_qos(prefetch.max(1), BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions { exclusive, ..BasicConsumeOptions::default() };
    let consumer =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    Ok((channel, consumer))
}

/// Opens a channel with publisher confirms.
pub(crate) async fn open_confirm_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Closes a channel and waits for the broker's reply, at most [`CLOSE_TIMEOUT`]. To be called before the
/// connection closes: a channel that is only dropped is closed in the background, and lapin logs an error if
/// the connection closes first.
pub(crate) async fn close_channel(channel: &Channel) {
    let _ = timeout(CLOSE_TIMEOUT, channel.close(REPLY_SUCCESS, "done".into())).await;
}
