use belfry_application::push::Push;
use bytes::Bytes;

use super::namespace::{Namespace, NamespaceCache};
use crate::transport::text_frame;
use crate::wire::PushForm;
use crate::wire::socket::{EventShape, EventTable};

/// A push as WebSocket frames. It is encoded once for all devices in a namespace.
#[derive(Debug)]
pub struct EventFrame {
    push: PushForm,
    /// The WebSocket frames for each namespace, encoded when the first device in it needs them.
    encoded: NamespaceCache<Frames>,
}

/// One WebSocket frame for each name of the event.
#[derive(Debug)]
enum Frames {
    One(Bytes),
    Several(Box<[Bytes]>),
}

impl EventFrame {
    pub(super) fn of(push: &Push) -> Self {
        Self { push: PushForm::from(push), encoded: NamespaceCache::default() }
    }

    /// The WebSocket frames for devices in that namespace: one for each name that `table` has for the event. All
    /// devices of a server have the same table.
    pub(super) fn in_namespace(&self, namespace: Namespace, table: &EventTable) -> &[Bytes] {
        let frames = self.encoded.get_or_init(namespace, || self.encode(namespace, table));
        match frames {
            Frames::One(frame) => std::slice::from_ref(frame),
            Frames::Several(frames) => frames,
        }
    }

    fn encode(&self, namespace: Namespace, table: &EventTable) -> Frames {
        let frame = |event: &str, shape| {
            let [before, payload, after] = self.push.shaped(shape);
            let prefix = namespace.packet_prefix();
            // `42` is Engine.IO's message with Socket.IO's event.
            text_frame(&["42", prefix, "[\"", event, "\",", before, payload, after, "]"])
        };
        match self.push.named.map(|event| table.names(event)) {
            None => Frames::One(frame(&self.push.event, EventShape::Bare)),
            Some([only]) => Frames::One(frame(&only.name, only.shape)),
            Some(names) => {
                Frames::Several(names.iter().map(|one| frame(&one.name, one.shape)).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use belfry_application::push::ForwardedPush;

    use super::super::namespace::Namespaces;
    use super::*;
    use crate::wire::socket::{SocketNames, SocketTable};

    const TABLE: EventTable = EventTable::BELFRY;

    fn exception() -> EventFrame {
        EventFrame::of(&Push::Exception { code: "token_expired", message: "over".into() })
    }

    fn new_notification() -> EventFrame {
        EventFrame::of(&Push::Forwarded(ForwardedPush::New(r#"{"id":"n1"}"#.into())))
    }

    #[test]
    fn frame_is_an_event_of_its_namespace() {
        let frame = exception();
        let payload = frame.push.payload.get().to_owned();
        let namespaces = Namespaces::with(&["/ws/n".parse().unwrap()]).unwrap();
        for (namespace, packet) in [
            ("/", format!("42[\"exception\",{payload}]")),
            ("/notifications", format!("42/notifications,[\"exception\",{payload}]")),
            ("/ws/n", format!("42/ws/n,[\"exception\",{payload}]")),
        ] {
            let namespace = namespaces.find(namespace).unwrap();
            let [bytes] = frame.in_namespace(namespace, &TABLE) else { panic!("one frame") };
            // The head is 0x81, a final text frame, and the length.
            assert_eq!(bytes[..2], [0x81, u8::try_from(packet.len()).unwrap()]);
            assert_eq!(&bytes[2..], packet.as_bytes());
        }
    }

    #[test]
    fn event_with_several_names_has_a_frame_for_each() {
        let mut names = SocketNames::default();
        names.events[0] = vec!["notification as {data}".parse().unwrap(), "new".parse().unwrap()];
        let table = SocketTable::new(&names).unwrap().events;
        let frame = new_notification();
        let frames = frame.in_namespace(Namespace::ROOT, &table);
        let texts: Vec<_> =
            frames.iter().map(|it| std::str::from_utf8(&it[2..]).unwrap()).collect();
        let expected = [r#"42["notification",{"data":{"id":"n1"}}]"#, r#"42["new",{"id":"n1"}]"#];
        assert_eq!(texts, expected);
    }

    #[test]
    fn frame_is_encoded_for_the_first_device_and_shared_with_all_others() {
        let frame = exception();
        for namespace in Namespaces::BUILT_IN.iter() {
            frame.in_namespace(namespace, &TABLE);
        }
        let shared = allocation_counter::measure(|| {
            for namespace in Namespaces::BUILT_IN.iter() {
                // A delivery clones the frames for the send queue of each device.
                drop(frame.in_namespace(namespace, &TABLE).to_vec());
            }
        });
        // One allocation for each vector of this test, and none for a frame.
        assert_eq!(shared.count_total, Namespaces::BUILT_IN.len() as u64);
    }

    #[test]
    fn names_and_shapes_cost_no_allocation() {
        let (frame, table) = (new_notification(), &TABLE);
        let text = r#"42["notification:new",{"id":"n1"}]"#;
        let plain = allocation_counter::measure(|| drop(text_frame(&[text])));
        let encoded = allocation_counter::measure(|| {
            frame.in_namespace(Namespace::ROOT, table);
        });
        assert_eq!(encoded.count_total, plain.count_total);
        assert_eq!(encoded.bytes_total, plain.bytes_total);
    }
}
