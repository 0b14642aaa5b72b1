//! Events that are published as fast as possible.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::Trial;
use super::progress::Progress;
use crate::clock;
use crate::events::{Events, Form};
use crate::outcome::Flood;
use crate::publisher::Publisher;
use crate::tally::Round;

/// Messages are collected up to this size in bytes, and then written to the broker.
const WRITE: usize = 1 << 16;

/// The events of a flood.
struct FloodPlan {
    form: Form,
    events: Events,
    total: u64,
    /// How many events may be published and not yet delivered; `None` is no limit.
    ahead: Option<u64>,
    /// If true, all events are due at the begin. Otherwise each is due when it is published.
    due_at_once: bool,
}

impl Trial<'_> {
    /// Publishes `total` events for random users as fast as the broker accepts them, with at most `ahead` of
    /// them not yet delivered, and waits for their delivery.
    pub(crate) async fn flood(
        &mut self,
        form: Form,
        total: u64,
        ahead: Option<u64>,
    ) -> anyhow::Result<Flood> {
        let events = Events::for_users(form, self.users);
        self.publish_at_once(FloodPlan { form, events, total, ahead, due_at_once: false }).await
    }

    /// Publishes one event for each user as fast as the broker accepts them, and waits for their delivery.
    /// All events are due when the first one is published.
    pub(crate) async fn broadcast(&mut self, form: Form) -> anyhow::Result<Flood> {
        let events = Events::for_users(form, self.users).in_turn();
        let (total, ahead) = (self.users, None);
        self.publish_at_once(FloodPlan { form, events, total, ahead, due_at_once: true }).await
    }

    async fn publish_at_once(&mut self, plan: FloodPlan) -> anyhow::Result<Flood> {
        let total = plan.total;
        let publisher = self.publisher(plan.form == Form::Store).await?;
        let (round, first) = self.begin(total);
        let window = plan.ahead.map(|ahead| PublishWindow::new(ahead, self.devices, &round));
        let (before, begin) = (self.cpu_snapshot(), Instant::now());
        let publishing = tokio::task::spawn_blocking(move || {
            publish(publisher, plan, first, window.as_ref())?;
            anyhow::Ok(begin.elapsed())
        });
        let published_seconds = publishing.await?.context("publishing failed")?.as_secs_f64();
        let last = self.wait_for_events(&round, total * self.devices).await;
        let seconds = (last - begin).as_secs_f64();
        let cost = self.cost_since(&before, total);
        self.server.must_run()?;
        let (delivery, latency) = (round.delivery_counts(total), self.fleet.take_latency());
        Ok(Flood { delivery, seconds, published_seconds, latency, cost })
    }
}

fn publish(
    mut publisher: Publisher,
    mut plan: FloodPlan,
    first: u64,
    window: Option<&PublishWindow>,
) -> anyhow::Result<()> {
    let due = plan.due_at_once.then(clock::now);
    let mut body = Vec::new();
    for sent in 0..plan.total {
        if let Some(window) = window
            && window.is_full(sent)
        {
            publisher.flush()?;
            window.wait_for_room(sent);
        }
        body.clear();
        plan.events.write(&mut body, first + sent, due.unwrap_or_else(clock::now));
        publisher.push(&body);
        if publisher.pending() > WRITE {
            publisher.flush()?;
        }
    }
    publisher.close()
}

/// Limits how many events a producer publishes ahead of their delivery.
struct PublishWindow {
    max_ahead: u64,
    devices: u64,
    round: Arc<Round>,
}

impl PublishWindow {
    fn new(max_ahead: u64, devices: u64, round: &Arc<Round>) -> Self {
        Self { max_ahead, devices, round: Arc::clone(round) }
    }

    fn is_full(&self, sent: u64) -> bool {
        sent >= self.max_ahead + self.round.arrived() / self.devices
    }

    /// Waits until the window has room, or no more events arrive.
    fn wait_for_room(&self, sent: u64) {
        let mut progress = Progress::of(&self.round);
        while self.is_full(sent) && !progress.has_stopped() {
            std::thread::sleep(Duration::from_millis(1));
            progress.update();
        }
    }
}
