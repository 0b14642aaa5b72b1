//! Repeated sign-ins with bad tokens.

use std::time::Instant;

use belfry_tests::wait::PATIENCE;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::raw_flood::{ATTACKER, Prelude, RawFlood, text, upgrade_request};
use super::scenario::AttackScenario;
use super::{PARALLEL, SECOND};
use crate::setup::signed_in;

#[tokio::test]
async fn repeated_bad_tokens_are_throttled_and_other_clients_are_not() {
    const RATE: u32 = 10;

    let scenario =
        AttackScenario::start_with(|it| it.setting("limits.handshakes_per_address", RATE)).await;
    // Both at once: many connections, and many sign-ins on each.
    let first = [upgrade_request(), text(r#"40{"token":"bad"}"#).repeat(20)].concat();
    let attempt = RawFlood { prelude: Prelude::Nothing, first, repeated: vec![], interval: SECOND };
    let (to, begin) = (scenario.address(), Instant::now());
    let attack = join_all((0..PARALLEL).map(|_| async {
        let mut answers = Vec::new();
        // A throttled attempt waits about a second for its answer.
        for _ in 0..10 {
            let sent = Instant::now();
            let received = timeout(PATIENCE, attempt.clone().run(ATTACKER, to)).await;
            answers.push((received.expect("it is closed"), sent.elapsed()));
        }
        answers
    }));
    let newcomer = async { signed_in(scenario.target.deployment.user("newcomer").node()).await };
    let (answers, newcomer) = scenario.run_during(async { tokio::join!(attack, newcomer) }).await;
    let (mut rejected, mut throttled) = (0_u32, 0);
    for (received, delay) in answers.iter().flatten() {
        match received {
            it if it.starts_with("HTTP/1.1 429") => {
                assert!(*delay >= SECOND / 2, "429 after only {delay:?}");
                throttled += 1;
            }
            // Only the last sign-in on a connection is answered. It may itself exceed the rate.
            it if it.contains(r#"44{"message":"token_invalid"}"#)
                || it.contains(r#"44{"message":"too_many_handshakes"}"#) =>
            {
                rejected += 1;
            }
            other => panic!("{other}"),
        }
    }
    // The limit admits a burst of twice the rate, and then the rate.
    let max = RATE * 2 + RATE * u32::try_from(begin.elapsed().as_secs() + 1).unwrap();
    assert!(throttled > 0 && rejected > 0, "{rejected} rejected, {throttled} throttled");
    assert!(rejected <= max, "{rejected} rejected (at most {max}), {throttled} throttled");
    drop(newcomer);
    scenario.assert_nothing_left().await;
}
