//! A client that uses HTTP long polling over one persistent connection.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::clock;
use crate::device::{Device, Recorder};
use crate::incoming;
use crate::packets::Packet;
use crate::responses;

/// The headers that browsers send with each request, about 400 bytes. `Accept-Encoding` is left out: with it,
/// Node would compress responses with several events, and the client would have to decompress them.
const BROWSER: &str = "Connection: keep-alive\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/143.0.0.0 Safari/537.36\r\nAccept: */*\r\nSec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n\
    Accept-Language: en-GB,en;q=0.9,de-DE;q=0.8,de;q=0.7\r\n";

/// Separates the packets of one body.
const SEPARATOR: u8 = 0x1e;

/// A polling session and its connection, with one request at a time. This client posts between two polls, where a
/// browser would post on a second connection while a poll waits.
#[derive(Debug)]
pub(crate) struct PollingClient {
    stream: TcpStream,
    session: Session,
    /// The bytes of an incomplete response; almost always empty.
    unparsed: Vec<u8>,
}

/// The parameters that each request contains.
#[derive(Debug)]
struct Session {
    server: SocketAddr,
    /// Engine.IO's session id; empty before the session is open.
    sid: Box<str>,
    /// The number of requests so far, which is the parameter `t` of the next one.
    requests: u32,
}

/// The actions that the packets of a response require.
#[derive(Debug, Default, PartialEq, Eq)]
struct Actions {
    pong: bool,
    signed_in: bool,
    end: bool,
}

impl PollingClient {
    /// Connects and opens a session, without connecting to a namespace.
    pub(crate) async fn open(device: &Device) -> io::Result<Self> {
        let stream = device.connect().await?;
        let session = Session { server: device.server, sid: "".into(), requests: 0 };
        let mut client = Self { stream, session, unparsed: Vec::new() };
        let mut sid = None;
        let poll = client.session.poll();
        client.request(&poll, |body| sid = session_id(body)).await?;
        client.session.sid = sid.ok_or_else(|| io::Error::other("no session was opened"))?;
        Ok(client)
    }

    /// Connects, opens a session and signs in.
    pub(crate) async fn sign_in(device: &Device, recorder: &Recorder) -> io::Result<Self> {
        let mut client = Self::open(device).await?;
        client.post(&device.connect_packet()).await?;
        loop {
            let actions = client.poll(recorder).await?;
            if actions.end {
                return Err(io::Error::other("connect to the namespace was rejected"));
            }
            if actions.signed_in {
                return Ok(client);
            }
        }
    }

    /// Polls until the server disconnects the client.
    pub(crate) async fn listen(&mut self, recorder: &Recorder) -> io::Result<()> {
        while !self.poll(recorder).await?.end {}
        Ok(())
    }

    /// Disconnects from the namespace and closes the connection.
    pub(crate) async fn leave(mut self) {
        // The connection is closed even if this fails.
        let _ = self.post("41").await;
    }

    /// Posts a packet and waits for the response.
    pub(crate) async fn post(&mut self, packet: &str) -> io::Result<()> {
        let post = self.session.post(packet);
        self.request(&post, |_| ()).await
    }

    /// Waits for the response to one poll, and answers a ping.
    async fn poll(&mut self, recorder: &Recorder) -> io::Result<Actions> {
        let mut actions = Actions::default();
        let poll = self.session.poll();
        self.request(&poll, |body| actions = handle_packets(body, recorder)).await?;
        recorder.counters.polls.fetch_add(1, Relaxed);
        if actions.pong {
            self.post("3").await?;
        }
        Ok(actions)
    }

    /// Sends a request and passes the body of the response to `handle`. Every status except 200 is an error.
    async fn request(&mut self, request: &str, mut handle: impl FnMut(&[u8])) -> io::Result<()> {
        self.stream.write_all(request.as_bytes()).await?;
        let mut complete = false;
        while !complete {
            incoming::read(&mut self.stream, &mut self.unparsed, |bytes| {
                let Some(response) = responses::read(bytes)? else { return Ok(0) };
                if response.status != 200 {
                    return Err(io::Error::other(format!("status {}", response.status)));
                }
                handle(response.body);
                complete = true;
                Ok(response.length)
            })
            .await?;
        }
        Ok(())
    }
}

impl Session {
    /// The next poll; without a session, the request that opens one.
    fn poll(&mut self) -> String {
        let (target, server) = (self.target(), self.server);
        format!("GET {target} HTTP/1.1\r\nHost: {server}\r\n{BROWSER}\r\n")
    }

