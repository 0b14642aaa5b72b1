//! Closing all devices when the node shuts down.

use super::*;

fn devices_of(node: &Node, count: usize) -> Vec<FakeDevice> {
    let join = |n| {
        let device = FakeDevice::new();
        node.join(claims(&format!("u{n}"), 100_000), device.clone());
        device
    };
    (0..count).map(join).collect()
}

fn closed(devices: &[FakeDevice]) -> usize {
    let is_closed = |device: &&FakeDevice| device.close_reason() == Some(CloseReason::ShuttingDown);
    devices.iter().filter(is_closed).count()
}

#[tokio::test(start_paused = true)]
async fn devices_are_closed_at_equal_intervals() {
    let node = node();
    let devices = devices_of(&node, 4);
    let check = async {
        for count in 1..=4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(closed(&devices), count);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::join!(node.sessions.drain(Duration::from_secs(8)), check);
}

#[tokio::test(start_paused = true)]
async fn many_devices_are_closed_within_the_spread() {
    let node = node();
    let devices = devices_of(&node, 100);
    let begin = tokio::time::Instant::now();
    node.sessions.drain(Duration::from_millis(10)).await;
    let took = begin.elapsed();
    assert!((8..=10).contains(&took.as_millis()), "{took:?}");
    assert_eq!(closed(&devices), 100);
}

#[tokio::test(start_paused = true)]
async fn drain_without_devices_returns_at_once() {
    let begin = tokio::time::Instant::now();
    node().sessions.drain(Duration::from_secs(8)).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}
