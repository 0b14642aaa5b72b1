//! Socket.IO, version 5: the rules of the protocol's published test suite and of its specification, and
//! behaviour that clients rely on when they connect to a namespace twice, leave it and connect again.
//!
//! A packet begins with `4`, the Engine.IO message, and its Socket.IO type: `0` CONNECT, `1` DISCONNECT, `2` EVENT,
//! `3` ACK, `4` `CONNECT_ERROR`, `5` `BINARY_EVENT`, `6` `BINARY_ACK`. Then follow the number of attachments with `-`
//! (in binary packets only), the namespace with `,`, the ack id and the payload: `451-/custom,12["message",{…}]`.
//! `listen` in `reference.rs` documents the events that the server answers.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::client::{CLOSE, Frame, Polling, WebSocket};
use super::peer::{Case, Peer, Timers, cases};

pub(super) fn socket_io_cases() -> Vec<Case> {
    let mut all = cases![Timers::LONG;
        connect_to_main_namespace_is_answered_with_sid,
        connect_to_custom_namespace_is_answered_with_sid,
        connect_to_unknown_namespace_is_answered_with_connect_error,
        rejected_connect_is_answered_with_the_reason,
        connect_by_polling_is_answered_with_sid,
        both_namespaces_are_open_at_the_same_time,
        sid_differs_from_that_of_the_transport_and_between_namespaces,
        first_packet_other_than_connect_closes_session,
        disconnect_from_main_namespace_is_not_answered,
        disconnect_from_custom_namespace_leaves_the_main_one,
        disconnect_by_the_server_is_sent_to_the_client,
        text_event_is_carried,
        binary_event_is_carried,
        event_of_custom_namespace_is_answered_there,
        binary_event_is_carried_by_polling,
        text_event_is_acknowledged_with_its_id,
        binary_event_is_acknowledged_with_its_id,
        event_of_custom_namespace_is_acknowledged_there,
        ack_without_arguments_is_an_empty_array,
        event_of_the_server_is_acknowledged_by_the_client,
        event_of_the_server_is_acknowledged_with_binary_data,
        events_are_answered_in_order,
        unknown_packet_type_closes_session,
        event_without_a_payload_that_is_a_filled_array_closes_session,
        invalid_ack_id_closes_session,
        namespace_stays_open_through_an_upgrade,
        second_connect_to_a_namespace_replaces_the_first,
        connect_disconnect_connect_in_one_go_ends_connected,
        namespace_that_was_left_can_be_joined_again,
        event_for_a_namespace_that_was_left_is_not_answered,
        event_for_a_namespace_that_was_never_joined_is_not_answered,
    ];
    all.extend(cases![Timers::SHORT_CONNECT_TIMEOUT;
        session_without_connect_is_closed,
    ]);
    all
}

/// The namespace in a packet, with its comma; empty for the main namespace `/`.
fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}

