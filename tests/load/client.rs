//! The behaviour of a client: it connects, listens, and may leave or reconnect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::device::{Device, Recorder, Transport};
use crate::outages::Outages;
use crate::random::Random;

/// The behaviour of a client after it has signed in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ClientBehaviour {
    /// Listens until the connection ends.
    Stay,
    /// Reconnects when the connection ends, like socket.io-client: after 1 s, doubling up to 5 s, each ± 50 %. It
    /// reconnects to the given server; `None` is the same server.
    Reconnect(Option<SocketAddr>),
    /// Leaves after about this time, and connects again.
    Churn(Duration),
    /// Loses its connection at intervals, and catches up. `UnstableClient` runs such clients.
    Outages(Outages),
}

/// Runs a client until it has lost its connection and does not reconnect. `connecting` limits the clients
/// that connect at the same time.
pub(crate) async fn run_client(
    mut device: Device,
    transport: Transport,
    behaviour: ClientBehaviour,
    mut random: Random,
    connecting: Arc<Semaphore>,
    recorder: Recorder,
) {
    let (mut failures, mut is_limited) = (0, true);
    loop {
        let permit = if is_limited { connecting.acquire().await.ok() } else { None };
        let connection = device.sign_in(transport, &recorder).await;
        drop(permit);
        let Ok(mut connection) = connection else {
            sleep(back_off(failures, &mut random)).await;
            failures += 1;
            continue;
        };
        failures = 0;
        let is_connected = match behaviour {
            ClientBehaviour::Stay | ClientBehaviour::Reconnect(_) | ClientBehaviour::Outages(_) => {
                let _ = connection.listen(&recorder).await;
                false
            }
            ClientBehaviour::Churn(about) => {
                let stay = jittered(about, &mut random);
                connection.listen_for(stay, &recorder).await
            }
        };
        recorder.counters.record_disconnect();
        if is_connected {
            connection.leave().await;
            continue;
        }
        recorder.counters.cut_off.fetch_add(1, Relaxed);
        match behaviour {
            ClientBehaviour::Stay => return,
            ClientBehaviour::Reconnect(to) => {
                device.server = to.unwrap_or(device.server);
                // Real clients do not wait for each other when they reconnect.
                is_limited = false;
            }
            ClientBehaviour::Churn(_) | ClientBehaviour::Outages(_) => {}
        }
        sleep(back_off(0, &mut random)).await;
        failures = 1;
    }
}

/// The pause before the next attempt, with the defaults of socket.io-client for `reconnectionDelay`,
/// `reconnectionDelayMax` and `randomizationFactor`.
pub(crate) fn back_off(failures: u32, random: &mut Random) -> Duration {
    let doubled = Duration::from_secs(1) * 2_u32.pow(failures.min(4));
    jittered(doubled, random).min(Duration::from_secs(5))
}

/// `time` ± up to 50 %.
fn jittered(time: Duration, random: &mut Random) -> Duration {
    let percent = u32::try_from(50 + random.below(101)).unwrap_or(100);
    time * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnect_delay_doubles_up_to_five_seconds() {
        let mut random = Random::seeded(1);
        for (failures, least, most) in [(0, 500, 1_500), (1, 1_000, 3_000), (9, 5_000, 5_000)] {
            for _ in 0..100 {
                let millis = back_off(failures, &mut random).as_millis();
                assert!((least..=most).contains(&millis), "{failures}: {millis}");
            }
        }
    }
}
