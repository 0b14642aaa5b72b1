use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit, counter,
    histogram,
};

use super::*;

/// The deprecated summary. All other durations are histograms.
const SUMMARIES: [&str; 1] = ["belfry_http_request_seconds"];

/// A recorder that only collects the descriptions of metrics.
#[derive(Default)]
struct Descriptions(Mutex<BTreeMap<String, Description>>);

#[derive(Debug, Clone)]
struct Description {
    kind: &'static str,
    unit: Option<Unit>,
    help: String,
}

impl Descriptions {
    fn all() -> BTreeMap<String, Description> {
        let descriptions = Self::default();
        metrics::with_local_recorder(&descriptions, || describe_metrics(&Collector::default()));
        descriptions.0.into_inner().unwrap()
    }

    fn add(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, help: &SharedString) {
        let description = Description { kind, unit, help: help.to_string() };
        let earlier = self.0.lock().unwrap().insert(name.as_str().to_owned(), description);
        assert!(earlier.is_none(), "{} is described twice", name.as_str());
    }
}

impl Recorder for Descriptions {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.add("counter", &name, unit, &help);
    }
    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.add("gauge", &name, unit, &help);
    }
    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.add("histogram", &name, unit, &help);
    }
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

fn runbook() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md");
    std::fs::read_to_string(path).unwrap()
}

/// The names in the tables under the heading `## Metrics` of the runbook.
fn documented(runbook: &str) -> BTreeSet<String> {
    let section = runbook.lines().skip_while(|line| *line != "## Metrics").skip(1);
    let section = section.take_while(|line| !line.starts_with("## "));
    let cells = section.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells.map(|cell| cell.split('{').next().unwrap_or(cell).to_owned()).collect()
}

/// All names anywhere in the runbook that look like metrics, without the suffixes of histograms.
fn named_in(runbook: &str) -> BTreeSet<&str> {
    /// A module and a schema, which are not metrics.
    const OTHERS: [&str; 2] = ["belfry_adapters", "belfry_two"];
    let words = runbook.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    let names = words.filter(|word| word.starts_with("belfry_") && !OTHERS.contains(word));
    let suffixes = ["_bucket", "_sum", "_count"];
    names.map(|name| suffixes.iter().find_map(|it| name.strip_suffix(it)).unwrap_or(name)).collect()
}

#[test]
fn described_metrics_and_the_table_of_the_runbook_agree() {
    let described: BTreeSet<_> = Descriptions::all().into_keys().collect();
    let runbook = runbook();
    assert_eq!(described, documented(&runbook));
    for name in named_in(&runbook) {
        assert!(described.contains(name), "the runbook names the unknown metric {name}");
    }
}

#[test]
fn each_metric_has_help_and_its_name_has_the_base_unit() {
    for (name, Description { kind, unit, help }) in Descriptions::all() {
        assert!(help.ends_with('.'), "{name}: {help}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        let stem = name.trim_end_matches("_total");
        match unit {
            Some(Unit::Seconds) => assert!(stem.ends_with("_seconds"), "{name}"),
            Some(Unit::Bytes) => assert!(stem.ends_with("_bytes"), "{name}"),
            Some(Unit::Count) | None => {
                assert!(!stem.ends_with("_seconds") && !stem.ends_with("_bytes"), "{name}");
            }
            Some(other) => panic!("{name} has the unit {other:?}"),
        }
    }
}

#[test]
fn durations_are_histograms_with_buckets_that_can_be_added() {
    let recorder = recorder().unwrap().build_recorder();
    let described = Descriptions::all();
    let durations = described.iter().filter(|(_, description)| description.kind == "histogram");
    let durations: Vec<_> = durations.map(|(name, _)| name.clone()).collect();
    metrics::with_local_recorder(&recorder, || {
        describe_metrics(&Collector::default());
        for name in &durations {
            histogram!(name.clone()).record(0.003);
        }
        counter!("belfry_events_published_total").increment(1);
    });
    let text = recorder.handle().render();
    for name in &durations {
        let is_summary = SUMMARIES.contains(&name.as_str());
        let kind = if is_summary { "summary" } else { "histogram" };
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}: {text}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}: {text}");
        let has_buckets = text.contains(&format!("{name}_bucket{{le=\"+Inf\"}} 1\n"));
        assert_eq!(has_buckets, !is_summary, "{name}: {text}");
    }
    assert!(text.contains("# TYPE belfry_events_published_total counter\n"), "{text}");
}
