use std::borrow::Cow;
use std::collections::HashMap;

use super::event::{EventName, EventShape, FIXED, NamedEvent};
use super::message::{AckShape, ClientMessage, MessageName, MessageRule};
use super::presets::{Preset, default_name, default_shape};

/// The names that the operator chose. An event or message without explicit names has the names of the preset.
#[derive(Debug, Clone, Default)]
pub struct SocketNames {
    /// At most one preset of names, and changes of shapes. Empty means [`Preset::Belfry`].
    pub presets: Vec<Preset>,
    /// Explicit names by the index of [`NamedEvent`]. An empty list keeps the preset's names.
    pub events: [Vec<EventName>; NamedEvent::ALL.len()],
    /// Explicit further names by the index of [`ClientMessage`]. An empty list keeps the preset's names.
    pub messages: [Vec<MessageName>; ClientMessage::WITH_ALIASES.len()],
}

/// Why names cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTable {
    /// More than one preset of names.
    #[error(
        "socket.compat has several presets of names; use one, and name the rest in [socket.events]"
    )]
    SeveralPresets,
    /// More names than [`SocketTable::MAX_NAMES`]. Contains the setting.
    #[error("{0} has more than {max} names", max = SocketTable::MAX_NAMES)]
    TooManyNames(&'static str),
    /// A name that would have two meanings. Contains the setting and the name.
    #[error("{0}: the name {1} has another meaning already")]
    Ambiguous(&'static str, String),
    /// A shape that the event or message cannot have. Contains the setting, the name and the possible shapes.
    #[error("{0}: {1} cannot have this shape; possible are {2}")]
    WrongShape(&'static str, String, String),
}

/// The names and shapes in use.
#[derive(Debug, Clone, Default)]
pub struct SocketTable {
    /// Events to devices.
    pub events: EventTable,
    /// Messages of devices.
    pub messages: MessageTable,
}

/// The names and shapes of events, by the index of [`NamedEvent`].
#[derive(Debug, Clone)]
pub struct EventTable([Cow<'static, [EventName]>; NamedEvent::ALL.len()]);

/// The further names of messages.
#[derive(Debug, Clone, Default)]
pub struct MessageTable {
    aliases: HashMap<Cow<'static, str>, (ClientMessage, AckShape)>,
}

impl EventTable {
    /// Belfry's names and shapes.
    pub const BELFRY: Self = {
        const NEW: &[EventName] = &[default_name(NamedEvent::New)];
        const UNREAD_COUNT: &[EventName] = &[default_name(NamedEvent::UnreadCount)];
        const MARKED_READ: &[EventName] = &[default_name(NamedEvent::MarkedRead)];
        const DELETED: &[EventName] = &[default_name(NamedEvent::Deleted)];
        Self([
            Cow::Borrowed(NEW),
            Cow::Borrowed(UNREAD_COUNT),
            Cow::Borrowed(MARKED_READ),
            Cow::Borrowed(DELETED),
        ])
    };

    /// Whether any event is sent under this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|names| names.iter().any(|one| one.name == name))
    }

    /// The names under which the event is sent; at least one.
    pub(crate) fn names(&self, event: NamedEvent) -> &[EventName] {
        &self.0[event as usize]
    }
}

impl Default for EventTable {
    fn default() -> Self {
        Self::BELFRY
    }
}

impl MessageTable {
    /// The meaning of this name; `None` if there is no such message.
    pub(crate) fn find(&self, event: &str) -> Option<MessageRule> {
        if let Some((message, ack)) = self.aliases.get(event).copied() {
            return Some(MessageRule { message, ack, is_alias: true });
        }
        let message = ClientMessage::named(event)?;
        Some(MessageRule { message, ack: AckShape::Belfry, is_alias: false })
    }
}

impl SocketTable {
    /// The maximum number of names of one event or message.
    pub const MAX_NAMES: usize = 16;

    /// Merges the presets with the explicit names.
    pub fn new(names: &SocketNames) -> Result<Self, InvalidTable> {
        Ok(Self { events: event_table(names)?, messages: message_table(names)? })
    }

    /// The table as text, one line for each configurable name.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for event in NamedEvent::ALL {
            lines.extend(
                self.events.names(event).iter().map(|name| format!("{}: {name}", event.setting())),
            );
        }
        let mut messages: Vec<_> = self
            .messages
            .aliases
            .iter()
            .map(|(name, (message, ack))| {
                let name = MessageName { name: name.clone(), ack: *ack };
                format!("{}: {name}", message.setting())
            })
            .collect();
        messages.sort_unstable();
        lines.extend(messages);
        lines
    }
}

impl SocketNames {
    /// The only preset of names, or [`Preset::Belfry`] if there is none.
    fn naming_preset(&self) -> Result<Preset, InvalidTable> {
        let mut of_names = self.presets.iter().filter(|preset| preset.event_names().is_some());
        let preset = of_names.next().copied().unwrap_or(Preset::Belfry);
        if of_names.next().is_some() {
            return Err(InvalidTable::SeveralPresets);
        }
        Ok(preset)
    }

    /// The shape that the presets give to the event.
    fn preset_shape(&self, event: NamedEvent) -> EventShape {
        let changes = self.presets.iter().filter_map(|preset| preset.shape());
        let change = changes.rev().find(|(changed, _)| *changed == event);
        change.map_or(default_shape(event), |(_, shape)| shape)
    }
}

fn event_table(names: &SocketNames) -> Result<EventTable, InvalidTable> {
    let preset_names = names.naming_preset()?.event_names().unwrap_or_default();
    let mut table = EventTable::BELFRY;
    // No event may have the same name as another one, or as one whose name cannot be configured.
    let mut used: Vec<String> = FIXED.map(str::to_owned).to_vec();
    for event in NamedEvent::ALL {
        let its_names = match &names.events[event as usize] {
            explicit if !explicit.is_empty() => explicit.clone(),
            _ => vec![EventName::known(preset_names[event as usize], names.preset_shape(event))],
        };
        let setting = event.setting();
        if its_names.len() > SocketTable::MAX_NAMES {
            return Err(InvalidTable::TooManyNames(setting));
        }
        for event_name in &its_names {
            check_shape(setting, &event_name.name, &event_name.shape, event.shapes())?;
            if used.iter().any(|name| *name == event_name.name) {
                return Err(InvalidTable::Ambiguous(setting, event_name.name.to_string()));
            }
            used.push(event_name.name.to_string());
        }
        table.0[event as usize] = its_names.into();
    }
    Ok(table)
}

fn message_table(names: &SocketNames) -> Result<MessageTable, InvalidTable> {
    let preset = names.naming_preset()?;
    // A client expects the unread count in the same shape in an acknowledgement and in an event.
    let count_shape = match names.preset_shape(NamedEvent::UnreadCount) {
        EventShape::Number => AckShape::Number,
        EventShape::UnreadCount => AckShape::UnreadCount,
        _ => AckShape::Bare,
    };
    let mut table = MessageTable::default();
    for message in ClientMessage::WITH_ALIASES {
        let its_names = match &names.messages[message as usize] {
            explicit if !explicit.is_empty() => explicit.clone(),
            _ if preset == Preset::Belfry => Vec::new(),
            _ => Preset::message_names(message, count_shape),
        };
        let setting = message.setting();
        if its_names.len() > SocketTable::MAX_NAMES {
            return Err(InvalidTable::TooManyNames(setting));
        }
        for MessageName { name, ack } in its_names {
            check_shape(setting, &name, &ack, message.shapes())?;
            let names_another = ClientMessage::named(&name).is_some_and(|other| other != message);
            if names_another || table.aliases.contains_key(&name) {
                return Err(InvalidTable::Ambiguous(setting, name.into_owned()));
            }
            table.aliases.insert(name, (message, ack));
        }
    }
    Ok(table)
}

/// Checks that `shape` is one of the `possible` shapes. The error contains the setting and the name.
fn check_shape<S: super::name::Shape>(
    setting: &'static str,
    name: &str,
    shape: &S,
    possible: &[S],
) -> Result<(), InvalidTable> {
    if possible.contains(shape) {
        return Ok(());
    }
    let possible: Vec<_> = possible.iter().map(|shape| shape.setting()).collect();
    Err(InvalidTable::WrongShape(setting, name.to_owned(), possible.join(", ")))
}

#[cfg(test)]
mod tests;
