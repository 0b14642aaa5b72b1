use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::super::admission::{Admission, ConnectionLimits};
use super::super::connection::{Connection, Socket};
use super::super::frames::text_frame;
use super::*;

const BOUND: usize = 64;

/// A connection as the library has it, and its client, which has small buffers.
async fn connected() -> (ProtocolSide, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, address) = listener.accept().await.unwrap();
    for stream in [&server, &client] {
        socket2::SockRef::from(stream).set_send_buffer_size(4_096).unwrap();
        socket2::SockRef::from(stream).set_recv_buffer_size(4_096).unwrap();
    }
    let place = Admission::new(ConnectionLimits::default()).connection(None).unwrap();
    let (connection, peer) = Connection::new(Socket::Tcp(server), address, place);
    (ProtocolSide::new(Stream::plain(connection), peer, BOUND), client)
}

fn frame(text: &str) -> Bytes {
    text_frame(&[text])
}

/// Has the library write a first push, so that the next ones need not go by way of it.
async fn warmed_up(library: &mut ProtocolSide, client: &mut TcpStream) {
    let first = frame("42[\"first\"]");
    let outlet = library.outlet();
    outlet.by_library([&first].into_iter(), |_| Ok::<_, ()>(())).unwrap();
    library.write_all(&first).await.unwrap();
    let mut read = vec![0; first.len()];
    client.read_exact(&mut read).await.unwrap();
}

async fn texts(client: &mut TcpStream, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    for _ in 0..count {
        let mut head = [0; 2];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], 0x81, "a frame begins");
        let length = match head[1] {
            126 => client.read_u16().await.unwrap(),
            short => u16::from(short),
        };
        let mut text = vec![0; usize::from(length)];
        client.read_exact(&mut text).await.unwrap();
        texts.push(String::from_utf8(text).unwrap());
    }
    texts
}

#[tokio::test]
async fn a_push_waits_for_those_that_the_library_has_not_written() {
    let (mut library, mut client) = connected().await;
    let outlet = library.outlet();
    let (first, second) = (frame("42[1]"), frame("42[2]"));
    assert_eq!(outlet.write([&first].into_iter()), Err(NotTaken::NotYet));
    outlet.by_library([&first, &second].into_iter(), |_| Ok::<_, ()>(())).unwrap();
    library.write_all(&frame("40{\"sid\":\"s\"}")).await.unwrap();
    library.write_all(&first).await.unwrap();
    assert_eq!(outlet.write([&frame("42[3]")].into_iter()), Err(NotTaken::NotYet));
    library.write_all(&second).await.unwrap();
    assert_eq!(outlet.write([&frame("42[3]"), &frame("42[4]")].into_iter()), Ok(()));
    let said = texts(&mut client, 5).await;
    assert_eq!(said, ["40{\"sid\":\"s\"}", "42[1]", "42[2]", "42[3]", "42[4]"]);
}

#[tokio::test]
async fn what_the_library_could_not_queue_is_not_waited_for() {
    let (mut library, mut client) = connected().await;
    let outlet = library.outlet();
    let (first, second) = (frame("42[1]"), frame("42[2]"));
    let queue = |place| if place == 0 { Ok(()) } else { Err("full") };
    assert_eq!(outlet.by_library([&first, &second].into_iter(), queue), Err("full"));
    library.write_all(&first).await.unwrap();
    assert_eq!(outlet.write([&second].into_iter()), Ok(()));
    assert_eq!(texts(&mut client, 2).await, ["42[1]", "42[2]"]);
}

#[tokio::test]
async fn pushes_that_went_elsewhere_are_not_waited_for() {
    let (mut library, mut client) = connected().await;
    let outlet = library.outlet();
    let (by_polling, by_websocket) = (frame("42[1]"), frame("42[2]"));
    let both = [&by_polling, &by_websocket];
    outlet.by_library(both.into_iter(), |_| Ok::<_, ()>(())).unwrap();
    library.write_all(&by_websocket).await.unwrap();
    assert_eq!(outlet.write([&frame("42[3]")].into_iter()), Ok(()));
    assert_eq!(texts(&mut client, 2).await, ["42[2]", "42[3]"]);
}

