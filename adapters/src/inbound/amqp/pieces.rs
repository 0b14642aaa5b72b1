use lapin::BasicProperties;

use super::message::{Envelope, Incoming, Unreadable};

/// Opens a message as [`Ingest`](super::Ingest) does, one that came from the queue `belfry.ingest` by
/// an exchange.
pub fn open<'a>(
    body: &'a [u8],
    routing_key: &'a str,
    properties: &'a BasicProperties,
) -> Result<Envelope<'a>, Unreadable> {
    let message = Incoming { body, exchange: "belfry.ingest", routing_key, properties };
    Envelope::open(&message, "belfry.ingest")
}
