//! A device's position in its inbox, from which it catches up when it reconnects. Only Belfry uses the
//! position; other servers ignore it.

use std::sync::{Mutex, PoisonError};

use memchr::memmem;

use crate::packets::number;

const SYNC: &[u8] = br#"42["notification:sync","#;
const NEW: &[u8] = br#"42["notification:new","#;

/// The position that a device sends with its next connect. Empty until the server has sent one.
#[derive(Debug, Default)]
pub(crate) struct ResumePoint(Mutex<Option<Position>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    epoch: String,
    /// The latest revision that the device has received.
    since: u64,
}

impl ResumePoint {
    /// Advances the position if the packet of the server contains a later one.
    pub(crate) fn update(&self, text: &[u8]) {
        let mut position = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sync) = text.strip_prefix(SYNC) {
            // In a recovery, the server then replays everything after the position, and each notification
            // advances it.
            if memmem::find(sync, br#""recovered":true"#).is_none() {
                *position = Position::read(sync);
            }
        } else if let (Some(new), Some(position)) = (text.strip_prefix(NEW), position.as_mut())
            && let Some(revision) = number(new, br#""revision":"#)
        {
            position.since = position.since.max(revision);
        }
    }

    /// The JSON fields for the Socket.IO connect packet, with a comma before each; empty without a position.
    pub(crate) fn fields(&self) -> String {
        let position = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        position.as_ref().map_or_else(String::new, |position| {
            let Position { epoch, since } = position;
            format!(r#","epoch":"{epoch}","since":{since}"#)
        })
    }
}

impl Position {
    fn read(sync: &[u8]) -> Option<Self> {
        const EPOCH: &[u8] = br#""epoch":""#;

        let since = number(sync, br#""revision":"#)?;
        let epoch = &sync[memmem::find(sync, EPOCH)? + EPOCH.len()..];
        let epoch = epoch.split(|byte| *byte == b'"').next()?;
        Some(Self { epoch: String::from_utf8_lossy(epoch).into_owned(), since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_is_the_last_received_revision() {
        let point = ResumePoint::default();
        let receive = |text: &str| {
            point.update(text.as_bytes());
            point.fields()
        };
        assert_eq!(receive(r#"42["notification:new",{"revision":4}]"#), "");
        let sync =
            r#"42["notification:sync",{"epoch":"e1","revision":5,"recovered":false,"missed":0}]"#;
        assert_eq!(receive(sync), r#","epoch":"e1","since":5"#);
        let new = r#"42["notification:new",{"data":{"seq":1,"at":2},"revision":6}]"#;
        assert_eq!(receive(new), r#","epoch":"e1","since":6"#);
        let recovered = sync.replace("false", "true").replace(":5", ":9");
        assert_eq!(receive(&recovered), r#","epoch":"e1","since":6"#);
        let other = sync.replace("e1", "e2");
        assert_eq!(receive(&other), r#","epoch":"e2","since":5"#);
    }
}
