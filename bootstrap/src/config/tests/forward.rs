//! The settings of forward mode.

use super::*;

const MODE: (&str, &str) = ("BELFRY_AMQP__INGEST__MODE", "forward");
const URL: (&str, &str) = ("BELFRY_AMQP__URL", "amqp://h");

#[test]
fn forward_mode_needs_a_broker_and_serves_no_development_page() {
    let problem = load(&[MODE]).unwrap_err();
    assert!(problem.contains("amqp.url is not set"), "{problem}");
    assert!(!load(&[MODE, URL]).unwrap().serves_development_page());
    assert!(load(&[URL]).unwrap().serves_development_page());
}

#[test]
fn exchange_whose_messages_return_to_the_ingest_queue_is_rejected() {
    let with = |name, exchange, bind| {
        load(&[MODE, URL, (name, exchange), ("BELFRY_AMQP__INGEST__BIND", bind)])
    };
    let (events, devices) = ("BELFRY_AMQP__EVENTS__EXCHANGE", "BELFRY_AMQP__DEVICES__EXCHANGE");
    for (name, exchange, bind) in [
        (events, "belfry.ingest", ""),
        (events, "shop", "topic:shop:notification.*"),
        (events, "shop", "topic:other:x, topic:shop:#"),
        (devices, "belfry.ingest", ""),
        (devices, "shop", "fanout:shop"),
        (devices, "shop", "topic:shop:*.created"),
    ] {
        let problem = with(name, exchange, bind).unwrap_err();
        assert!(
            problem.contains("to which the ingest queue is bound"),
            "{exchange} {bind}: {problem}"
        );
    }
    for (name, exchange, bind) in [
        (devices, "shop", "topic:shop:notification.*"),
        (devices, "belfry.ingest", "topic:belfry.ingest:notification.*"),
        (devices, "belfry.events", ""),
        (events, "shop", "topic:shop:order.*"),
    ] {
        with(name, exchange, bind).unwrap_or_else(|problem| panic!("{exchange} {bind}: {problem}"));
    }
    let store = load(&[URL, (events, "shop"), ("BELFRY_AMQP__INGEST__BIND", "topic:shop:#")]);
    assert!(store.is_ok(), "store mode recognises its own notifications");
}

#[test]
fn event_of_another_service_cannot_have_the_name_of_an_event_of_belfry() {
    let events = |events| {
        load(&[
            MODE,
            URL,
            ("BELFRY_SOCKET__COMPAT", "camel-case"),
            ("BELFRY_AMQP__FORWARD__EVENTS", events),
        ])
    };
    events("order.shipped=order:shipped, *=notification:event").unwrap();
    for (rules, expected) in [
        ("a=newNotification", "Belfry sends its own event under the name newNotification"),
        ("a=notification:sync", "Belfry sends its own event under this name"),
        ("a=disconnect", "client libraries use this name"),
        ("notification.created=x", "the pattern notification.created has a meaning"),
        ("a", "expected pattern=event"),
    ] {
        let problem = events(rules).unwrap_err();
        assert!(problem.contains("amqp.forward.events"), "{problem}");
        assert!(problem.contains(expected), "{rules}: {problem}");
    }
}
