//! Encoding a push as its JSON payload and as a WebSocket frame. The server does this once for each push and
//! namespace, however many devices receive the push. Most users have one device, so several devices rarely
//! share this cost.

use std::sync::Arc;

use belfry_adapters::bench_support::websocket_frame;
use belfry_adapters::outbound::socketio::SocketIoDevice;
use belfry_application::ports::Device;
use belfry_application::push::{ForwardedPush, Push};
use belfry_application::testing::a_draft;
use belfry_domain::{Data, Draft, Message, Notification, Revision, UnreadCount};

use crate::microbenchmarks::Microbenchmarks;
use crate::samples;

pub(crate) fn measure(benches: &mut Microbenchmarks) {
    let forwarded = ForwardedPush::New(samples::notification().into());
    let count = Push::UnreadCount { count: UnreadCount::new(5), revision: Revision::new(17) };
    for (name, push) in [
        ("stored notification", Push::New(Arc::new(stored()))),
        ("forwarded notification", Push::Forwarded(forwarded)),
        ("count", count),
    ] {
        benches.bench(&format!("encoding/{name}"), || {
            let frame = SocketIoDevice::frame(&push);
            websocket_frame(&frame).len()
        });
    }
}

/// A notification of a realistic size, as the store returns it.
pub(crate) fn stored() -> Notification {
    let message = "It left our warehouse this morning and will be with you tomorrow.";
    let data = Data::from_valid_json(r#"{"seq":12,"at":34}"#);
    let draft = Draft {
        message: Message::parse(message).expect("the message is short"),
        data: Some(data.expect("the data is small")),
        ..a_draft("u42", "0198c1f2-0000-7000-8000-00000000000c")
    };
    draft.into_notification(Revision::new(17))
}
