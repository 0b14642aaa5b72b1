//! A push becomes bytes once, for all who hear it, and both forms of it are made then: the payload
//! that the Socket.IO library takes, and the WebSocket frame. With one device for each user, which is
//! what most users have, that is once for each event.

use std::sync::Arc;

use belfry_adapters::bench_support::on_websocket;
use belfry_adapters::outbound::socketio::SocketIoDevice;
use belfry_application::ports::Device;
use belfry_application::push::{ForwardedPush, Push};
use belfry_application::testing::a_draft;
use belfry_domain::{Data, Draft, Message, Notification, Revision, UnreadCount};

use crate::pieces::Pieces;
use crate::samples;

pub(crate) fn measure(pieces: &mut Pieces) {
    let passed = ForwardedPush::New(samples::notification().into());
    let count = Push::UnreadCount { count: UnreadCount::new(5), revision: Revision::new(17) };
    for (name, push) in [
        ("stored notification", Push::New(Arc::new(stored()))),
        ("notification passed on", Push::Forwarded(passed)),
        ("count", count),
    ] {
        pieces.piece(&format!("encoding/{name}"), || {
            let frame = SocketIoDevice::frame(&push);
            on_websocket(&frame).len()
        });
    }
}

/// A notification of the usual size, as the store gives it.
pub(crate) fn stored() -> Notification {
    let message = "It left our warehouse this morning and will be with you tomorrow.";
    let data = Data::of_checked_syntax(r#"{"seq":12,"at":34}"#);
    let draft = Draft {
        message: Message::parse(message).expect("it is short"),
        data: Some(data.expect("it is small")),
        ..a_draft("u42", "0198c1f2-0000-7000-8000-00000000000c")
    };
    draft.into_notification(Revision::new(17))
}
