//! Whoever takes more than their share is refused, told so, and lets the others be.

use belfry_tests::clients::Device;

use crate::setup::{Setup, signed_in};

on_both_setups!(
    one_device_too_many_sends_the_oldest_away_for_good,
    where_it_is_set_one_device_too_many_is_not_let_in,
);

async fn one_device_too_many_sends_the_oldest_away_for_good(setup: Setup) {
    let place = setup.own_with(|belfry| belfry.setting("limits.sessions_per_user", 2)).await;
    let (ada, bob) = (place.user("ada"), place.user("bob"));
    let bobs = signed_in(bob.node()).await;
    let first = signed_in(ada.node().option("reconnectionDelay", 50)).await;
    let second = signed_in(ada.python().transports(["polling"])).await;
    let third = signed_in(ada.node().transports(["polling"])).await;
    is_sent_away(&first).await;
    let fourth = signed_in(ada.node()).await;
    is_sent_away(&second).await;

    place.until_told(&ada, [&third, &fourth], "n1").await;
    place.until_told(&bob, [&bobs], "n2").await;
    for device in [&first, &second] {
        assert_eq!(device.seen().iter().filter(|seen| seen.kind == "connect").count(), 1);
        assert!(device.events("notification:new").is_empty(), "{}", device.story());
    }
    // Whoever wants it there again has to say so.
    first.reconnect();
    first.of_kind("connect").await;
    is_sent_away(&third).await;
}

async fn is_sent_away(device: &Device) {
    assert_eq!(device.expect("exception").await["code"], "too_many_sessions");
    device.disconnected().await;
}

async fn where_it_is_set_one_device_too_many_is_not_let_in(setup: Setup) {
    let configure = |belfry: belfry_tests::process::Builder| {
        belfry.setting("limits.sessions_per_user", 2).setting("limits.over", "newest")
    };
    let place = setup.own_with(configure).await;
    let (ada, bob) = (place.user("ada"), place.user("bob"));
    let [first, second] = ada.two_devices().await;
    for refused in [ada.node().start(), ada.python().transports(["polling"]).start()] {
        assert_eq!(refused.refused().await, "too_many_sessions");
    }
    let bobs = signed_in(bob.node()).await;
    place.until_told(&ada, [&first, &second], "n1").await;
    place.until_told(&bob, [&bobs], "n2").await;

    first.disconnect();
    first.disconnected().await;
    signed_in(ada.node()).await;
}
