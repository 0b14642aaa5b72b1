//! A device that signs in, reads the position of its inbox, and receives the notifications that it has missed.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::device::Device;

const SYNC: &[u8] = br#"42["notification:sync","#;
const NEW: &[u8] = br#"42["notification:new","#;

/// The user's token, and the addresses to connect from and to.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) server: SocketAddr,
    pub(crate) token: Arc<str>,
    pub(crate) from: Ipv4Addr,
}

/// The content of `notification:sync`.
#[derive(Debug, Deserialize)]
pub(crate) struct InboxPosition {
    pub(crate) epoch: String,
    pub(crate) revision: u64,
    /// Notifications in the replay.
    #[serde(default)]
    pub(crate) missed: u64,
}

impl Probe {
    /// Signs in with an optional resume point, receives all missed notifications, and disconnects.
    pub(crate) async fn sign_in(&self, since: Option<(u64, &str)>) -> io::Result<InboxPosition> {
        let sign_in = timeout(Duration::from_secs(30), self.try_sign_in(since));
        sign_in.await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }

    async fn try_sign_in(&self, since: Option<(u64, &str)>) -> io::Result<InboxPosition> {
        let token = Arc::clone(&self.token);
        let device = Device { server: self.server, from: self.from, token };
        let mut socket = device.upgrade().await?;
        let mut auth = serde_json::json!({ "token": &*self.token });
        if let Some((revision, epoch)) = since {
            auth["since"] = revision.into();
            auth["epoch"] = epoch.into();
        }
        socket.send_text(format!("40{auth}").as_bytes()).await?;
        let mut position: Option<InboxPosition> = None;
        let mut received = 0;
        loop {
            for text in socket.texts().await? {
                if text.starts_with(b"44") {
                    return Err(io::Error::other(String::from_utf8_lossy(&text).into_owned()));
                }
                if let Some(sync) = text.strip_prefix(SYNC) {
                    position =
                        Some(serde_json::from_slice(sync.strip_suffix(b"]").unwrap_or(sync))?);
                }
                received += u64::from(text.starts_with(NEW));
            }
            if let Some(position) = position.take_if(|position| received >= position.missed) {
                socket.leave().await;
                return Ok(position);
            }
        }
    }
}
