//! The kernel's memory for connections.
//!
//! This memory is not a part of a process's resident set. There are two figures:
//!
//! * The buffers of the server's sockets, from the kernel's socket diagnostics (`ss -tm`). They are exact,
//!   and do not contain the clients' ends of the connections.
//! * The kernel's structures: the growth of `SUnreclaim` and `KernelStack` in /proc/meminfo. This is the
//!   growth of the whole machine, on which the clients run, too. Both ends of a connection have the same
//!   structures, so half of the growth counts as the server's.
//!
//! `SReclaimable` is left out, because cached files change it by more than the connections do. It contains
//! the inode and the directory entry of each socket, 1 KiB together for every server.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use serde::Serialize;

use crate::figures::{float, kib};

/// The kernel's memory at one time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelMemory {
    /// Bytes of the buffers of the server's sockets; `None` without the program `ss` of iproute2.
    buffers: Option<u64>,
    /// Bytes of the structures of the whole machine.
    structures: u64,
}

/// KiB per connection, on the server's side.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct KernelCost {
    pub(crate) buffers_kib: f64,
    pub(crate) structures_kib: f64,
}

impl KernelMemory {
    /// The kernel's memory now, with the sockets of the server at this address.
    pub(crate) fn of(server: SocketAddr) -> Self {
        let filter = format!("( sport = :{} )", server.port());
        let output = Command::new("ss").args(["-tmnH", "state", "connected", &filter]).output();
        let output = output.ok().filter(|output| output.status.success());
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            buffers: output.map(|output| socket_buffers(&String::from_utf8_lossy(&output.stdout))),
            structures: structures(&meminfo),
        }
    }

    /// The growth since `before` for this number of connections.
    pub(crate) fn cost_since(&self, before: &Self, connections: u64) -> KernelCost {
        let each =
            |before: u64, after: u64| kib(float(after) - float(before)) / float(connections.max(1));
        KernelCost {
            buffers_kib: match (before.buffers, self.buffers) {
                (Some(before), Some(after)) => each(before, after),
                _ => f64::NAN,
            },
            structures_kib: each(before.structures, self.structures) / 2.0,
        }
    }
}

/// The sum of all sockets' memory in the output of `ss -tm`: `skmem:(r0,rb131072,t0,tb2626560,f0,w0,o0,bl0,d0)`.
fn socket_buffers(sockets: &str) -> u64 {
    let memory = sockets.split("skmem:(").skip(1).filter_map(|rest| rest.split_once(')'));
    memory.flat_map(|(fields, _)| fields.split(',')).filter_map(field).sum()
}

/// The bytes of a field that is memory: received data (`r`), data to send (`w`), memory reserved for both
/// (`f`), options (`o`) and the backlog (`bl`). `None` for the other fields: limits (`rb`, `tb`), packets of
/// the data to send (`t`), and a count (`d`).
fn field(field: &str) -> Option<u64> {
    let digits = field.find(|c: char| c.is_ascii_digit())?;
    let (name, bytes) = field.split_at(digits);
    if ["r", "w", "f", "o", "bl"].contains(&name) { bytes.parse().ok() } else { None }
}

/// Bytes of the kernel's structures that cannot be reclaimed, and of its stacks.
fn structures(meminfo: &str) -> u64 {
    let kib = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    (kib("SUnreclaim:") + kib("KernelStack:")) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_all_sockets_are_added() {
        let sockets = "ESTAB 0 0 127.0.0.1:8080 127.0.0.2:4000\n\t \
            skmem:(r768,rb131072,t0,tb2626560,f3328,w0,o64,bl0,d5)\n\
            ESTAB 0 0 127.0.0.1:8080 127.0.0.2:4001\n\t \
            skmem:(r0,rb131072,t2304,tb2626560,f1792,w2304,o0,bl16,d0)\n";
        assert_eq!(socket_buffers(sockets), 768 + 3_328 + 64 + 1_792 + 2_304 + 16);
        assert_eq!(socket_buffers(""), 0);
    }

    #[test]
    fn structures_are_read_from_meminfo() {
        let meminfo = "Slab:             1561324 kB\nSReclaimable:    1439148 kB\n\
            SUnreclaim:       122176 kB\nKernelStack:        1696 kB\n";
        assert_eq!(structures(meminfo), (122_176 + 1_696) * 1024);
    }

    #[test]
    fn half_of_the_structures_count_as_the_servers() {
        let before = KernelMemory { buffers: Some(0), structures: 1 << 20 };
        let after = KernelMemory { buffers: Some(20 << 10), structures: 2 << 20 };
        let cost = after.cost_since(&before, 10);
        assert!((cost.buffers_kib - 2.0).abs() < 1e-9);
        assert!((cost.structures_kib - 51.2).abs() < 1e-9);
        let unknown = KernelMemory { buffers: None, ..before };
        assert!(after.cost_since(&unknown, 10).buffers_kib.is_nan());
    }

    #[test]
    fn unread_bytes_are_in_the_socket_buffers() {
        use std::io::Write;

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let mut client = std::net::TcpStream::connect(server).unwrap();
        let _accepted = listener.accept().unwrap();
        client.write_all(&[0; 10_000]).unwrap();
        // Without `ss` there is nothing to test.
        if let Some(buffers) = KernelMemory::of(server).buffers {
            assert!((10_000..200_000).contains(&buffers), "{buffers}");
        }
    }
}