#[tokio::test]
async fn a_push_never_comes_into_a_frame_of_the_library() {
    let (mut library, mut client) = connected().await;
    warmed_up(&mut library, &mut client).await;
    let outlet = library.outlet();
    let (theirs, ours) = (frame("43[\"theirs\"]"), frame("42[\"ours\"]"));
    library.write_all(&theirs[..5]).await.unwrap();
    // As the library does: what it shows is all that it has left to write.
    assert_eq!(outlet.write([&ours].into_iter()), Ok(()));
    library.write_all(&theirs[5..]).await.unwrap();
    assert_eq!(texts(&mut client, 2).await, ["43[\"theirs\"]", "42[\"ours\"]"]);
}

#[tokio::test]
async fn a_device_that_does_not_read_has_so_much_wait_and_no_more() {
    let (mut library, mut client) = connected().await;
    warmed_up(&mut library, &mut client).await;
    let outlet = library.outlet();
    let text = |n: usize| format!("42[{n},\"{}\"]", "x".repeat(1_000));
    let mut sent = 0;
    loop {
        match outlet.write([&frame(&text(sent))].into_iter()) {
            Ok(()) => sent += 1,
            Err(not_taken) => break assert_eq!(not_taken, NotTaken::Full),
        }
    }
    assert!(sent > BOUND, "some the kernel took");
    let said = texts(&mut client, sent).await;
    assert!(said.iter().enumerate().all(|(n, said)| *said == text(n)));
    // All is well again once it has read.
    let again = async {
        while outlet.write([&frame("42[\"again\"]")].into_iter()).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
    assert_eq!(texts(&mut client, 1).await, ["42[\"again\"]"]);
}

#[tokio::test]
async fn nothing_waits_for_a_connection_that_is_gone() {
    let (mut library, mut client) = connected().await;
    warmed_up(&mut library, &mut client).await;
    let outlet = library.outlet();
    while outlet.write([&frame(&"x".repeat(1_000))].into_iter()).is_ok() {}
    drop(library);
    assert_eq!(outlet.write([&frame("42[]")].into_iter()), Err(NotTaken::Closed));
    tokio::time::timeout(Duration::from_secs(10), async {
        while !outlet.is_gone() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn where_there_is_no_library_nothing_waits_for_it() {
    let (side, mut client) = connected().await;
    let outlet = side.only_outlet();
    assert_eq!(outlet.write([&frame("0{}"), &frame("42[1]")].into_iter()), Ok(()));
    assert_eq!(texts(&mut client, 2).await, ["0{}", "42[1]"]);
}

#[tokio::test]
async fn nothing_follows_the_last_word_and_then_the_connection_is_cut() {
    let (side, mut client) = connected().await;
    let outlet = side.only_outlet();
    let mut sent = 0;
    while outlet.write([&frame(&"x".repeat(1_000))].into_iter()).is_ok() {
        sent += 1;
    }
    // Some of it waits; with the first that is read there is room for the last word.
    texts(&mut client, sent).await;
    while outlet.has_waiting() {
        tokio::task::yield_now().await;
    }
    outlet.say_last(&frame("41"));
    assert!(side.has_said_last());
    assert_eq!(outlet.write([&frame("42[]")].into_iter()), Err(NotTaken::Closed));
    assert_eq!(texts(&mut client, 1).await, ["41"]);
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_write_whole_frames_in_their_own_order() {
    const EACH: usize = 2_000;
    let (mut library, mut client) = connected().await;
    warmed_up(&mut library, &mut client).await;
    let outlet = library.outlet();
    let text = |who: char, n: usize| format!("42[\"{who}\",{n},\"{}\"]", "y".repeat(n % 700));
    let ours = tokio::spawn(async move {
        for n in 0..EACH {
            let frame = frame(&text('o', n));
            while outlet.write([&frame].into_iter()) == Err(NotTaken::Full) {
                tokio::task::yield_now().await;
            }
        }
    });
    let theirs = tokio::spawn(async move {
        for n in 0..EACH {
            library.write_all(&frame(&text('t', n))).await.unwrap();
            library.flush().await.unwrap();
        }
        library
    });
    let said = tokio::time::timeout(Duration::from_mins(1), texts(&mut client, 2 * EACH));
    let said = said.await.unwrap();
    for who in ['o', 't'] {
        let of_one = said.iter().filter(|text| text.starts_with(&format!("42[\"{who}\"")));
        assert!(of_one.enumerate().all(|(n, said)| *said == text(who, n)), "{who}");
    }
    ours.await.unwrap();
    drop(theirs.await.unwrap());
}
