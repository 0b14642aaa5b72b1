//! The names and shapes of Socket.IO events and messages, in one table.
//!
//! Clients of other servers use other names. [`SocketNames`] has the operator's choice: presets, and explicit names
//! that override them. [`SocketTable`] is the checked result.

mod event;
mod message;
mod name;
mod presets;
mod table;

pub use event::{CustomEventName, EventName, EventShape, NamedEvent};
pub use message::{AckShape, ClientMessage, MessageName, MessageRule};
pub use name::InvalidName;
pub use presets::{Preset, UnknownPreset};
pub use table::{EventTable, InvalidTable, MessageTable, SocketNames, SocketTable};
