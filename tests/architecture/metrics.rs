//! Every metric that the code names is explained in the runbook.
//!
//! A test in `bootstrap` checks the other direction: the runbook explains exactly the metrics that Belfry registers
//! with a description.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::source::{TokenKind, product};
use crate::{assert_none, root, sources};

const RUNBOOK: &str = "bootstrap/docs/runbook.md";

/// Texts that look like a metric's name but name something else, with their meaning.
const EXCEPTIONS: [(&str, &str); 1] = [("belfry_outbox", "a LISTEN/NOTIFY channel of PostgreSQL")];

/// True for texts such as `belfry_amqp_up`.
fn is_metric(text: &str) -> bool {
    let is_name = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    text.starts_with("belfry_") && is_name && EXCEPTIONS.iter().all(|(name, _)| *name != text)
}

/// The names in backticks anywhere in the runbook, without labels.
fn explained(runbook: &str) -> BTreeSet<&str> {
    let names = runbook.split('`').skip(1).step_by(2);
    names.filter_map(|name| name.split('{').next()).collect()
}

fn breaches(files: &[(PathBuf, String)], runbook: &str) -> Vec<String> {
    let explained = explained(runbook);
    let mut breaches = Vec::new();
    for (path, text) in files {
        if path.iter().any(|part| part == "tests" || part == "tests.rs") {
            continue;
        }
        for token in product(text).tokens {
            if let TokenKind::Text(text) = &token.kind
                && is_metric(text)
                && !explained.contains(&**text)
            {
                let place = format!("{}:{}", path.display(), token.line);
                breaches.push(format!("{place}: not in the runbook: {text}"));
            }
        }
    }
    breaches
}

#[test]
fn every_metric_is_in_the_runbook() {
    let files: Vec<_> = ["adapters/src", "bootstrap/src"].into_iter().flat_map(sources).collect();
    let runbook = fs::read_to_string(root().join(RUNBOOK)).expect("the runbook can be read");
    assert_none(&breaches(&files, &runbook));
}

#[test]
fn metric_that_the_runbook_does_not_explain_is_found() {
    let text = "const A: &str = \"belfry_known_total\";
        const B: &str = \"belfry_unknown_total\"; const C: &str = \"belfry_outbox\";
        #[cfg(test)] mod tests { const D: &str = \"belfry_in_a_test\"; }";
    let files = [(PathBuf::from("a.rs"), text.to_owned())];
    let expected = ["a.rs:2: not in the runbook: belfry_unknown_total"];
    assert_eq!(breaches(&files, "| `belfry_known_total{reason}` | |"), expected);
}
