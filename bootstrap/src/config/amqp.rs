use std::time::Duration;

use anyhow::Context;
use belfry_adapters::amqp::{AmqpSettings, AmqpUrl, Topology, TopologySettings};
use serde::Deserialize;

use super::error::BadSettings;
use super::values::{self, Secret};

/// `amqp.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Amqp {
    #[serde(default, deserialize_with = "values::optional_secret")]
    pub url: Option<Secret>,
    pub ingest: Ingest,
    pub events: EventsExchange,
    pub node: NodeQueue,
}

/// `amqp.ingest.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Ingest {
    pub queue: String,
    pub mode: IngestMode,
    #[serde(deserialize_with = "values::or_text")]
    pub prefetch: u16,
    #[serde(deserialize_with = "values::or_text")]
    pub prefetch_bytes: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub revocations: bool,
    #[serde(deserialize_with = "values::or_text")]
    pub only_node: bool,
}

/// What Belfry does with a message of the ingest queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IngestMode {
    /// Belfry executes its command on the store.
    Store,
    /// Belfry forwards its event to the devices without storing it.
    Forward,
}

/// `amqp.events.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct EventsExchange {
    pub exchange: String,
}

/// `amqp.node.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct NodeQueue {
    pub queue_prefix: String,
    #[serde(deserialize_with = "values::duration")]
    pub expires: Duration,
    #[serde(deserialize_with = "values::or_text")]
    pub max_length: u32,
    #[serde(deserialize_with = "values::or_text")]
    pub prefetch_bytes: u32,
}

impl Amqp {
    pub(super) fn check(&self) -> Result<(), BadSettings> {
        if let Some(url) = &self.url
            && !["amqp://", "amqps://"].iter().any(|scheme| url.reveal().starts_with(scheme))
        {
            return Err(BadSettings::new("amqp.url must begin with amqp:// or amqps://"));
        }
        if self.ingest.prefetch == 0 {
            return Err(BadSettings::new("amqp.ingest.prefetch must be at least 1"));
        }
        for (name, bytes) in [
            ("amqp.ingest.prefetch_bytes", self.ingest.prefetch_bytes),
            ("amqp.node.prefetch_bytes", self.node.prefetch_bytes),
        ] {
            if bytes == 0 {
                return Err(BadSettings::new(format!("{name} must be at least 1")));
            }
        }
        Ok(())
    }

    /// Returns the settings of the connection and the topology, or `None` if `amqp.url` is not set.
    pub fn broker(&self, node: &str) -> anyhow::Result<Option<(AmqpSettings, Topology)>> {
        let Some(url) = &self.url else { return Ok(None) };
        let url = AmqpUrl::parse(url.reveal()).context("setting amqp.url")?;
        let settings = TopologySettings {
            ingest_queue: self.ingest.queue.clone(),
            ingest_exchange: Some(self.ingest.queue.clone()),
            events_exchange: self.events.exchange.clone(),
            node_queue_prefix: self.node.queue_prefix.clone(),
            node_queue_expires: self.node.expires,
            node_queue_max_length: self.node.max_length,
            ..TopologySettings::new(node)
        };
        let topology = Topology::new(&settings).context("settings amqp.* and node.name")?;
        Ok(Some((AmqpSettings::new(url), topology)))
    }
}
