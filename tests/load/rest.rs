//! Requests of a service over persistent connections. The HTTP/1.1 is hand-written, so that it uses little CPU.

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

/// A connection for sequential requests.
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

    /// Sends a request and waits for the response. Returns the status and the body. `target` is the method and the
    /// path, such as `GET /metrics`.
    pub(crate) async fn request(&mut self, target: &str, body: &str) -> io::Result<(u16, &[u8])> {
        let (host, token, length) = (self.host, &self.token, body.len());
        let request = format!(
            "{target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
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

/// Many requests, `in_flight` of them concurrently.
#[derive(Debug)]
pub(crate) struct Requests {
    pub(crate) server: SocketAddr,
    /// The status of a successful response.
    pub(crate) good_status: u16,
    pub(crate) in_flight: u64,
    pub(crate) time: Duration,
}

/// A source of sequential requests.
pub(crate) struct Caller<N> {
    pub(crate) token: String,
    /// Returns the next request: its method with the path, and its body. The argument is the time of the
    /// tool's clock.
    pub(crate) next: N,
}

/// The results of the requests.
#[derive(Debug)]
pub(crate) struct RequestResults {
    /// Responses with the good status.
    pub(crate) good: u64,
    /// Responses with another status.
    pub(crate) refused: u64,
    /// Latency from request to response.
    pub(crate) latency: Latency,
    pub(crate) seconds: f64,
}

impl Requests {
    /// Sends requests for `time`. Each caller sends its next request after the response to the last one.
    pub(crate) async fn run<N>(
        self,
        caller: impl FnMut(u64) -> Caller<N> + Send + 'static,
    ) -> anyhow::Result<RequestResults>
    where
        N: FnMut(u64) -> (&'static str, String) + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = thread::spawn(move || {
            let results = runtime.block_on(self.work(caller));
            runtime.shutdown_background();
            results
        });
        let work = tokio::task::spawn_blocking(move || work.join()).await?;
        work.map_err(|_| anyhow!("a thread of requests panicked"))?
    }

    async fn work<N>(
        self,
        mut caller: impl FnMut(u64) -> Caller<N>,
    ) -> anyhow::Result<RequestResults>
    where
        N: FnMut(u64) -> (&'static str, String) + Send + 'static,
    {
        let begin = Instant::now();
        let end = begin + self.time;
        let mut tasks = Vec::new();
        for number in 0..self.in_flight {
            let Caller { token, mut next } = caller(number);
            let http = Http::connect(self.server, token).await;
            let mut http = http.context("cannot connect for requests")?;
            tasks.push(tokio::spawn(async move {
                let (mut latency, mut good, mut refused) = (no_latency(), 0, 0);
                while Instant::now() < end {
                    let at = clock::now();
                    let (target, body) = next(at);
                    let (status, _) = http.request(target, &body).await?;
                    latency.saturating_record((clock::now() - at) / 1_000);
                    if status == self.good_status { good += 1 } else { refused += 1 }
                }
                Ok::<_, io::Error>((latency, good, refused))
            }));
        }
        let mut all = RequestResults { good: 0, refused: 0, latency: no_latency(), seconds: 0.0 };
        for task in tasks {
            let (latency, good, refused) = task.await??;
            all.latency.add(&latency).context("all histograms have the same bounds")?;
            all.good += good;
            all.refused += refused;
        }
        all.seconds = begin.elapsed().as_secs_f64();
        Ok(all)
    }
}
