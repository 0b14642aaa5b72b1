//! Attackers with a token of their own user, who ask for more of their inbox than they read, or than others
//! have left.

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
use crate::websocket::Socket;

/// Events with an acknowledgement, as only those are answered where they succeed.
const LIST: &str = r#"421["notification:list",{"limit":100}]"#;
const SYNC: &str = r#"422["notification:sync",{"since":0}]"#;

/// A pong answers the next ping, too, so whoever never reads is not closed for its heartbeat.
const PONG: &str = "3";

/// For those who never read: as little as the kernel allows.
const RECEIVE_BUFFER: u32 = 2_048;

/// An inbox full of large notifications.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inbox {
    /// The ids of its notifications.
    pub(crate) ids: Arc<[String]>,
    /// Identifies the store, for a device that names the last revision it has seen.
    pub(crate) epoch: Arc<str>,
}

/// Asks for pages, below the limit on messages, and never reads.
pub(super) async fn slow_reader(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut socket = signed_in(unread(device).await?, device).await?;
    let mut pace = paced(20);
    for count in 1_u64.. {
        pace.tick().await;
        socket.say(LIST.as_bytes()).await?;
        attempts.one();
        if count.is_multiple_of(100) {
            socket.say(PONG.as_bytes()).await?;
        }
    }
    Ok(())
}

/// Asks for what costs most, below the limit on messages, and reads all of it.
pub(super) async fn greedy_reader(
    device: &Device,
    inbox: &Inbox,
    attempts: &Attempts,
) -> io::Result<()> {
    let mut socket = signed_in(device.upgrade().await?, device).await?;
    let (reader, writer) = socket.halves();
    tokio::select! {
        ended = discard(reader) => ended,
        ended = ask_for_most(writer, inbox, attempts) => ended,
    }
}

/// Posts requests for pages, below the limit on messages, and never polls.
pub(super) async fn silent_poller(device: &Device, attempts: &Attempts) -> io::Result<()> {
    let mut client = PollingClient::open(device).await?;
    client.post(&device.connect_packet()).await?;
    let mut pace = paced(20);
    for count in 1_u64.. {
        pace.tick().await;
        client.post(LIST).await?;
        attempts.one();
        if count.is_multiple_of(100) {
            client.post(PONG).await?;
        }
    }
    Ok(())
}

/// Has all of the inbox replayed, and never reads.
pub(super) async fn slow_replay(
    device: &Device,
    inbox: &Inbox,
    attempts: &Attempts,
) -> io::Result<()> {
    let mut socket = unread(device).await?;
    let auth = json!({ "token": &*device.token, "since": 0, "epoch": &*inbox.epoch });
    socket.say(format!("40{auth}").as_bytes()).await?;
    attempts.one();
    loop {
        sleep(Duration::from_secs(1)).await;
        socket.say(PONG.as_bytes()).await?;
    }
}

/// A WebSocket whose sender notices early that it is not read.
async fn unread(device: &Device) -> io::Result<Socket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    device.upgrade_on(device.connect_by(socket).await?).await
}

/// So many times a second, and never more to make up for a delay.
fn paced(per_second: u32) -> tokio::time::Interval {
    let mut pace = interval(Duration::from_secs(1) / per_second);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

async fn ask_for_most(
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
    let mut pace = paced(40);
    for message in messages.iter().cycle() {
        pace.tick().await;
        writer.write_all(message).await?;
        attempts.one();
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
    fn many_notifications_are_marked_by_one_message() {
        let message = mark_read(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(message, r#"423["notification:mark_read",{"ids":["a","b"]}]"#);
    }
}
