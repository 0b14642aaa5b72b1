use super::*;

fn settings() -> TopologySettings {
    TopologySettings::new("a")
}

#[test]
fn names_are_derived_from_the_ingest_queue_and_the_node() {
    let topology = Topology::new(&settings()).unwrap();
    assert_eq!(topology.dead_queue(), "belfry.ingest.dead");
    assert_eq!(topology.node_queue(), "belfry.node.a");
    let retries = [1, 2, 3, 4, 5, 99].map(|attempts| topology.retry_queue(attempts));
    let last = "belfry.ingest.retry.120s";
    assert_eq!(
        retries,
        [
            "belfry.ingest.retry.1s",
            "belfry.ingest.retry.5s",
            "belfry.ingest.retry.30s",
            last,
            last,
            last
        ]
    );
}

#[test]
fn retry_queue_with_a_delay_below_a_second_is_named_in_milliseconds() {
    let retry_delays = vec![Duration::from_millis(250)];
    let topology = Topology::new(&TopologySettings { retry_delays, ..settings() }).unwrap();
    assert_eq!(topology.retry_queue(1), "belfry.ingest.retry.250ms");
}

#[test]
fn invalid_names_and_limits_are_rejected() {
    let new_with = |change: fn(&mut TopologySettings)| {
        let mut settings = settings();
        change(&mut settings);
        Topology::new(&settings).map(|_| ())
    };
    for change in [
        |s: &mut TopologySettings| s.ingest_queue = String::new(),
        |s: &mut TopologySettings| s.ingest_queue = "amq.gen-x".to_owned(),
        |s: &mut TopologySettings| s.ingest_queue = "q".repeat(253),
        |s: &mut TopologySettings| s.events_exchange = "e".repeat(256),
        |s: &mut TopologySettings| s.node = "n".repeat(255),
        |s: &mut TopologySettings| s.ingest_exchange = Some(String::new()),
    ] {
        assert!(matches!(new_with(change), Err(InvalidTopology::Name(_))));
    }
    let no_delay = |s: &mut TopologySettings| s.retry_delays.clear();
    assert_eq!(new_with(no_delay), Err(InvalidTopology::RetryDelays));
    let zero_delay = |s: &mut TopologySettings| s.retry_delays[0] = Duration::ZERO;
    assert_eq!(new_with(zero_delay), Err(InvalidTopology::RetryDelays));
    for change in [
        |s: &mut TopologySettings| s.node_queue_max_length = 0,
        |s: &mut TopologySettings| s.node_queue_expires = Duration::ZERO,
    ] {
        assert_eq!(new_with(change), Err(InvalidTopology::NodeQueue));
    }
}
