//! How the ingest queue is declared and bound.

use std::fmt;
use std::str::FromStr;

use lapin::ExchangeKind;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// How the ingest queue is declared. Services that declare it too must use the same properties: RabbitMQ
/// refuses a declaration with other properties, and a NestJS process then exits.
#[derive(Debug, Clone)]
pub struct QueueDeclaration {
    /// Belfry does not declare the queue but waits until another service has declared it.
    pub passive: bool,
    /// The queue survives a restart of the broker.
    pub durable: bool,
    /// The queue is deleted when its last consumer is gone.
    pub auto_delete: bool,
    /// The arguments of the declaration, such as `x-queue-type`.
    pub arguments: Vec<QueueArgument>,
}

impl Default for QueueDeclaration {
    /// The declaration of NestJS for `queueOptions: { durable: true }`.
    fn default() -> Self {
        Self { passive: false, durable: true, auto_delete: false, arguments: Vec::new() }
    }
}

impl QueueDeclaration {
    pub(super) fn options(&self) -> QueueDeclareOptions {
        QueueDeclareOptions {
            durable: self.durable,
            auto_delete: self.auto_delete,
            ..QueueDeclareOptions::default()
        }
    }

    pub(super) fn table(&self) -> FieldTable {
        let mut table = FieldTable::default();
        for QueueArgument { name, value } in &self.arguments {
            table.insert(name.clone(), value.clone());
        }
        table
    }
}

/// One argument of a queue, written `x-max-priority=10`. A whole number, `true` and `false` keep their type;
/// any other value is a string.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueArgument {
    name: ShortString,
    value: AMQPValue,
}

/// The text is not a [`QueueArgument`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected name=value, such as x-queue-type=quorum")]
pub struct InvalidQueueArgument;

impl FromStr for QueueArgument {
    type Err = InvalidQueueArgument;

    fn from_str(text: &str) -> Result<Self, InvalidQueueArgument> {
        let (name, value) = text.split_once('=').ok_or(InvalidQueueArgument)?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() {
            return Err(InvalidQueueArgument);
        }
        let name = ShortString::try_new(name).map_err(|_| InvalidQueueArgument)?;
        let value = match (value.parse::<i64>(), value.parse::<bool>()) {
            (Ok(number), _) => AMQPValue::LongLongInt(number),
            (_, Ok(flag)) => AMQPValue::Boolean(flag),
            _ => AMQPValue::LongString(value.into()),
        };
        Ok(Self { name, value })
    }
}

/// An exchange that the ingest queue is bound to, written `type:exchange:key`, such as
/// `topic:events:notification.*` or `fanout:broadcast`.
#[derive(Debug, Clone, PartialEq)]
pub struct ExchangeBinding {
    pub(super) kind: ExchangeKind,
    pub(super) exchange: ShortString,
    pub(super) key: String,
}

impl ExchangeBinding {
    /// The exchange.
    pub fn exchange(&self) -> &str {
        self.exchange.as_str()
    }

    /// Whether messages may arrive through this binding if the first word of their routing key is `first_word`.
    pub fn may_receive(&self, first_word: &str) -> bool {
        let own_first_word = self.key.split('.').next().unwrap_or_default();
        self.kind == ExchangeKind::Fanout || ["#", "*", first_word].contains(&own_first_word)
    }
}

/// The text is not an [`ExchangeBinding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected type:exchange:key, such as topic:events:notification.* or fanout:broadcast")]
pub struct InvalidExchangeBinding;

impl FromStr for ExchangeBinding {
    type Err = InvalidExchangeBinding;

    fn from_str(text: &str) -> Result<Self, InvalidExchangeBinding> {
        let mut parts = text.trim().splitn(3, ':');
        let (kind, exchange, key) = (parts.next(), parts.next(), parts.next());
        let (kind, key) = match (kind, key) {
            (Some("topic"), Some(key)) => (ExchangeKind::Topic, key),
            (Some("direct"), Some(key)) => (ExchangeKind::Direct, key),
            // A fanout exchange ignores the key.
            (Some("fanout"), key) => (ExchangeKind::Fanout, key.unwrap_or_default()),
            _ => return Err(InvalidExchangeBinding),
        };
        let exchange = exchange.filter(|name| !name.is_empty()).ok_or(InvalidExchangeBinding)?;
        let exchange = ShortString::try_new(exchange).map_err(|_| InvalidExchangeBinding)?;
        Ok(Self { kind, exchange, key: key.to_owned() })
    }
}

impl fmt::Display for ExchangeBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, exchange, key } = self;
        let kind = match kind {
            ExchangeKind::Topic => "topic",
            ExchangeKind::Direct => "direct",
            _ => "fanout",
        };
        write!(f, "{kind}:{exchange}:{key}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_keeps_the_type_of_its_value() {
        let value = |text: &str| text.parse().map(|QueueArgument { value, .. }| value);
        assert_eq!(value("x-max-priority=10"), Ok(AMQPValue::LongLongInt(10)));
        assert_eq!(value("x-single-active-consumer = true"), Ok(AMQPValue::Boolean(true)));
        assert_eq!(value("x-queue-type=quorum"), Ok(AMQPValue::LongString("quorum".into())));
        assert_eq!(value("x-dead-letter-exchange="), Ok(AMQPValue::LongString("".into())));
        for text in ["", "x-max-priority", "=10"] {
            assert_eq!(value(text), Err(InvalidQueueArgument), "{text:?}");
        }
    }

    #[test]
    fn binding_is_parsed_and_displayed() {
        for (text, displayed) in [
            ("topic:events:notification.*", "topic:events:notification.*"),
            ("direct:shop:a:b", "direct:shop:a:b"),
            ("fanout:all", "fanout:all:"),
        ] {
            assert_eq!(text.parse::<ExchangeBinding>().unwrap().to_string(), displayed);
        }
        for text in ["", "events", "topic:events", "topic::x", "headers:events:x", "direct:events"]
        {
            assert_eq!(text.parse::<ExchangeBinding>(), Err(InvalidExchangeBinding), "{text:?}");
        }
    }
}
