use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use belfry_adapters::amqp::{
    AmqpSettings, AmqpTlsFiles, AmqpUrl, ClientCertificateFiles, ExchangeBinding, QueueArgument,
    QueueDeclaration, Topology, TopologySettings,
};
use belfry_adapters::inbound::amqp::{FieldPath, ForwardRule, MessageMapping, Pattern};
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
    pub forward: Forward,
    pub devices: DevicesExchange,
    pub node: NodeQueue,
}

/// `amqp.ingest.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
#[expect(clippy::struct_excessive_bools, reason = "they are independent settings")]
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
    #[serde(deserialize_with = "values::or_text")]
    pub reads: bool,
    #[serde(deserialize_with = "values::or_text")]
    pub cut_long_texts: bool,
    pub declare: IngestDeclaration,
    pub patterns: IngestPatterns,
    pub fields: IngestFields,
    #[serde(deserialize_with = "values::parsed_list")]
    pub bind: Vec<ExchangeBinding>,
}

/// `amqp.ingest.patterns.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestPatterns {
    #[serde(deserialize_with = "values::list")]
    create: Vec<String>,
    #[serde(deserialize_with = "values::list")]
    mark_read: Vec<String>,
    #[serde(deserialize_with = "values::list")]
    mark_all_read: Vec<String>,
    #[serde(deserialize_with = "values::list")]
    delete: Vec<String>,
}

/// `amqp.ingest.fields.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestFields {
    #[serde(deserialize_with = "values::parsed_list")]
    recipient: Vec<FieldPath>,
    #[serde(deserialize_with = "values::parsed_list")]
    id: Vec<FieldPath>,
    #[serde(deserialize_with = "values::parsed_list")]
    r#type: Vec<FieldPath>,
    #[serde(deserialize_with = "values::parsed_list")]
    title: Vec<FieldPath>,
    #[serde(deserialize_with = "values::parsed_list")]
    message: Vec<FieldPath>,
    #[serde(deserialize_with = "values::parsed_list")]
    data: Vec<FieldPath>,
    #[serde(deserialize_with = "values::parsed_list")]
    link: Vec<FieldPath>,
    #[serde(deserialize_with = "values::parsed_list")]
    created_at: Vec<FieldPath>,
    #[serde(deserialize_with = "values::parsed_list")]
    expires_at: Vec<FieldPath>,
}

impl Ingest {
    /// The rules for decoding messages. Configured names precede those that Belfry knows.
    fn mapping(&self) -> MessageMapping {
        let mut mapping =
            MessageMapping { cut_long_texts: self.cut_long_texts, ..MessageMapping::default() };
        let IngestPatterns { create, mark_read, mark_all_read, delete } = &self.patterns;
        for (names, pattern) in [
            (create, Pattern::Create),
            (mark_read, Pattern::MarkRead),
            (mark_all_read, Pattern::MarkAllRead),
            (delete, Pattern::Delete),
        ] {
            for name in names {
                mapping.patterns.add(name, pattern.clone());
            }
        }
        for (known, configured) in [
            (&mut mapping.recipient, &self.fields.recipient),
            (&mut mapping.id, &self.fields.id),
            (&mut mapping.kind, &self.fields.r#type),
            (&mut mapping.title, &self.fields.title),
            (&mut mapping.message, &self.fields.message),
            (&mut mapping.data, &self.fields.data),
            (&mut mapping.link, &self.fields.link),
            (&mut mapping.created_at, &self.fields.created_at),
            (&mut mapping.expires_at, &self.fields.expires_at),
        ] {
            known.splice(0..0, configured.iter().cloned());
        }
        mapping
    }
}

impl Amqp {
    /// The rules for decoding messages of other services. In forward mode they include `amqp.forward.events`.
    pub fn mapping(&self) -> Result<MessageMapping, BadSettings> {
        let mut mapping = self.ingest.mapping();
        if self.ingest.mode == IngestMode::Forward {
            for rule in &self.forward.events {
                rule.add_to(&mut mapping.patterns).map_err(|problem| {
                    BadSettings::new(format!("amqp.forward.events: {problem}"))
                })?;
            }
        }
        Ok(mapping)
    }
}

/// `amqp.ingest.declare.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestDeclaration {
    #[serde(deserialize_with = "values::or_text")]
    passive: bool,
    #[serde(deserialize_with = "values::or_text")]
    durable: bool,
    #[serde(deserialize_with = "values::or_text")]
    auto_delete: bool,
    #[serde(deserialize_with = "values::parsed_list")]
    arguments: Vec<QueueArgument>,
}

/// The treatment of messages of the ingest queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IngestMode {
    /// Belfry executes the command of a message on the store.
    Store,
    /// Belfry forwards the event of a message to the devices without storing it.
    Forward,
}

/// `amqp.events.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct EventsExchange {
    pub exchange: String,
}

/// `amqp.forward.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct Forward {
    #[serde(deserialize_with = "values::parsed_list")]
    pub events: Vec<ForwardRule>,
}

/// `amqp.devices.*`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.default.toml documents the settings")]
pub struct DevicesExchange {
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
        let parts = self.url.as_ref().map(|url| UrlParts::parse(url.reveal()));
        if parts == Some(None) {
            return Err(BadSettings::new(
                "amqp.url has an @ outside its place: \
                 percent-encode special characters of the password (/ as %2F, ? as %3F, # as %23)",
            ));
        }
        if parts.flatten().is_some_and(|url| url.has_several_hosts()) {
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
        self.check_forwarding()?;
        self.mapping()?;
        longer_than_zero([("amqp.node.expires", self.node.expires)])?;
        at_least_one([
            ("amqp.ingest.prefetch", self.ingest.prefetch.into()),
            ("amqp.ingest.prefetch_bytes", self.ingest.prefetch_bytes.into()),
            ("amqp.node.max_length", self.node.max_length.into()),
            ("amqp.node.prefetch_bytes", self.node.prefetch_bytes.into()),
        ])
    }

    /// Checks that in forward mode there is a broker, and that Belfry does not receive its own messages.
    fn check_forwarding(&self) -> Result<(), BadSettings> {
        if self.ingest.mode == IngestMode::Store {
            return Ok(());
        }
        if self.url.is_none() {
            return Err(BadSettings::new(
                "amqp.ingest.mode is \"forward\", but amqp.url is not set: there is nothing to forward",
            ));
        }
        let receives = |exchange: &str, first_word: &str| {
            let mut bindings = self.ingest.bind.iter().filter(|it| it.exchange() == exchange);
            let is_bound = bindings.clone().next().is_some();
            // Without an explicit binding, the exchange with the queue's name is bound with `#`.
            bindings.any(|it| it.may_receive(first_word))
                || (!is_bound && exchange == self.ingest.queue)
        };
        for (setting, exchange, first_word) in [
            ("amqp.events.exchange", &self.events.exchange, "notification"),
            ("amqp.devices.exchange", &self.devices.exchange, "device"),
        ] {
            if receives(exchange, first_word) {
                return Err(BadSettings::new(format!(
                    "{setting} is {exchange}, to which the ingest queue is bound: Belfry would receive the \
                     messages that it publishes; use another exchange"
                )));
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
            ingest_declaration: QueueDeclaration {
                passive: self.ingest.declare.passive,
                durable: self.ingest.declare.durable,
                auto_delete: self.ingest.declare.auto_delete,
                arguments: self.ingest.declare.arguments.clone(),
            },
            ingest_bindings: self.ingest.bind.clone(),
            events_exchange: self.events.exchange.clone(),
            devices_exchange: Some(&self.devices.exchange).filter(|it| !it.is_empty()).cloned(),
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
