//! The packets in these tests are Engine.IO's: `4` is a message, here with a Socket.IO packet: `40` connects, `41`
//! disconnects, `42` is an event, and `44` rejects a CONNECT. `1` closes the session, `2` is a ping, and `6` a noop.

use super::super::membership::ConnectId;
use super::super::poll_queue::PollResponse;
use super::*;

const LIMITS: SendLimits = SendLimits { frames: 8, bytes: 10_000 };
const ROOT: Namespace = Namespace::ROOT;
const OTHER: Namespace = Namespace::NOTIFICATIONS;

fn frame(text: &str) -> Bytes {
    text_frame(&[text])
}

/// The body of the response to a poll; empty if the poll waits, and `closed` if it is rejected.
fn fetched(sender: &PacketSender) -> String {
    match sender.poll(None) {
        Some(PollResponse::Ready(body)) => String::from_utf8(body.to_vec()).unwrap(),
        Some(PollResponse::Wait { .. }) => String::new(),
        Some(PollResponse::Overlap) => panic!("one poll at a time"),
        None => "closed".to_owned(),
    }
}

fn connected(sender: &PacketSender, namespace: Namespace) -> ConnectId {
    let connect = sender.begin_connect(namespace);
    assert!(sender.finish_connect(namespace, connect, &frame("40")));
    connect
}

fn disconnect(sender: &PacketSender, namespace: Namespace, connect: ConnectId) {
    sender.disconnect(namespace, connect, &[frame("44")], &frame("41"));
}

#[test]
fn packets_of_a_namespace_are_rejected_before_its_connect_and_after_its_disconnect() {
    let sender = PacketSender::polling(LIMITS);
    let event = frame("42[]");
    let connect = sender.begin_connect(ROOT);
    assert_eq!(sender.send_in(ROOT, connect, [&event].into_iter()), Err(EnqueueError::Closed));
    assert!(sender.finish_connect(ROOT, connect, &frame("40")));
    assert_eq!(sender.send_in(ROOT, connect, [&event].into_iter()), Ok(()));
    sender.leave(ROOT);
    assert_eq!(sender.send_in(ROOT, connect, [&event].into_iter()), Err(EnqueueError::Closed));
    assert_eq!(fetched(&sender), "40\u{1e}42[]");
}

#[test]
fn client_is_connected_only_after_the_response_to_its_connect() {
    let sender = PacketSender::polling(LIMITS);
    let connect = sender.begin_connect(ROOT);
    assert!(sender.is_in_any_namespace() && !sender.is_connected_to_any());
    assert!(sender.finish_connect(ROOT, connect, &frame("40")));
    assert!(sender.is_connected_to_any());
    sender.leave(ROOT);
    assert!(!sender.is_connected_to_any());
}

#[test]
fn second_connect_supersedes_the_first_in_every_phase() {
    let sender = PacketSender::polling(LIMITS);
    let first = sender.begin_connect(ROOT);
    let second = sender.begin_connect(ROOT);
    assert!(!sender.finish_connect(ROOT, first, &frame("40")));
    disconnect(&sender, ROOT, first);
    assert!(!sender.close_for(ROOT, first, false));
    assert!(sender.finish_connect(ROOT, second, &frame("40")));
    let third = connected(&sender, ROOT);
    let event = frame("42[]");
    assert_eq!(sender.send_in(ROOT, second, [&event].into_iter()), Err(EnqueueError::Closed));
    disconnect(&sender, ROOT, second);
    assert_eq!(sender.send_in(ROOT, third, [&event].into_iter()), Ok(()));
    assert_eq!(fetched(&sender), "40\u{1e}40\u{1e}42[]");
    assert_eq!(sender.phase(), SessionPhase::Open);
}

#[test]
fn connect_is_not_answered_after_the_client_has_left() {
    let sender = PacketSender::polling(LIMITS);
    let connect = sender.begin_connect(ROOT);
    sender.leave(ROOT);
    assert!(!sender.finish_connect(ROOT, connect, &frame("40")));
    disconnect(&sender, ROOT, connect);
    assert_eq!(fetched(&sender), "");
}

#[test]
fn transport_is_closed_only_after_the_last_namespace() {
    let sender = PacketSender::polling(LIMITS);
    let (root, other) = (connected(&sender, ROOT), sender.begin_connect(OTHER));
    disconnect(&sender, ROOT, root);
    sender.close_if_disconnected(ROOT, root);
    let phase = sender.phase();
    assert_eq!(phase, SessionPhase::Open, "the client is connecting to the other namespace");
    assert!(!sender.close_for(ROOT, root, true), "the client is not in the namespace any more");
    disconnect(&sender, OTHER, other);
    sender.close_if_disconnected(OTHER, other);
    assert_eq!(sender.phase(), SessionPhase::Closing);
    assert_eq!(sender.send(&frame("2")), Err(EnqueueError::Closed));
    assert_eq!(fetched(&sender), "40\u{1e}41\u{1e}44");
    assert_eq!(fetched(&sender), "closed");
}

#[test]
fn client_whose_queue_has_no_room_for_a_disconnect_is_aborted() {
    let sender = PacketSender::polling(LIMITS);
    let (root, _) = (connected(&sender, ROOT), connected(&sender, OTHER));
    while sender.send(&frame("2")).is_ok() {}
    disconnect(&sender, ROOT, root);
    assert_eq!(sender.phase(), SessionPhase::Aborted);
    assert_eq!(fetched(&sender), "closed");
}

#[tokio::test]
async fn waiting_poll_is_answered_when_the_session_ends() {
    let close = |sender: &PacketSender| sender.close_if_disconnected(ROOT, ConnectId::default());
    for finish in [close, PacketSender::end] {
        let sender = PacketSender::polling(LIMITS);
        let Some(PollResponse::Wait { body, .. }) = sender.poll(None) else {
            panic!("nothing to send")
        };
        finish(&sender);
        assert_eq!(body.await.unwrap(), "6");
    }
}

#[tokio::test]
async fn overlapping_poll_closes_the_session() {
    let sender = PacketSender::polling(LIMITS);
    let Some(PollResponse::Wait { body, .. }) = sender.poll(None) else {
        panic!("nothing to send")
    };
    assert!(matches!(sender.poll(None), Some(PollResponse::Overlap)));
    assert_eq!(body.await.unwrap(), "1");
    assert_eq!(sender.phase(), SessionPhase::Aborted);
}
