use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use belfry_adapters::amqp::{
    AmqpSettings, AmqpTlsFiles, AmqpUrl, ClientCertificateFiles, Topology, TopologySettings,
};
use serde::Deserialize;

use super::error::{BadSettings, at_least_one, longer_than_zero};
use super::url_parts::UrlParts;
use super::values::{self, Secret};

/// `amqp.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Amqp {
    #[serde(default)]
    pub url: Option<Secret>,
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub client_certificate_file: Option<PathBuf>,
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
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
        let parts = self.url.as_ref().and_then(|url| UrlParts::parse(url.reveal()));
        if parts.is_some_and(|url| url.has_several_hosts()) {
            return Err(BadSettings::new(
                "amqp.url names several hosts, but Belfry connects to one; \
                 use a load balancer or a DNS name in front of the cluster",
            ));
        }
        if self.client_certificate_file.is_some() != self.client_key_file.is_some() {
            return Err(BadSettings::new(
                "amqp.client_certificate_file and amqp.client_key_file must be set together",
            ));
        }
        let is_tls = self.url.as_ref().is_some_and(|url| url.reveal().starts_with("amqps://"));
        if !is_tls && (self.ca_file.is_some() || self.client_certificate_file.is_some()) {
            return Err(BadSettings::new(
                "amqp.ca_file and amqp.client_certificate_file need an amqp.url with amqps://",
            ));
        }
        longer_than_zero([("amqp.node.expires", self.node.expires)])?;
        at_least_one([
            ("amqp.ingest.prefetch", self.ingest.prefetch.into()),
            ("amqp.ingest.prefetch_bytes", self.ingest.prefetch_bytes.into()),
            ("amqp.node.max_length", self.node.max_length.into()),
            ("amqp.node.prefetch_bytes", self.node.prefetch_bytes.into()),
        ])
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
        Ok(Some((AmqpSettings { tls: self.tls()?, ..AmqpSettings::new(url) }, topology)))
    }

    fn tls(&self) -> anyhow::Result<AmqpTlsFiles> {
        let client = self.client_certificate_file.clone().zip(self.client_key_file.clone());
        let client = client.map(|(certificate, key)| ClientCertificateFiles { certificate, key });
        let files = AmqpTlsFiles { ca: self.ca_file.clone(), client };
        if files != AmqpTlsFiles::default() {
            files.check().context("settings amqp.ca_file and amqp.client_*_file")?;
        }
        Ok(files)
    }
}
