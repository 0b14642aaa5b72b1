//! Pushing to devices by Socket.IO.

mod device;
mod frame;
#[cfg(feature = "pieces")]
pub(crate) mod pieces;
mod realtime_delivery;

pub use device::SocketIoDevice;
pub use frame::EventFrame;
pub(crate) use frame::Namespace;
pub use realtime_delivery::SocketIoDelivery;

/// The sessions of devices that are connected by Socket.IO.
pub type SocketIoSessions = belfry_application::session::Sessions<SocketIoDevice>;
