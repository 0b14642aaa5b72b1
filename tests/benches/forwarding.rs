//! All that Belfry itself does for an event in forward mode on one node, from the message's body to
//! the bytes for one device. The load tool says what an event costs in all; what is more than this is
//! the broker's library, Tokio and the kernel, and no change to Belfry's rules would save it.

use std::sync::Arc;

use belfry_adapters::inbound::amqp::MessageHandler;
use futures_util::FutureExt as _;

use crate::pieces::Pieces;
use crate::telling::Node;
use crate::{decoding, samples};

pub(crate) fn measure(pieces: &mut Pieces) {
    let node = Node::with_others(10_000);
    node.connect("u42", 1);
    let forward = decoding::forward_to(Arc::new(node));
    let sent = samples::nest();
    pieces.piece("forwarding/1 event to 1 device", || {
        let order = decoding::read(&forward, &sent);
        let done = forward.run(vec![order]).now_or_never().expect("nothing to wait for");
        assert!(done.iter().all(Result::is_ok), "told");
    });
}
