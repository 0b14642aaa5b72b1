//! Replays to devices that read slowly or not at all.

use super::*;

/// The size of the texts of all notifications that the device was sent, in bytes.
fn sent_bytes(device: &FakeDevice) -> usize {
    let size = |push: &Push| match push {
        Push::New(new) => new.text_bytes(),
        _ => 0,
    };
    device.received().iter().map(size).sum()
}

#[tokio::test(start_paused = true)]
async fn device_that_does_not_read_costs_one_page_and_is_disconnected() {
    let node = node();
    node.store.create((0..100).map(|n| large_draft("ada", n)).collect()).await.unwrap();
    let device = FakeDevice::with_queue_of(10_000);
    let session = node.join(claims("ada", 10_000), device.clone());
    let begin = tokio::time::Instant::now();
    connect(&node.sessions, &session, since(0)).await;
    assert_eq!(device.close_reason(), Some(CloseReason::TooSlow));
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_secs(15) && waited < Duration::from_secs(16), "{waited:?}");
    let queued = sent_bytes(&device);
    assert!((200_000..=256 * 1024).contains(&queued), "{queued}");
}

#[tokio::test(start_paused = true)]
async fn device_with_a_full_send_queue_is_disconnected_after_the_patience() {
    let node = node();
    let device = FakeDevice::with_queue_of(1);
    let session = node.join(claims("ada", 10_000), device.clone());
    let begin = tokio::time::Instant::now();
    // The sync fits into the queue, the count does not.
    connect(&node.sessions, &session, None).await;
    assert_eq!(begin.elapsed(), SessionSettings::default().patience);
    assert_eq!(device.close_reason(), Some(CloseReason::TooSlow));
}

#[tokio::test(start_paused = true)]
async fn next_page_is_sent_after_the_previous_one_is_read() {
    let node = node();
    node.store.create((0..40).map(|n| large_draft("ada", n)).collect()).await.unwrap();
    let device = FakeDevice::with_queue_of(10_000);
    let session = node.join(claims("ada", 10_000), device.clone());
    let reading = async {
        let mut pages = Vec::new();
        while device.received_ids().len() < 40 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            pages.push(device.received_ids().len());
            // The device reads all frames but one, so it has not read the whole page yet.
            device.read_frames(device.queued() - 1);
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert_eq!(device.received_ids().len(), *pages.last().unwrap());
            device.read_all();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        device.read_all();
        pages
    };
    let ((), pages) = tokio::join!(connect(&node.sessions, &session, since(0)), reading);
    assert_eq!(pages, [17, 34, 40]);
    assert_eq!(device.close_reason(), None, "the device reads something every ten seconds");
}

#[tokio::test(start_paused = true)]
async fn slow_device_catches_up_at_its_own_pace() {
    let node = node();
    for n in 0..20 {
        node.store_notification("ada", &format!("n{n}")).await;
    }
    let device = FakeDevice::with_queue_of(3);
    let session = node.join(claims("ada", 10_000), device.clone());
    // The device reads one of 22 frames every 14 seconds: the sync, 20 notifications and the count.
    let reading = async {
        for _ in 0..22 {
            tokio::time::sleep(Duration::from_secs(14)).await;
            device.read_frames(1);
        }
    };
    tokio::join!(connect(&node.sessions, &session, since(0)), reading);
    assert_eq!(device.received_ids().len(), 20);
    assert_eq!(device.close_reason(), None);
}

#[tokio::test(start_paused = true)]
async fn stuck_device_delays_the_next_device_of_its_user_by_a_second() {
    let node = node();
    for name in ["ada", "bob"] {
        node.store_notification(name, "n1").await;
    }
    let join = |name: &str, device: &FakeDevice| node.join(claims(name, 10_000), device.clone());
    let (stuck, next) = (FakeDevice::with_queue_of(10), FakeDevice::new());
    let other_users_device = FakeDevice::new();
    let (first, second) = (join("ada", &stuck), join("ada", &next));
    let third = join("bob", &other_users_device);
    let check = async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(stuck.received_ids(), ["n1"]);
        assert_eq!(next.received().len(), 1, "the sync needs no permit");
        assert_eq!(other_users_device.received_ids(), ["n1"]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(next.received_ids(), ["n1"]);
    };
    tokio::join!(
        connect(&node.sessions, &first, since(0)),
        connect(&node.sessions, &second, since(0)),
        connect(&node.sessions, &third, since(0)),
        check,
    );
    assert_eq!((stuck.close_reason(), next.close_reason()), (Some(CloseReason::TooSlow), None));
}
