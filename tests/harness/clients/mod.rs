//! Devices and NestJS services, each in its own process. A device runs a Socket.IO client that applications
//! use.
//!
//! `tests/clients/device.mjs` and `device.py` take a configuration and exchange JSON lines with this module.

mod builder;
mod device;
mod nest_service;
mod record;
mod running_script;
mod runtime;
#[cfg(test)]
mod tests;

pub use builder::Builder;
pub use device::Device;
pub use nest_service::NestService;
pub use record::DeviceRecord;
pub use running_script::RunningScript;
pub use runtime::run_script;
