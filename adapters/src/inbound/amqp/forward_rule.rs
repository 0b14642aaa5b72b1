use std::str::FromStr;

use super::pattern::{Pattern, PatternNames};
use crate::wire::socket::{CustomEventName, InvalidName};

/// A rule of forward mode, written `order.shipped=order:shipped`: devices receive messages with the pattern
/// `order.shipped`, which Belfry does not know, as the event `order:shipped`. The pattern `*` means all unknown
/// patterns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardRule {
    /// `None` for all unknown patterns.
    pattern: Option<String>,
    /// The name of the event for devices.
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
    /// The name of the event that devices receive.
    pub fn event(&self) -> &str {
        self.event.get()
    }

    /// Adds the rule to `names`. Fails if its pattern has a meaning already.
    pub fn add_to(&self, names: &mut PatternNames) -> Result<(), InvalidForwardRule> {
        let custom = Pattern::Custom(self.event.get().clone());
        match &self.pattern {
            Some(name) if names.find(name).is_none() => names.add(name, custom),
            None if !names.has_others() => names.set_others(custom),
            known => {
                let known = known.as_deref().unwrap_or(Self::ALL);
                return Err(InvalidForwardRule::KnownPattern(known.to_owned()));
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
    fn rule_assigns_an_event_to_a_pattern_or_to_all_unknown_patterns() {
        let names = add(&["order.shipped = order:shipped", "*=notification:event"]).unwrap();
        let event = |pattern| names.find_or_other(pattern).unwrap();
        assert_eq!(event("order.shipped"), Pattern::Custom("order:shipped".into()));
        assert_eq!(event("order.paid"), Pattern::Custom("notification:event".into()));
        assert_eq!(event("notification.created"), Pattern::Create);
    }

    #[test]
    fn rule_that_cannot_be_used_is_rejected_with_the_reason() {
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
