//! Every line that Belfry logs at INFO, WARN or ERROR is explained in the runbook, and every line that the
//! runbook explains is logged.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::source::{Token, TokenKind, product};
use crate::{assert_none, root, sources};

const RUNBOOK: &str = "bootstrap/docs/runbook.md";
const HEADING: &str = "## Log lines";

/// The log lines of the code.
#[derive(Default)]
struct Logged {
    /// Each message with the first place (`file:line`) that logs it.
    messages: BTreeMap<String, String>,
    /// Log lines without a message, or with a value inside the message.
    breaches: Vec<String>,
}

impl Logged {
    fn read(files: &[(PathBuf, String)]) -> Self {
        let mut logged = Self::default();
        for (path, text) in files {
            // An operator never sees the log lines of tests.
            if path.iter().any(|part| part == "tests" || part == "tests.rs") {
                continue;
            }
            let tokens = product(text).tokens;
            for (at, level) in calls(&tokens) {
                let place = format!("{}:{}", path.display(), tokens[at].line);
                logged.add(message(&tokens[at + 2..]), level, place);
            }
        }
        logged
    }

    fn add(&mut self, message: Option<&str>, level: &str, place: String) {
        match message {
            None => self.breaches.push(format!("{place}: {level}! has no message")),
            Some(text) if text.contains(['{', '}']) => self
                .breaches
                .push(format!("{place}: put the value in a field, not in the message: {text}")),
            Some(text) => {
                self.messages.entry(text.to_owned()).or_insert(place);
            }
        }
    }

    fn breaches(mut self, table: &[String]) -> Vec<String> {
        for (message, place) in &self.messages {
            if !table.contains(message) {
                self.breaches.push(format!("{place}: not in the runbook: `{message}`"));
            }
        }
        for message in table {
            if !self.messages.contains_key(message) {
                self.breaches.push(format!("{RUNBOOK}: not logged anywhere: `{message}`"));
            }
        }
        self.breaches
    }
}

/// The calls that log at a level that an operator sees by default: the index of the macro's name, and the level.
fn calls(tokens: &[Token]) -> impl Iterator<Item = (usize, &str)> {
    tokens.windows(3).enumerate().filter_map(|(at, next)| {
        let level = next[0].name().filter(|name| ["info", "warn", "error"].contains(name))?;
        (next[1].is('!') && next[2].is('(')).then_some((at, level))
    })
}

/// The message among a macro's arguments: the first argument that is nothing but a string literal, so not a field
/// (`"name" = value`). `arguments` begins with the opening parenthesis.
fn message(arguments: &[Token]) -> Option<&str> {
    let mut depth = 0;
    for (at, token) in arguments.iter().enumerate() {
        match &token.kind {
            TokenKind::Mark('(' | '[' | '{') => depth += 1,
            TokenKind::Mark(')' | ']' | '}') => depth -= 1,
            TokenKind::Text(text) if depth == 1 => {
                let starts = arguments[at - 1].is('(') || arguments[at - 1].is(',');
                let ends = arguments.get(at + 1).is_some_and(|it| it.is(')') || it.is(','));
                if starts && ends {
                    return Some(text);
                }
            }
            _ => {}
        }
        if depth == 0 {
            return None;
        }
    }
    None
}

/// The texts in backticks in the first column of the table under the heading.
fn explained(runbook: &str) -> Vec<String> {
    let lines = runbook.lines().skip_while(|line| *line != HEADING).skip(1);
    let section = lines.take_while(|line| !line.starts_with("## "));
    let rows = section.filter(|line| line.starts_with('|')).skip(2);
    rows.filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

#[test]
fn log_lines_and_the_runbook_agree() {
    let product = ["domain/src", "application/src", "adapters/src", "bootstrap/src"];
    let files: Vec<_> = product.into_iter().flat_map(sources).collect();
    let runbook = fs::read_to_string(root().join(RUNBOOK)).expect("the runbook can be read");
    let table = explained(&runbook);
    assert!(!table.is_empty(), "{RUNBOOK} has no table under {HEADING:?}");
    assert_none(&Logged::read(&files).breaches(&table));
}

fn found(text: &str, table: &str) -> Vec<String> {
    let runbook =
        format!("# Runbook\n\n{HEADING}\n\n| line | means |\n|---|---|\n{table}\n## More\n| `x` |");
    Logged::read(&[(PathBuf::from("a.rs"), text.to_owned())]).breaches(&explained(&runbook))
}

#[test]
fn a_line_that_only_the_code_or_only_the_runbook_has_is_found() {
    let text =
        "fn f() {\n tracing::warn!(error = &e as &dyn Error, \"store \\\n   unavailable\"); }";
    let expected = [
        "a.rs:2: not in the runbook: `store unavailable`",
        "bootstrap/docs/runbook.md: not logged anywhere: `store gone`",
    ];
    assert_eq!(found(text, "| `store gone` | the `error` says why |"), expected);
}

#[test]
fn a_message_with_a_value_in_it_or_without_a_text_is_found() {
    let expected = [
        "a.rs:1: put the value in a field, not in the message: {n} left",
        "a.rs:1: error! has no message",
    ];
    assert_eq!(found("fn f() { info!(\"{n} left\"); error!(n); }", ""), expected);
}

#[test]
fn lines_that_agree_and_lines_that_operators_do_not_see_are_allowed() {
    let text = "fn f() {
        info!(a = x(\"not this\"), \"named.field\" = 2, c = \"nor this\", \"started\"); warn!(\"slow\");
        debug!(\"not needed\"); // warn!(\"a comment\")
    }
    #[cfg(test)] mod tests { fn g() { warn!(\"in a test\"); } }";
    assert_none(&found(text, "| `started`, `slow` | `fine` |"));
}
