use std::sync::OnceLock;

use belfry_application::push::Push;
use bytes::Bytes;

use super::namespace::Namespace;
use crate::transport::text_frame;
use crate::wire::PushForm;

/// A push that is encoded once for all devices.
#[derive(Debug)]
pub struct EventFrame {
    push: PushForm,
    /// The WebSocket frame for each namespace, encoded for its first device.
    encoded: [OnceLock<Bytes>; Namespace::ALL.len()],
}

impl EventFrame {
    pub(super) fn of(push: &Push) -> Self {
        Self { push: PushForm::from(push), encoded: Default::default() }
    }

    /// The WebSocket frame for devices in that namespace.
    pub(super) fn in_namespace(&self, namespace: Namespace) -> &Bytes {
        self.encoded[namespace as usize].get_or_init(|| {
            let PushForm { event, payload } = &self.push;
            text_frame(&["42", namespace.packet_prefix(), "[\"", event, "\",", payload.get(), "]"])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_is_an_event_of_its_namespace() {
        let frame =
            EventFrame::of(&Push::Exception { code: "token_expired", message: "over".into() });
        let payload = frame.push.payload.get().to_owned();
        for (namespace, packet) in [
            (Namespace::Root, format!("42[\"exception\",{payload}]")),
            (Namespace::Notifications, format!("42/notifications,[\"exception\",{payload}]")),
        ] {
            let bytes = frame.in_namespace(namespace);
            assert_eq!(&bytes[2..], packet.as_bytes());
            assert_eq!(bytes[..2], [0x81, u8::try_from(packet.len()).unwrap()]);
            assert_eq!(Namespace::of(namespace.path()), Some(namespace));
        }
        assert_eq!(Namespace::of("/other"), None);
    }

    #[test]
    fn frame_is_encoded_for_the_first_device_and_shared_with_all_others() {
        let frame =
            EventFrame::of(&Push::Exception { code: "token_expired", message: "over".into() });
        for namespace in Namespace::ALL {
            frame.in_namespace(namespace);
        }
        let shared = allocation_counter::measure(|| {
            for namespace in Namespace::ALL {
                // Cloned for the send queue of a device.
                drop(frame.in_namespace(namespace).clone());
            }
        });
        assert_eq!(shared.count_total, 0);
    }
}
