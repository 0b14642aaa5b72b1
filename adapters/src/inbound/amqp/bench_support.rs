use lapin::BasicProperties;

use super::invalid_message::InvalidMessage;
use super::message::{Envelope, Incoming};
use super::pattern::PatternNames;

/// Reads the envelope of a message as [`Ingest`](super::Ingest) does, as if the message had been published to
/// the exchange `belfry.ingest` and consumed from the queue `belfry.ingest`.
pub fn open_envelope<'a>(
    body: &'a [u8],
    routing_key: &'a str,
    properties: &'a BasicProperties,
) -> Result<Envelope<'a>, InvalidMessage> {
    let message = Incoming { body, exchange: "belfry.ingest", routing_key, properties };
    Envelope::open(&message, "belfry.ingest", &PatternNames::default())
}
