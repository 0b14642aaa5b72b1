//! All of Belfry's own work for an event in forward mode on one node, from the message's body to the bytes
//! for one device. The load tool measures the total cost of an event; the difference is the cost of the
//! RabbitMQ library, Tokio and the kernel, which changes to Belfry's own code cannot reduce.

use std::sync::Arc;

use belfry_adapters::inbound::amqp::MessageHandler;
use futures_util::FutureExt as _;

use crate::delivery::Node;
use crate::microbenchmarks::Microbenchmarks;
use crate::{decoding, samples};

pub(crate) fn measure(benches: &mut Microbenchmarks) {
    let node = Node::with_others(10_000);
    node.connect("u42", 1);
    let forward = decoding::forward_to(Arc::new(node));
    let message = samples::nest();
    benches.bench("forwarding/1 event to 1 device", || {
        let command = decoding::read(&forward, &message);
        let results = forward.run(vec![command]).now_or_never().expect("nothing to wait for");
        assert!(results.iter().all(Result::is_ok), "the event was not delivered");
    });
}
