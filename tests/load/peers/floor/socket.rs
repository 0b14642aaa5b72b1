//! The writing half of a connection, shared by all who have something to say to it.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;

/// A device that has more than this waiting for it is cut off.
const MAX_BACKLOG: usize = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    /// What the kernel had no room for. While there is any, a task is at work to flush it, and what
    /// comes goes behind it. The lock also keeps frames of several senders apart.
    backlog: Mutex<Vec<u8>>,
    ponged: AtomicBool,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Arc<Self> {
        // The first ping asks after none before it.
        let ponged = AtomicBool::new(true);
        Arc::new(Self { stream, backlog: Mutex::default(), ponged })
    }

    /// Whole frames, straight to the kernel: no other task is woken, as long as there is room.
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
                Ok(_) | Err(_) => self.cut(),
            }
        });
    }

    async fn flush(self: Arc<Self>) {
        while self.stream.writable().await.is_ok() {
            let done = self.with_backlog(|backlog| {
                // Of a socket that is gone, whoever reads it will hear.
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

    /// Ends it from any side: the task that reads it reads its end.
    pub(crate) fn cut(&self) {
        // Tokio shuts down only what it owns; a duplicate is a handle to the same socket. Where none
        // can be had, the next ping tries again.
        if let Ok(duplicate) = self.stream.as_fd().try_clone_to_owned() {
            let _ = std::net::TcpStream::from(duplicate).shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn pong(&self) {
        self.ponged.store(true, Ordering::Relaxed);
    }

    /// Whether a pong has come since this was last asked.
    pub(crate) fn ponged(&self) -> bool {
        self.ponged.swap(false, Ordering::Relaxed)
    }

    fn with_backlog<T>(&self, call: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        call(&mut self.backlog.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As much as the kernel takes, which may be nothing.
fn write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.try_write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
