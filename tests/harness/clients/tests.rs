//! Devices are shell scripts here: these tests are about the harness.

use std::process::Command;

use serde_json::Value;

use super::Device;
use crate::child::ChildProcess;

/// A device that runs this script.
fn device(script: &str) -> Device {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Device::new(ChildProcess::new(&mut command, None).unwrap())
}

const TWO_EVENTS: &str = r#"
    echo '{"at":1,"kind":"connect","sid":"a"}'
    echo '{"at":2,"kind":"event","name":"n","args":[{"id":1}]}'
    echo '{"at":3,"kind":"event","name":"other","args":[]}'
    echo '{"at":4,"kind":"event","name":"n","args":[{"id":2}]}'
    read -r command
"#;

#[tokio::test]
async fn events_are_returned_once_and_in_order() {
    let device = device(TWO_EVENTS);
    assert_eq!(device.connected().await.rest["sid"], "a");
    assert_eq!(device.expect("n").await["id"], 1);
    assert_eq!(device.expect("n").await["id"], 2);
    assert_eq!(device.expect("other").await, Value::Null);
    assert_eq!(device.events("n").len(), 2);
}

#[tokio::test]
async fn call_returns_the_ack_of_its_reference() {
    let device = device(
        r#"read -r one; read -r two
        echo '{"kind":"ack","ref":2,"args":["second"]}'
        echo '{"kind":"ack","ref":1,"args":["first"]}'
        read -r end"#,
    );
    let (first, second) = tokio::join!(device.call("a", "x"), device.call("b", "y"));
    assert_eq!((first, second), ("first".into(), "second".into()));
}

#[tokio::test]
async fn failed_attempt_that_the_client_repeats_is_skipped() {
    let device = device(
        r#"echo '{"kind":"connect_error","message":"websocket error","active":true}'
        echo '{"kind":"connect"}'; read -r end"#,
    );
    device.connected().await;
}

#[tokio::test]
#[should_panic(expected = "token_invalid")]
async fn client_that_gives_up_fails_the_wait_for_connect() {
    let device = device(
        r#"echo '{"kind":"connect_error","message":"token_invalid","active":false}'; read -r end"#,
    );
    device.connected().await;
}

#[tokio::test]
#[should_panic(expected = "the process has ended")]
async fn wait_fails_at_once_when_the_device_exits() {
    device("echo '{}'").expect("n").await;
}

#[tokio::test]
#[should_panic(expected = "n arrived")]
async fn unwanted_event_fails_the_test() {
    let device = device(&format!("read -r go; {TWO_EVENTS}"));
    let other = async {
        device.emit("go", Value::Null);
        device.expect("other").await
    };
    device.never("n", other).await;
}
