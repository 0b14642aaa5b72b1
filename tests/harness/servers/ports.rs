//! Ports that are still free after a restart of the server.

use std::net::TcpListener;

use crate::names::unique;

/// A free port of the loopback interface.
///
/// It is below the range for outgoing connections (32768 and up). While its server is down, a port of that
/// range may be taken by any connection, even by a client that tries to reach the server and connects to
/// itself.
pub fn free() -> u16 {
    const LOWEST: u16 = 11_000;
    const HOW_MANY: u16 = 21_000;

    (0..1_000)
        .map(|_| {
            let random = u64::from_str_radix(&unique(), 16).expect("a UUID is hexadecimal");
            let offset = random % u64::from(HOW_MANY);
            LOWEST + u16::try_from(offset).expect("it is less than 21,000")
        })
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}
