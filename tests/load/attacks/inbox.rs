//! Attackers with a valid token that request their own inbox: some never read the responses, others request so much
//! that the server may have no time for others.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Attempts, signed_in};
use crate::device::Device;
use crate::frames;
use crate::polling::PollingClient;
use crate::websocket::WebSocket;

// Events (`42`) that request the acknowledgements 1 and 2. Without a requested acknowledgement, the server responds
// only if an event fails.
const LIST: &str = r#"421["notification:list",{"limit":100}]"#;
const SYNC: &str = r#"422["notification:sync",{"since":0}]"#;

/// Clients that never read do not see pings. They send pongs regularly, so that the server does not disconnect them
/// for a missing pong.
const PONG: &str = "3";

/// The receive buffer in bytes of clients that never read: the minimum that the kernel allows.
const RECEIVE_BUFFER: u32 = 2_048;

/// An inbox full of large notifications.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox {
    /// The ids of its notifications.
    pub(crate) ids: Arc<[String]>,
    /// The store's epoch, for a device that resumes from a revision.
    pub(crate) epoch: Arc<str>,
}

/// Requests pages, below the message rate limit, and never reads.
pub(super) async fn slow_reader(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut socket = signed_in(slow_socket(device).await?, device).await?;
    let mut ticks = pace(20);
    for count in 1_u64.. {
        ticks.tick().await;
        socket.send_text(LIST.as_bytes()).await?;
        attempts.record();
        if count.is_multiple_of(100) {
            socket.send_text(PONG.as_bytes()).await?;
        }
    }
    Ok(())
}

/// Sends the most expensive requests, below the message rate limit, and reads the responses.
pub(super) async fn greedy_reader(
    device: &Device,
    inbox: &Inbox,
    attempts: &Attempts,
) -> io::Result<()> {
    let mut socket = signed_in(device.upgrade().await?, device).await?;
    let (reader, writer) = socket.halves();
    tokio::select! {
        ended = discard(reader) => ended,
        ended = send_requests(writer, inbox, attempts) => ended,
    }
}

/// Posts requests for pages, below the message rate limit, and never polls.
pub(super) async fn silent_poller(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut client = PollingClient::open(device).await?;
    client.post(&device.connect_packet()).await?;
    let mut ticks = pace(20);
    for count in 1_u64.. {
        ticks.tick().await;
        client.post(LIST).await?;
        attempts.record();
        if count.is_multiple_of(100) {
            client.post(PONG).await?;
        }
    }
    Ok(())
}

/// Requests a replay of the whole inbox, and never reads.
pub(super) async fn slow_replay(
    device: &Device,
    inbox: &Inbox,
    attempts: &Attempts,
) -> io::Result<()> {
    let mut socket = slow_socket(device).await?;
    let auth = json!({ "token": &*device.token, "since": 0, "epoch": &*inbox.epoch });
    socket.send_text(format!("40{auth}").as_bytes()).await?;
    attempts.record();
    loop {
        sleep(Duration::from_secs(1)).await;
        socket.send_text(PONG.as_bytes()).await?;
    }
}

/// A WebSocket with a small receive buffer, which fills soon when the client does not read.
async fn slow_socket(device: &Device) -> io::Result<WebSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    device.upgrade_on(device.connect_by(socket).await?).await
}

/// Ticks `per_second` times a second. After a delay, it does not catch up on missed ticks.
fn pace(per_second: u32) -> tokio::time::Interval {
    let mut pace = interval(Duration::from_secs(1) / per_second);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

async fn send_requests(
    mut writer: WriteHalf<'_>,
    inbox: &Inbox,
    attempts: &Attempts,
) -> io::Result<()> {
    let messages = [SYNC.to_owned(), LIST.to_owned(), mark_read(&inbox.ids)].map(|message| {
        let mut frames = Vec::new();
        frames::write_text(&mut frames, message.as_bytes());
        frames::write_text(&mut frames, PONG.as_bytes());
        frames
    });
    let mut ticks = pace(40);
    for message in messages.iter().cycle() {
        ticks.tick().await;
        writer.write_all(message).await?;
        attempts.record();
    }
    Ok(())
}

fn mark_read(ids: &[String]) -> String {
    format!("423{}", json!(["notification:mark_read", { "ids": ids }]))
}

/// Reads until the server ends the connection.
async fn discard(mut reader: ReadHalf<'_>) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while reader.read(&mut buffer).await? > 0 {}
    Err(ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_marks_many_notifications() {
        let message = mark_read(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(message, r#"423["notification:mark_read",{"ids":["a","b"]}]"#);
    }
}
