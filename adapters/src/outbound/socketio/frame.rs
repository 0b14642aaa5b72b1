use std::sync::OnceLock;

use belfry_application::announcement::Push;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::transport::text_frame;
use crate::wire::PushForm;

/// The namespaces that devices connect to. Both are the same to Belfry: clients in the field use one
/// or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    Root,
    Notifications,
}

impl Namespace {
    pub(crate) const ALL: [Self; Self::COUNT as usize] = [Self::Root, Self::Notifications];

    /// In so many a device may be at once.
    pub(crate) const COUNT: u8 = 2;

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Notifications => "/notifications",
        }
    }

    /// `None` if there is none of that path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|namespace| namespace.path() == path)
    }

    /// How a Socket.IO packet names it, between its type and the rest.
    pub(crate) const fn in_packet(self) -> &'static str {
        match self {
            Self::Root => "",
            Self::Notifications => "/notifications,",
        }
    }
}

/// A push, encoded once for all devices.
#[derive(Debug)]
pub struct EventFrame {
    push: PushForm,
    /// As it is on a WebSocket: for each namespace, if somebody is there.
    encoded: [OnceLock<Bytes>; Namespace::COUNT as usize],
}

impl EventFrame {
    pub(super) fn of(push: &Push) -> Self {
        Self { push: PushForm::from(push), encoded: Default::default() }
    }

    pub(super) fn event(&self) -> &'static str {
        self.push.event
    }

    pub(super) fn payload(&self) -> &RawValue {
        &self.push.payload
    }

    /// The WebSocket frame that carries it.
    pub(super) fn on_websocket(&self, namespace: Namespace) -> &Bytes {
        self.encoded[namespace as usize].get_or_init(|| {
            let PushForm { event, payload } = &self.push;
            text_frame(&["42", namespace.in_packet(), "[\"", event, "\",", payload.get(), "]"])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_an_event_of_its_namespace() {
        let frame =
            EventFrame::of(&Push::Exception { code: "token_expired", message: "over".into() });
        let payload = frame.payload().get().to_owned();
        for (namespace, packet) in [
            (Namespace::Root, format!("42[\"exception\",{payload}]")),
            (Namespace::Notifications, format!("42/notifications,[\"exception\",{payload}]")),
        ] {
            let bytes = frame.on_websocket(namespace);
            assert_eq!(&bytes[2..], packet.as_bytes());
            assert_eq!(bytes[..2], [0x81, u8::try_from(packet.len()).unwrap()]);
            assert_eq!(Namespace::of(namespace.path()), Some(namespace));
        }
        assert_eq!(Namespace::of("/other"), None);
    }

    #[test]
    fn a_frame_is_made_for_the_first_device_and_shared_with_all_others() {
        let frame =
            EventFrame::of(&Push::Exception { code: "token_expired", message: "over".into() });
        for namespace in Namespace::ALL {
            frame.on_websocket(namespace);
        }
        let shared = allocation_counter::measure(|| {
            for namespace in Namespace::ALL {
                // Cloned for a device that waits for its turn.
                drop(frame.on_websocket(namespace).clone());
            }
        });
        assert_eq!(shared.count_total, 0);
    }
}
