//! A connection, shared by the tasks that write to it.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;

/// The maximal size of the send queue in bytes. A client that exceeds it is disconnected.
const MAX_BACKLOG: usize = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    /// The send queue: bytes for which the kernel's buffer had no room. While there are any, a task flushes
    /// them, and new frames are appended. The lock also keeps frames of different senders from being
    /// interleaved.
    backlog: Mutex<Vec<u8>>,
    /// True if a pong has arrived since the last ping.
    ponged: AtomicBool,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Arc<Self> {
        // Before the first ping, no pong is missing.
        let ponged = AtomicBool::new(true);
        Arc::new(Self { stream, backlog: Mutex::default(), ponged })
    }

    /// Writes complete frames directly to the kernel. Only if the kernel's buffer is full, it starts a task
    /// that writes the remaining bytes.
    pub(crate) fn send(self: &Arc<Self>, frames: &[u8]) {
        self.with_backlog(|backlog| {
            let flushing = !backlog.is_empty();
            let written = if flushing { Ok(0) } else { write(&self.stream, frames) };
            match written {
                Ok(all) if all == frames.len() => {}
                Ok(some) if backlog.len() + frames.len() - some <= MAX_BACKLOG => {
                    backlog.extend_from_slice(&frames[some..]);
                    if !flushing {
                        tokio::spawn(Arc::clone(self).flush());
                    }
                }
                Ok(_) | Err(_) => self.abort(),
            }
        });
    }

    /// Writes the backlog until it is empty.
    async fn flush(self: Arc<Self>) {
        while self.stream.writable().await.is_ok() {
            let done = self.with_backlog(|backlog| {
                // If the connection is broken, the reading task notices this and ends the session.
                let Ok(written) = write(&self.stream, backlog) else { return true };
                backlog.drain(..written);
                if backlog.is_empty() {
                    *backlog = Vec::new();
                }
                backlog.is_empty()
            });
            if done {
                return;
            }
        }
    }

    /// Closes the connection from any task. The reading task then sees the end of the stream.
    pub(crate) fn abort(&self) {
        // Tokio's `shutdown` needs `&mut TcpStream`, but the socket is shared. So this shuts down a duplicate
        // of the descriptor. If no descriptor is free, the next ping tries again.
        if let Ok(duplicate) = self.stream.as_fd().try_clone_to_owned() {
            let _ = std::net::TcpStream::from(duplicate).shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn pong(&self) {
        self.ponged.store(true, Ordering::Relaxed);
    }

    /// True if a pong has arrived since the last call.
    pub(crate) fn take_pong(&self) -> bool {
        self.ponged.swap(false, Ordering::Relaxed)
    }

    fn with_backlog<T>(&self, call: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        call(&mut self.backlog.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Writes as many bytes as the kernel accepts, which may be none.
fn write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
