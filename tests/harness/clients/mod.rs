//! Devices: the Socket.IO clients that applications use, each in a process of its own.
//!
//! `tests/clients/device.mjs` and `device.py` take a configuration and exchange JSON lines with this module.

mod builder;
mod device;
mod record;
mod runtime;
#[cfg(test)]
mod tests;

pub use builder::Builder;
pub use device::Device;
pub use record::DeviceRecord;
pub use runtime::run_script;
