//! Pushing to devices by Socket.IO.

mod device;
mod realtime_delivery;

pub use device::SocketIoDevice;
pub use realtime_delivery::SocketIoDelivery;
