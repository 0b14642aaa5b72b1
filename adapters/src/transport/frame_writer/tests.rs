use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::either::Either;

use super::super::connection_limiter::{ConnectionLimiter, ConnectionLimits};
use super::super::frames::text_frame;
use super::super::peer::ConnectionPermits;
use super::*;

const LIMITS: SendLimits = SendLimits { frames: 64, bytes: 32 * 1024 };

/// The server's two halves of a connection, and its client. Both sides have small buffers in the kernel.
async fn connected() -> (FrameWriter, WebSocketReader, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    for stream in [&server, &client] {
        socket2::SockRef::from(stream).set_send_buffer_size(4_096).unwrap();
        socket2::SockRef::from(stream).set_recv_buffer_size(4_096).unwrap();
    }
    let limiter = ConnectionLimiter::new(ConnectionLimits::default());
    let permits = ConnectionPermits::new(limiter.acquire_connection(None).unwrap());
    let (writer, reader) = split(Stream::plain(Either::Left(server), permits), 1_000);
    (writer, reader, client)
}

fn frame(text: &str) -> Bytes {
    text_frame(&[text])
}

fn write(writer: &FrameWriter, texts: &[&str]) -> Result<(), EnqueueError> {
    let frames: Vec<_> = texts.iter().map(|text| frame(text)).collect();
    writer.write(frames.iter(), LIMITS)
}

/// Reads `count` text frames.
async fn texts(client: &mut TcpStream, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let mut head = [0; 2];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], 0x81, "the client must receive a final text frame");
        let length = match head[1] {
            126 => client.read_u16().await.unwrap().into(),
            127 => client.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut text = vec![0; usize::try_from(length).unwrap()];
        client.read_exact(&mut text).await.unwrap();
        texts.push(String::from_utf8(text).unwrap());
    }
    texts
}

#[tokio::test]
async fn frames_arrive_whole_and_in_order() {
    let (writer, _reader, mut client) = connected().await;
    write(&writer, &["42[1]", "42[2]"]).unwrap();
    write(&writer, &["42[3]"]).unwrap();
    assert_eq!(texts(&mut client, 3).await, ["42[1]", "42[2]", "42[3]"]);
}

#[tokio::test]
async fn frames_for_a_peer_that_does_not_read_are_queued_up_to_the_limits() {
    for (length, limits) in [
        (100, SendLimits { frames: 64, bytes: usize::MAX }),
        (1_000, SendLimits { frames: usize::MAX, bytes: 32 * 1024 }),
    ] {
        let (writer, _reader, mut client) = connected().await;
        let text = |n: usize| format!("42[{n},\"{}\"]", "x".repeat(length));
        let mut sent = 0;
        loop {
            match writer.write([&frame(&text(sent))].into_iter(), limits) {
                Ok(()) => sent += 1,
                Err(error) => break assert_eq!(error, EnqueueError::Full),
            }
        }
        {
            let state = writer.0.0.lock();
            assert!(state.queue.len() <= limits.frames && state.queued_bytes <= limits.bytes);
        }
        let read = texts(&mut client, sent).await;
        assert!(read.iter().enumerate().all(|(n, read)| *read == text(n)));
        tokio::time::timeout(
            Duration::from_secs(10),
            std::future::poll_fn(|cx| writer.poll_drained(cx)),
        )
        .await
        .expect("the queue is empty once the peer has read it");
        write(&writer, &["42[\"again\"]"]).unwrap();
        assert_eq!(texts(&mut client, 1).await, ["42[\"again\"]"]);
    }
}

#[tokio::test]
async fn frame_above_the_byte_limit_is_accepted_by_an_empty_queue() {
    let (writer, _reader, mut client) = connected().await;
    let large = "x".repeat(1_000_000);
    write(&writer, &[&large]).unwrap();
    assert!(writer.queued_bytes() > 0);
    assert_eq!(write(&writer, &["42[]"]), Err(EnqueueError::Full));
    assert_eq!(texts(&mut client, 1).await, [large]);
}

#[tokio::test]
async fn closed_connection_rejects_frames_and_wakes_waiting_tasks() {
    let (writer, reader, mut client) = connected().await;
    while write(&writer, &["x".repeat(1_000).as_str()]).is_ok() {}
    let drained = tokio::spawn({
        let writer = writer.clone();
        async move { std::future::poll_fn(|cx| writer.poll_drained(cx)).await }
    });
    tokio::task::yield_now().await;
    drop(reader);
    tokio::time::timeout(Duration::from_secs(10), drained).await.unwrap().unwrap();
    assert_eq!(write(&writer, &["42[]"]), Err(EnqueueError::Closed));
    // The client reads the bytes that the kernel had accepted, and then the end of the connection.
    let mut accepted = Vec::new();
    let _ = client.read_to_end(&mut accepted).await;
}

#[tokio::test]
async fn written_frames_arrive_although_the_peer_is_still_sending() {
    let (writer, mut reader, mut client) = connected().await;
    client.write_all(&[0; 2_000]).await.unwrap();
    write(&writer, &["41"]).unwrap();
    std::future::poll_fn(|cx| reader.poll_shutdown(cx)).await;
    let client = tokio::spawn(async move {
        let last = texts(&mut client, 1).await;
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        last
    });
    let mut budget = 1 << 20;
    std::future::poll_fn(|cx| reader.poll_discard(cx, &mut budget)).await;
    assert_eq!(budget, (1 << 20) - 2_000);
    assert!(std::future::poll_fn(|cx| reader.poll_frame(cx)).await.is_err());
    assert_eq!(client.await.unwrap(), ["41"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_never_mix_their_frames() {
    const FRAMES_OF_EACH: usize = 2_000;
    let (writer, _reader, mut client) = connected().await;
    let text = |task: char, n: usize| format!("42[\"{task}\",{n},\"{}\"]", "y".repeat(n % 700));
    for task in ['a', 'b'] {
        let writer = writer.clone();
        tokio::spawn(async move {
            for n in 0..FRAMES_OF_EACH {
                while write(&writer, &[&text(task, n)]) == Err(EnqueueError::Full) {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    let read = tokio::time::timeout(Duration::from_mins(1), texts(&mut client, 2 * FRAMES_OF_EACH));
    let read = read.await.unwrap();
    for task in ['a', 'b'] {
        let of_task = read.iter().filter(|text| text.starts_with(&format!("42[\"{task}\"")));
        assert!(of_task.enumerate().all(|(n, read)| *read == text(task, n)), "{task}");
    }
}