/// Reads the response to a CONNECT and the event after it, and returns the sid.
async fn expect_connected(socket: &mut WebSocket, namespace: &str, auth: &Value) -> Result<String> {
    let prefix = prefix(namespace);
    let Frame::Text(answer) = socket.packet().await? else { bail!("no text") };
    let sid = sid_of(&answer, &prefix)?;
    socket.expect(format!(r#"42{prefix}["auth",{auth}]"#).as_str()).await?;
    Ok(sid)
}

/// The sid in the answer to a CONNECT.
fn sid_of(answer: &str, prefix: &str) -> Result<String> {
    let payload = answer.strip_prefix(&format!("40{prefix}"));
    let payload = payload.with_context(|| format!("CONNECT is answered with {answer:?}"))?;
    let payload: Value = serde_json::from_str(payload)?;
    ensure!(payload.as_object().is_some_and(|fields| fields.len() == 1), "{payload}");
    Ok(payload["sid"].as_str().context("no sid")?.to_owned())
}

/// Connects to a namespace and returns its sid.
async fn connect(socket: &mut WebSocket, namespace: &str) -> Result<String> {
    socket.send(&format!("40{}", prefix(namespace))).await;
    expect_connected(socket, namespace, &json!({})).await
}

/// A WebSocket that is connected to the main namespace.
async fn connected(peer: &Peer) -> Result<WebSocket> {
    let mut socket = WebSocket::open(peer).await?;
    connect(&mut socket, "/").await?;
    Ok(socket)
}

// Connect

async fn connect_to_main_namespace_is_answered_with_sid(peer: &Peer) -> Result<()> {
    connected(peer).await?;
    let mut socket = WebSocket::open(peer).await?;
    socket.send(r#"40{"token":"123"}"#).await;
    expect_connected(&mut socket, "/", &json!({ "token": "123" })).await?;
    Ok(())
}

async fn connect_to_custom_namespace_is_answered_with_sid(peer: &Peer) -> Result<()> {
    // The comma may be missing at the end of a packet.
    for connect in ["", ","] {
        let mut socket = WebSocket::open(peer).await?;
        socket.send(&format!("40{}{connect}", peer.namespace)).await;
        expect_connected(&mut socket, peer.namespace, &json!({})).await?;
    }
    let mut socket = WebSocket::open(peer).await?;
    socket.send(&format!(r#"40{},{{"token":"abc"}}"#, peer.namespace)).await;
    expect_connected(&mut socket, peer.namespace, &json!({ "token": "abc" })).await?;
    Ok(())
}

async fn connect_to_unknown_namespace_is_answered_with_connect_error(peer: &Peer) -> Result<()> {
    for connect in ["40/random", "40/random,", r#"40/random,{"token":"abc"}"#] {
        let mut socket = WebSocket::open(peer).await?;
        socket.send(connect).await;
        socket.expect(r#"44/random,{"message":"Invalid namespace"}"#).await?;
    }
    Ok(())
}

async fn rejected_connect_is_answered_with_the_reason(peer: &Peer) -> Result<()> {
    for namespace in ["/", peer.namespace] {
        let prefix = prefix(namespace);
        let mut socket = WebSocket::open(peer).await?;
        socket.send(&format!(r#"40{prefix}{{"reject":"not today"}}"#)).await;
        socket.expect(format!(r#"44{prefix}{{"message":"not today"}}"#).as_str()).await?;
    }
    Ok(())
}

async fn connect_by_polling_is_answered_with_sid(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    session.send("40").await?;
    let received = session.receive(2).await?;
    sid_of(&received[0], "")?;
    ensure!(received[1] == r#"42["auth",{}]"#, "{received:?}");
    Ok(())
}

async fn both_namespaces_are_open_at_the_same_time(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    connect(&mut socket, peer.namespace).await?;
    for namespace in ["/", peer.namespace, "/"] {
        let prefix = prefix(namespace);
        socket.send(&format!(r#"42{prefix}["message","to {namespace}"]"#)).await;
        let answer = format!(r#"42{prefix}["message-back","to {namespace}"]"#);
        socket.expect(answer.as_str()).await?;
    }
    Ok(())
}

async fn sid_differs_from_that_of_the_transport_and_between_namespaces(peer: &Peer) -> Result<()> {
    let (mut socket, transport) = WebSocket::open_with_sid(peer).await?;
    let main = connect(&mut socket, "/").await?;
    let custom = connect(&mut socket, peer.namespace).await?;
    ensure!(main != transport, "the main namespace uses the transport's sid");
    ensure!(custom != transport, "the custom namespace uses the transport's sid");
    ensure!(main != custom, "both namespaces use the same sid");
    Ok(())
}

async fn first_packet_other_than_connect_closes_session(peer: &Peer) -> Result<()> {
    let custom_event = format!(r#"42{},["message",1]"#, peer.namespace);
    for packet in ["4abc", r#"42["message",1]"#, &custom_event, "41", "430[]"] {
        let mut socket = WebSocket::open(peer).await?;
        socket.send(packet).await;
        socket.expect_closed().await.context(packet.to_owned())?;
    }
    Ok(())
}

async fn session_without_connect_is_closed(peer: &Peer) -> Result<()> {
    WebSocket::open(peer).await?.expect_closed().await?;
    Polling::open(peer).await?.expect_closed().await
}

// Disconnect

/// Expects no message: three pings, or the end of the connection.
async fn expect_no_message(socket: &mut WebSocket) -> Result<()> {
    for _ in 0..3 {
        match socket.frame().await? {
            Frame::Text(text) if text == "2" => socket.send("3").await,
            Frame::Text(text) if text == CLOSE => return socket.expect_closed().await,
            Frame::Closed => return Ok(()),
            frame => bail!("unexpected {frame:?}"),
        }
    }
    Ok(())
}

async fn disconnect_from_main_namespace_is_not_answered(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    socket.send("41").await;
    expect_no_message(&mut socket).await
}

async fn disconnect_from_custom_namespace_leaves_the_main_one(peer: &Peer) -> Result<()> {
    for comma in ["", ","] {
        let mut socket = connected(peer).await?;
        connect(&mut socket, peer.namespace).await?;
        socket.send(&format!("41{}{comma}", peer.namespace)).await;
        socket.send(r#"42["message","still here"]"#).await;
        socket.expect(r#"42["message-back","still here"]"#).await?;
    }
    Ok(())
}

async fn disconnect_by_the_server_is_sent_to_the_client(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    socket.send(r#"42["leave"]"#).await;
    socket.expect("41").await?;
    let mut socket = connected(peer).await?;
    connect(&mut socket, peer.namespace).await?;
    socket.send(&format!(r#"42{},["leave"]"#, peer.namespace)).await;
    socket.expect(format!("41{},", peer.namespace).as_str()).await
}

async fn namespace_that_was_left_can_be_joined_again(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    connect(&mut socket, peer.namespace).await?;
    socket.send(&format!("41{},", peer.namespace)).await;
    connect(&mut socket, peer.namespace).await?;
    socket.send(&format!(r#"42{},1["message-with-ack"]"#, peer.namespace)).await;
    socket.expect(format!("43{},1[]", peer.namespace).as_str()).await
}

// Events and acknowledgements

async fn text_event_is_carried(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    for arguments in [r#"1,"2",{"3":[true]}"#, r#"null,1.5,-7,"é🔔\n\"\\""#, r#""40","2",[]"#] {
        socket.send(&format!(r#"42["message",{arguments}]"#)).await;
        socket.expect(format!(r#"42["message-back",{arguments}]"#).as_str()).await?;
    }
    Ok(())
}

const TWO_PLACEHOLDERS: &str = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;

async fn send_attachments(socket: &mut WebSocket) {
    socket.send_binary(&[1, 2, 3]).await;
    socket.send_binary(&[4, 5, 255]).await;
}

async fn expect_attachments(socket: &mut WebSocket) -> Result<()> {
    socket.expect([1, 2, 3].as_slice()).await?;
    socket.expect([4, 5, 255].as_slice()).await
}

async fn binary_event_is_carried(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    socket.send(&format!(r#"452-["message",{TWO_PLACEHOLDERS}]"#)).await;
    send_attachments(&mut socket).await;
    socket.expect(format!(r#"452-["message-back",{TWO_PLACEHOLDERS}]"#).as_str()).await?;
    expect_attachments(&mut socket).await
}

async fn event_of_custom_namespace_is_answered_there(peer: &Peer) -> Result<()> {
    let namespace = peer.namespace;
    let mut socket = WebSocket::open(peer).await?;
    connect(&mut socket, namespace).await?;
    socket.send(&format!(r#"42{namespace},["message",1]"#)).await;
    socket.expect(format!(r#"42{namespace},["message-back",1]"#).as_str()).await?;
    socket.send(&format!(r#"452-{namespace},["message",{TWO_PLACEHOLDERS}]"#)).await;
    send_attachments(&mut socket).await;
    let answer = format!(r#"452-{namespace},["message-back",{TWO_PLACEHOLDERS}]"#);
    socket.expect(answer.as_str()).await?;
    expect_attachments(&mut socket).await
}

async fn binary_event_is_carried_by_polling(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    session.send("40").await?;
    session.receive(2).await?;
    let placeholder = r#"{"_placeholder":true,"num":0}"#;
    session.send(&format!("451-[\"message\",{placeholder}]\x1ebAQL/")).await?;
    session.expect(&[&format!(r#"451-["message-back",{placeholder}]"#), "bAQL/"]).await
}

async fn text_event_is_acknowledged_with_its_id(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    for id in ["0", "456", "2147483648"] {
        socket.send(&format!(r#"42{id}["message-with-ack",1,"2",{{"3":[false]}}]"#)).await;
        socket.expect(format!(r#"43{id}[1,"2",{{"3":[false]}}]"#).as_str()).await?;
    }
    Ok(())
}

async fn binary_event_is_acknowledged_with_its_id(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    socket.send(&format!(r#"452-789["message-with-ack",{TWO_PLACEHOLDERS}]"#)).await;
    send_attachments(&mut socket).await;
    socket.expect(format!("462-789[{TWO_PLACEHOLDERS}]").as_str()).await?;
    expect_attachments(&mut socket).await
}

async fn event_of_custom_namespace_is_acknowledged_there(peer: &Peer) -> Result<()> {
    let mut socket = WebSocket::open(peer).await?;
    connect(&mut socket, peer.namespace).await?;
    socket.send(&format!(r#"42{},12["message-with-ack","x"]"#, peer.namespace)).await;
    socket.expect(format!(r#"43{},12["x"]"#, peer.namespace).as_str()).await
}

async fn ack_without_arguments_is_an_empty_array(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    socket.send(r#"427["message-with-ack"]"#).await;
    socket.expect("437[]").await
}

/// Makes the server emit `question`, and returns the id of the requested ack.
async fn ask(socket: &mut WebSocket, event: &str) -> Result<String> {
    socket.send(&format!(r#"42["{event}"]"#)).await;
    let Frame::Text(question) = socket.packet().await? else { bail!("no text") };
    let id = question.strip_prefix("42").and_then(|it| it.strip_suffix(r#"["question"]"#));
    let id = id.filter(|id| id.parse::<u64>().is_ok());
    Ok(id.with_context(|| format!("{question:?} is not a question"))?.to_owned())
}

async fn event_of_the_server_is_acknowledged_by_the_client(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    let id = ask(&mut socket, "ask").await?;
    socket.send(&format!(r#"43{id}[5,{{"sure":true}}]"#)).await;
    socket.expect(r#"42["answer",5,{"sure":true}]"#).await
}

async fn event_of_the_server_is_acknowledged_with_binary_data(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    let id = ask(&mut socket, "ask-binary").await?;
    let placeholder = r#"{"_placeholder":true,"num":0}"#;
    socket.send(&format!("461-{id}[{placeholder}]")).await;
    socket.send_binary(&[7, 8, 9]).await;
    socket.expect(format!(r#"451-["answer",{placeholder}]"#).as_str()).await?;
    socket.expect([7, 8, 9].as_slice()).await
}

async fn events_are_answered_in_order(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    for n in 0..50 {
        socket.send(&format!(r#"42["message",{n}]"#)).await;
    }
    for n in 0..50 {
        socket.expect(format!(r#"42["message-back",{n}]"#).as_str()).await?;
    }
    Ok(())
}

// Invalid packets

async fn expect_invalid(peer: &Peer, packets: &[&str]) -> Result<()> {
    for packet in packets {
        let mut socket = connected(peer).await?;
        socket.send(packet).await;
        socket.expect_closed().await.context((*packet).to_owned())?;
    }
    Ok(())
}

async fn unknown_packet_type_closes_session(peer: &Peer) -> Result<()> {
    expect_invalid(peer, &["4abc", "47", "49[]", "4"]).await
}

/// The Node.js server accepts an event without a payload.
async fn event_without_a_payload_that_is_a_filled_array_closes_session(peer: &Peer) -> Result<()> {
    let packets = ["42{}", "42", "42[]", r#"42"message""#, "42[\"message\"", "427", "42null"];
    expect_invalid(peer, &packets).await
}

async fn invalid_ack_id_closes_session(peer: &Peer) -> Result<()> {
    expect_invalid(peer, &[r#"42abc["message-with-ack",1,"2",{"3":[false]}]"#]).await
}

async fn namespace_stays_open_through_an_upgrade(peer: &Peer) -> Result<()> {
    let session = Polling::open(peer).await?;
    session.send("40").await?;
    session.receive(2).await?;
    let mut socket = WebSocket::probe(peer, &session.sid).await?;
    session.send(r#"42["message","by polling"]"#).await?;
    socket.send("5").await;
    socket.send(r#"421["message-with-ack","by websocket"]"#).await;
    socket.expect(r#"42["message-back","by polling"]"#).await?;
    socket.expect(r#"431["by websocket"]"#).await
}

// Repeated CONNECT and DISCONNECT packets, which the protocol leaves unspecified. The Node.js server closes the
// connection after a second CONNECT, and after a CONNECT that arrives before it has processed the DISCONNECT.

async fn second_connect_to_a_namespace_replaces_the_first(peer: &Peer) -> Result<()> {
    for namespace in ["/", peer.namespace] {
        let prefix = prefix(namespace);
        let mut socket = WebSocket::open(peer).await?;
        let first = connect(&mut socket, namespace).await?;
        socket.send(&format!(r#"40{prefix}{{"second":true}}"#)).await;
        let second = expect_connected(&mut socket, namespace, &json!({ "second": true }))
            .await
            .context("the second CONNECT")?;
        ensure!(first != second, "both have the sid {first}");
        socket.send(&format!(r#"42{prefix}1["id"]"#)).await;
        socket.expect(format!(r#"43{prefix}1["{second}"]"#).as_str()).await?;
        socket.send(&format!(r#"42{prefix}["message"]"#)).await;
        socket.expect(format!(r#"42{prefix}["message-back"]"#).as_str()).await?;
        // One DISCONNECT is enough to leave the namespace.
        socket.send(&format!("41{prefix}")).await;
        socket.send(&format!(r#"42{prefix}["message"]"#)).await;
        expect_no_message(&mut socket).await?;
    }
    Ok(())
}

async fn connect_disconnect_connect_in_one_go_ends_connected(peer: &Peer) -> Result<()> {
    let mut socket = WebSocket::open(peer).await?;
    socket.send("40").await;
    socket.send("41").await;
    socket.send(r#"40{"last":true}"#).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|text| text != r#"42["auth",{"last":true}]"#) {
        match socket.packet().await? {
            Frame::Text(text) => seen.push(text),
            frame => bail!("{frame:?} after {seen:?}"),
        }
    }
    socket.send(r#"421["message-with-ack","x"]"#).await;
    socket.expect(r#"431["x"]"#).await
}

async fn event_for_a_namespace_that_was_left_is_not_answered(peer: &Peer) -> Result<()> {
    let mut socket = connected(peer).await?;
    connect(&mut socket, peer.namespace).await?;
    socket.send(&format!("41{},", peer.namespace)).await;
    expect_event_is_not_answered(&mut socket, peer).await
}

async fn event_for_a_namespace_that_was_never_joined_is_not_answered(peer: &Peer) -> Result<()> {
    expect_event_is_not_answered(&mut connected(peer).await?, peer).await
}

/// A server may ignore such an event, or close the connection like the Node.js server.
async fn expect_event_is_not_answered(socket: &mut WebSocket, peer: &Peer) -> Result<()> {
    socket.send(&format!(r#"42{},1["message-with-ack"]"#, peer.namespace)).await;
    socket.send(r#"422["message-with-ack"]"#).await;
    match socket.packet().await? {
        Frame::Text(text) if text == CLOSE => socket.expect_closed().await,
        Frame::Text(text) if text == "432[]" => Ok(()),
        Frame::Closed => Ok(()),
        frame => bail!("unexpected {frame:?}"),
    }
}
