//! Ports that are still free after a restart of the server.

use std::net::TcpListener;

use crate::names::unique;

/// A free port of the loopback interface.
///
/// The port is below Linux's range for outgoing connections (32768 and up). A port of that range could be
/// taken while its server is down, by any outgoing connection, even by a client that tries to reach the
/// server and connects to itself.
pub fn free() -> u16 {
    const LOWEST: u16 = 11_000;
    const RANGE: u16 = 21_000;

    (0..1_000)
        .map(|_| {
            let random = u64::from_str_radix(&unique(), 16).expect("a UUID is hexadecimal");
            let offset = random % u64::from(RANGE);
            LOWEST + u16::try_from(offset).expect("it is less than 21,000")
        })
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}
