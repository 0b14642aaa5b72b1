//! Requests over connections that stay open, as a service sends them: HTTP/1.1 by hand, for the same
//! reason as the sockets.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::clock;
use crate::responses;
use crate::tally::{Latency, no_latency};

/// A connection for one request after the other.
#[derive(Debug)]
pub(crate) struct Http {
    stream: TcpStream,
    host: SocketAddr,
    token: String,
    answer: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(host: SocketAddr, token: String) -> io::Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, host, token, answer: Vec::new() })
    }

    /// Sends a request and waits for its answer: the status and the body.
    pub(crate) async fn ask(&mut self, what: &str, body: &str) -> io::Result<(u16, &[u8])> {
        let (host, token, length) = (self.host, &self.token, body.len());
        let request = format!(
            "{what} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        let (status, body) = loop {
            if let Some(response) = responses::read(&self.answer)? {
                break (response.status, response.length - response.body.len()..response.length);
            }
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        };
        Ok((status, &self.answer[body]))
    }
}

/// Many requests, several in flight.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) server: SocketAddr,
    /// The status that all should be answered with.
    pub(crate) good: u16,
    pub(crate) in_flight: u64,
    pub(crate) time: Duration,
}

/// Who sends some of them, one after the other.
pub(crate) struct Caller<N> {
    pub(crate) token: String,
    /// Makes the next request of this moment: its method and path, and its body.
    pub(crate) next: N,
}

/// What came of them.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) good: u64,
    pub(crate) refused: u64,
    /// From the request to its answer.
    pub(crate) latency: Latency,
    pub(crate) seconds: f64,
}

impl Requests {
    /// Sends requests for that time, each caller the next one when it has its answer.
    pub(crate) async fn run<N>(
        self,
        caller: impl FnMut(u64) -> Caller<N> + Send + 'static,
    ) -> anyhow::Result<Answers>
    where
        N: FnMut(u64) -> (&'static str, String) + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = thread::spawn(move || {
            let answers = runtime.block_on(self.work(caller));
            runtime.shutdown_background();
            answers
        });
        let work = tokio::task::spawn_blocking(move || work.join()).await?;
        work.map_err(|_| anyhow!("the requests panicked"))?
    }

    async fn work<N>(self, mut caller: impl FnMut(u64) -> Caller<N>) -> anyhow::Result<Answers>
    where
        N: FnMut(u64) -> (&'static str, String) + Send + 'static,
    {
        let begin = Instant::now();
        let end = begin + self.time;
        let mut tasks = Vec::new();
        for number in 0..self.in_flight {
            let Caller { token, mut next } = caller(number);
            let http = Http::connect(self.server, token).await;
            let mut http = http.context("no connection for requests")?;
            tasks.push(tokio::spawn(async move {
                let (mut latency, mut good, mut refused) = (no_latency(), 0, 0);
                while Instant::now() < end {
                    let at = clock::now();
                    let (what, body) = next(at);
                    let (status, _) = http.ask(what, &body).await?;
                    latency.saturating_record((clock::now() - at) / 1_000);
                    if status == self.good { good += 1 } else { refused += 1 }
                }
                Ok::<_, io::Error>((latency, good, refused))
            }));
        }
        let mut all = Answers { good: 0, refused: 0, latency: no_latency(), seconds: 0.0 };
        for task in tasks {
            let (latency, good, refused) = task.await??;
            all.latency.add(&latency).context("all have the same bounds")?;
            all.good += good;
            all.refused += refused;
        }
        all.seconds = begin.elapsed().as_secs_f64();
        Ok(all)
    }
}
