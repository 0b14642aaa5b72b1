//! A single device that looks closely: where its inbox stands, and what it has missed.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::device::Device;

const SYNC: &[u8] = br#"42["notification:sync","#;
const NEW: &[u8] = br#"42["notification:new","#;

/// Whose device it is, and where it connects.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) server: SocketAddr,
    pub(crate) token: Arc<str>,
    pub(crate) from: Ipv4Addr,
}

/// `notification:sync`, and how many it then heard of.
#[derive(Debug, Deserialize)]
pub(crate) struct Stands {
    pub(crate) epoch: String,
    pub(crate) revision: u64,
    #[serde(default)]
    pub(crate) missed: u64,
}

impl Probe {
    /// Signs in, asking for what came after a revision, hears of all of it, and leaves.
    pub(crate) async fn sign_in(&self, since: Option<(u64, &str)>) -> io::Result<Stands> {
        let all = timeout(Duration::from_secs(30), self.try_sign_in(since));
        all.await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
    }

    async fn try_sign_in(&self, since: Option<(u64, &str)>) -> io::Result<Stands> {
        let token = Arc::clone(&self.token);
        let device = Device { server: self.server, from: self.from, token };
        let mut socket = device.upgrade().await?;
        let mut auth = serde_json::json!({ "token": &*self.token });
        if let Some((revision, epoch)) = since {
            auth["since"] = revision.into();
            auth["epoch"] = epoch.into();
        }
        socket.say(format!("40{auth}").as_bytes()).await?;
        let mut stands: Option<Stands> = None;
        let mut heard = 0;
        loop {
            for text in socket.texts().await? {
                if text.starts_with(b"44") {
                    return Err(io::Error::other(String::from_utf8_lossy(&text).into_owned()));
                }
                if let Some(sync) = text.strip_prefix(SYNC) {
                    stands = Some(serde_json::from_slice(sync.strip_suffix(b"]").unwrap_or(sync))?);
                }
                heard += u64::from(text.starts_with(NEW));
            }
            if let Some(stands) = stands.take_if(|stands| heard >= stands.missed) {
                socket.leave().await;
                return Ok(stands);
            }
        }
    }
}