    fn post(&mut self, packet: &str) -> String {
        let (target, server, length) = (self.target(), self.server, packet.len());
        // The server's own origin. Any other would have to be configured.
        format!(
            "POST {target} HTTP/1.1\r\nHost: {server}\r\nOrigin: http://{server}\r\n{BROWSER}\
             Content-Type: text/plain;charset=UTF-8\r\nContent-Length: {length}\r\n\r\n{packet}"
        )
    }

    fn target(&mut self) -> String {
        self.requests += 1;
        let target = format!("/socket.io/?EIO=4&transport=polling&t={:x}", self.requests);
        if self.sid.is_empty() { target } else { format!("{target}&sid={}", self.sid) }
    }
}

/// The `sid` of Engine.IO's open packet.
fn session_id(body: &[u8]) -> Option<Box<str>> {
    let body = str::from_utf8(body).ok()?;
    let (_, rest) = body.split_once("\"sid\":\"")?;
    let (sid, _) = rest.split_once('"')?;
    Some(sid.into())
}

fn handle_packets(body: &[u8], recorder: &Recorder) -> Actions {
    let read_at = clock::now();
    let mut actions = Actions::default();
    for packet in body.split(|&byte| byte == SEPARATOR) {
        match recorder.record(packet, read_at) {
            Packet::Ping => actions.pong = true,
            Packet::SignedIn => actions.signed_in = true,
            Packet::ConnectError | Packet::Disconnected => actions.end = true,
            Packet::Open | Packet::New(_) | Packet::UnreadCount | Packet::Other => {}
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::tally::{Received, Round};

    fn session(sid: &str) -> Session {
        Session { server: ([127, 0, 0, 1], 8080).into(), sid: sid.into(), requests: 0 }
    }

    #[test]
    fn requests_have_different_tags_and_the_session_id_once_open() {
        let mut session = session("");
        let mut first_line = || session.poll().lines().next().unwrap().to_owned();
        assert_eq!(first_line(), "GET /socket.io/?EIO=4&transport=polling&t=1 HTTP/1.1");
        assert_eq!(first_line(), "GET /socket.io/?EIO=4&transport=polling&t=2 HTTP/1.1");
        session.sid = "abc".into();
        let poll = session.poll();
        assert!(
            poll.starts_with("GET /socket.io/?EIO=4&transport=polling&t=3&sid=abc HTTP/1.1\r\n")
        );
        assert!(poll.ends_with("\r\n\r\n"), "{poll}");
    }

    #[test]
    fn post_contains_packet_and_length_in_bytes() {
        let post = session("abc").post("42[\"ü\"]");
        let (head, body) = post.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("POST /socket.io/?EIO=4&transport=polling&t=1&sid=abc HTTP/1.1\r\n")
        );
        assert!(head.ends_with("\r\nContent-Length: 8"), "{head}");
        assert_eq!(body, "42[\"ü\"]");
    }

    #[test]
    fn session_id_is_read_from_the_open_packet() {
        let open = br#"0{"sid":"a-B_1","upgrades":["websocket"],"pingInterval":25000}"#;
        assert_eq!(session_id(open).as_deref(), Some("a-B_1"));
        assert_eq!(session_id(br#"{"code":1,"message":"Session ID unknown"}"#), None);
    }

    #[test]
    fn all_packets_of_a_response_are_handled() {
        let received = Arc::new(Mutex::new(Received::of(Round::new(0, 0, 2, 1))));
        let recorder =
            Recorder { counters: Arc::default(), received, resume: None, online_since: 0 };
        let body = "40{\"sid\":\"a\"}\u{1e}42[\"notification:new\",{\"data\":{\"seq\":1,\"at\":2}}]\
            \u{1e}42[\"notification:unread_count\",{\"count\":5}]\u{1e}2";
        let actions = handle_packets(body.as_bytes(), &recorder);
        assert_eq!(actions, Actions { pong: true, signed_in: true, end: false });
        let [new, unread] =
            [&recorder.counters.new, &recorder.counters.unread].map(|it| it.load(Relaxed));
        assert_eq!((new, unread), (1, 1));
        assert_eq!(recorder.received.lock().unwrap().latency.len(), 1);
        assert!(handle_packets(b"44{\"message\":\"token_invalid\"}", &recorder).end);
        assert_eq!(handle_packets(b"6", &recorder), Actions::default());
    }
}
