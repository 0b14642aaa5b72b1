use std::str::FromStr;

use super::pattern::{Pattern, PatternNames};
use crate::wire::socket::{CustomEventName, InvalidName};

/// A pattern that Belfry does not know, and the event as which devices receive its messages: forward mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardRule {
    /// `None` for all unknown patterns.
    pattern: Option<String>,
    event: CustomEventName,
}

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidForwardRule {
    /// The text is not a rule.
    #[error("expected pattern=event, such as order.shipped=order:shipped or *=notification:event")]
    Malformed,
    /// The event cannot have this name.
    #[error("{0}: {1}")]
    Event(String, #[source] InvalidName),
    /// Belfry knows the pattern, or another rule has it.
    #[error("the pattern {0} has a meaning already")]
    KnownPattern(String),
}

impl ForwardRule {
    /// The name of the event.
    pub fn event(&self) -> &str {
        self.event.get()
    }

    /// Adds the rule to the names of patterns.
    pub fn add_to(&self, names: &mut PatternNames) -> Result<(), InvalidForwardRule> {
        let pattern = Pattern::Custom(self.event.get().clone());
        let is_new = match &self.pattern {
            Some(name) => names.find(name).is_none(),
            None => !names.has_others(),
        };
        match &self.pattern {
            Some(name) if is_new => names.add(name, pattern),
            None if is_new => names.set_others(pattern),
            pattern => {
                let pattern = pattern.as_deref().unwrap_or(Self::ALL);
                return Err(InvalidForwardRule::KnownPattern(pattern.to_owned()));
            }
        }
        Ok(())
    }

    /// The pattern of a rule for all unknown patterns.
    const ALL: &str = "*";
}

impl FromStr for ForwardRule {
    type Err = InvalidForwardRule;

    fn from_str(raw: &str) -> Result<Self, InvalidForwardRule> {
        let (pattern, event) = raw.rsplit_once('=').ok_or(InvalidForwardRule::Malformed)?;
        let (pattern, event) = (pattern.trim(), event.trim());
        if pattern.is_empty() || (pattern.contains('*') && pattern != Self::ALL) {
            return Err(InvalidForwardRule::Malformed);
        }
        let pattern = (pattern != Self::ALL).then(|| pattern.to_owned());
        let name = event.parse();
        let event = name.map_err(|error| InvalidForwardRule::Event(event.to_owned(), error))?;
        Ok(Self { pattern, event })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(rules: &[&str]) -> Result<PatternNames, String> {
        let mut names = PatternNames::default();
        for rule in rules {
            let rule: ForwardRule =
                rule.parse().map_err(|error: InvalidForwardRule| error.to_string())?;
            rule.add_to(&mut names).map_err(|error| error.to_string())?;
        }
        Ok(names)
    }

    #[test]
    fn rule_gives_a_pattern_or_all_others_an_event() {
        let names = add(&["order.shipped = order:shipped", "*=notification:event"]).unwrap();
        let event = |pattern| names.find_or_other(pattern).unwrap();
        assert_eq!(event("order.shipped"), Pattern::Custom("order:shipped".into()));
        assert_eq!(event("order.paid"), Pattern::Custom("notification:event".into()));
        assert_eq!(event("notification.created"), Pattern::Create);
    }

    #[test]
    fn rule_that_cannot_be_used_is_rejected_with_a_sentence() {
        for (rules, expected) in [
            (&["order.shipped"][..], "expected pattern=event"),
            (&["=x"], "expected pattern=event"),
            (&["order.*=x"], "expected pattern=event"),
            (&["a=connect"], "connect: client libraries use this name"),
            (&["a=notification:new"], "notification:new: Belfry sends its own event"),
            (&["a=x y"], "x y: a name has 1 to 64"),
            (&["notification.created=x"], "the pattern notification.created has a meaning"),
            (&["a=x", "a=y"], "the pattern a has a meaning"),
            (&["*=x", "*=y"], "the pattern * has a meaning"),
        ] {
            let problem = add(rules).unwrap_err();
            assert!(problem.contains(expected), "{rules:?}: {problem}");
        }
    }
}
