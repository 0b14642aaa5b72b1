//! The fields of a notification that carry its content.

use std::fmt;
use std::str::FromStr;

use crate::text;

/// A headline: 1 to [`Title::MAX_CHARS`] characters without surrounding whitespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title(Box<str>);

/// Why a text is not a [`Title`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTitle {
    /// Only whitespace.
    #[error("a title must not be blank")]
    Blank,
    /// Longer than [`Title::MAX_CHARS`]; contains the actual length in characters.
    #[error("a title has at most {max} characters, this one has {0}", max = Title::MAX_CHARS)]
    TooLong(usize),
    /// Contains a control character other than line breaks and tabs.
    #[error("a title must not contain control characters other than line breaks and tabs")]
    Control,
}

impl Title {
    /// The maximum length in characters.
    pub const MAX_CHARS: usize = 200;

    /// Trims the text and checks it.
    pub fn parse(raw: &str) -> Result<Self, InvalidTitle> {
        let title = raw.trim();
        match title.chars().count() {
            0 => Err(InvalidTitle::Blank),
            n if n > Self::MAX_CHARS => Err(InvalidTitle::TooLong(n)),
            _ if text::has_control(title) => Err(InvalidTitle::Control),
            _ => Ok(Self(title.into())),
        }
    }

    /// The headline as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The body text of a notification: 0 to [`Message::MAX_CHARS`] characters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message(Box<str>);

/// Why a text is not a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// Longer than [`Message::MAX_CHARS`]; contains the actual length in characters.
    #[error("a message has at most {max} characters, this one has {0}", max = Message::MAX_CHARS)]
    TooLong(usize),
    /// Contains a control character other than line breaks and tabs.
    #[error("a message must not contain control characters other than line breaks and tabs")]
    Control,
}

impl Message {
    /// The maximum length in characters.
    pub const MAX_CHARS: usize = 4_000;

    /// Checks the text and keeps it unchanged.
    pub fn parse(raw: &str) -> Result<Self, InvalidMessage> {
        match raw.chars().count() {
            n if n > Self::MAX_CHARS => Err(InvalidMessage::TooLong(n)),
            _ if text::has_control(raw) => Err(InvalidMessage::Control),
            _ => Ok(Self(raw.into())),
        }
    }

    /// The message as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The type of a notification, chosen by the sending application: `order.shipped`, `MENTION`, …
/// 1 to [`NotificationKind::MAX_CHARS`] visible characters. The wire format calls it `type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NotificationKind(Box<str>);

/// The text is not a [`NotificationKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a type has 1 to {} visible characters, without spaces", NotificationKind::MAX_CHARS)]
pub struct InvalidNotificationKind;

impl NotificationKind {
    /// The maximum length in characters.
    pub const MAX_CHARS: usize = 100;

    /// Checks the text and keeps it unchanged.
    pub fn parse(raw: &str) -> Result<Self, InvalidNotificationKind> {
        text::check_visible(raw, Self::MAX_CHARS).map_err(|_| InvalidNotificationKind)?;
        Ok(Self(raw.into()))
    }

    /// The kind as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NotificationKind {
    /// `general`, the kind of a notification whose sender sets none.
    fn default() -> Self {
        Self("general".into())
    }
}

/// Custom data of the application: a JSON object of at most [`Data::MAX_BYTES`] bytes. The domain
/// never parses it; the caller guarantees the syntax.
#[derive(Clone, PartialEq, Eq)]
pub struct Data(Box<str>);

/// The text is too large for [`Data`]; contains its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("data has at most {max} bytes, this has {0}", max = Data::MAX_BYTES)]
pub struct InvalidData(pub usize);

impl Data {
    /// The maximum size in bytes.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Takes a text that the caller knows to be a valid JSON object, and checks its size.
    pub fn from_valid_json(text: impl Into<Box<str>>) -> Result<Self, InvalidData> {
        let text = text.into();
        if text.len() > Self::MAX_BYTES { Err(InvalidData(text.len())) } else { Ok(Self(text)) }
    }

    /// The unchanged text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Data {
    /// Only the size, so that application data never appears in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

/// The target of a tap on a notification: a URI with a scheme, or a relative reference such as a path of the
/// application. It has 1 to [`Link::MAX_CHARS`] visible characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link(Box<str>);

/// Why a text is not a [`Link`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLink {
    /// Empty, too long, or contains invisible characters.
    #[error("a link has 1 to {} visible characters", Link::MAX_CHARS)]
    Malformed,
    /// Uses a scheme that runs code in the page that shows the link.
    #[error("a link must not use the schemes javascript, vbscript or data")]
    ScriptScheme,
}

impl Link {
    /// The maximum length in characters.
    pub const MAX_CHARS: usize = 2_000;

    /// Checks the text and keeps it unchanged. Rejects schemes that run code when the link is
    /// followed. [`LinkSchemes`](super::LinkSchemes) decides which other schemes a new notification may use.
    pub fn parse(raw: &str) -> Result<Self, InvalidLink> {
        text::check_visible(raw, Self::MAX_CHARS).map_err(|_| InvalidLink::Malformed)?;
        let link = Self(raw.into());
        match link.scheme() {
            Some(scheme) if Self::runs_script(&scheme.to_ascii_lowercase()) => {
                Err(InvalidLink::ScriptScheme)
            }
            _ => Ok(link),
        }
    }

    /// The scheme in its original case; `None` for a relative reference (RFC 3986, 4.2).
    pub fn scheme(&self) -> Option<&str> {
        let end = self.0.find([':', '/', '?', '#'])?;
        let scheme = &self.0[..end];
        (self.0[end..].starts_with(':') && Self::is_scheme(scheme)).then_some(scheme)
    }

    /// Whether the text has the form of a scheme (RFC 3986, 3.1).
    pub(super) fn is_scheme(text: &str) -> bool {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    }

    /// Whether following a link of this lower-case scheme runs code in the page that shows it.
    pub(super) fn runs_script(scheme: &str) -> bool {
        matches!(scheme, "javascript" | "vbscript" | "data")
    }

    /// The link as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How urgent a notification is. Belfry passes it on; the application decides what to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Not urgent.
    Low,
    /// The default.
    #[default]
    Normal,
    /// The user should see it soon.
    High,
    /// The user should see it now.
    Urgent,
}

/// The text is not a [`Priority`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a priority is one of low, normal, high, urgent")]
pub struct InvalidPriority;

impl Priority {
    /// The priority's wire name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

impl FromStr for Priority {
    type Err = InvalidPriority;

    fn from_str(raw: &str) -> Result<Self, InvalidPriority> {
        match raw {
            "low" => Ok(Self::Low),
            "normal" => Ok(Self::Normal),
            "high" => Ok(Self::High),
            "urgent" => Ok(Self::Urgent),
            _ => Err(InvalidPriority),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_is_trimmed_and_limited_in_characters() {
        assert_eq!(Title::parse("  Hi \n").unwrap().as_str(), "Hi");
        assert!(Title::parse(&"ß".repeat(200)).is_ok());
        assert_eq!(Title::parse(&"x".repeat(201)), Err(InvalidTitle::TooLong(201)));
        assert_eq!(Title::parse(" \t"), Err(InvalidTitle::Blank));
        assert_eq!(Title::parse("a\u{0}b"), Err(InvalidTitle::Control));
    }

    #[test]
    fn message_may_be_empty_or_have_several_lines() {
        assert_eq!(Message::parse("").unwrap(), Message::default());
        let lines = "one\ntwo\tthree ";
        assert_eq!(Message::parse(lines).unwrap().as_str(), lines);
        assert_eq!(Message::parse("\u{1b}[31m"), Err(InvalidMessage::Control));
        assert!(Message::parse(&"ß".repeat(4_000)).is_ok());
        assert_eq!(Message::parse(&"x".repeat(4_001)), Err(InvalidMessage::TooLong(4_001)));
    }

    #[test]
    fn kind_is_kept_unchanged_and_limited_in_characters() {
        let longest = "ü".repeat(100);
        for raw in ["order.shipped", "MENTION", &longest] {
            assert_eq!(NotificationKind::parse(raw).unwrap().as_str(), raw);
        }
        for raw in ["", "order shipped", &format!("{longest}x")] {
            assert_eq!(NotificationKind::parse(raw), Err(InvalidNotificationKind), "{raw:?}");
        }
        assert_eq!(NotificationKind::default().as_str(), "general");
    }

    #[test]
    fn link_with_a_script_scheme_is_rejected() {
        for raw in ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x"] {
            assert_eq!(Link::parse(raw), Err(InvalidLink::ScriptScheme), "{raw}");
        }
        for raw in ["/orders/7", "https://example.org/a?b=c:d", "myapp://open/7", "#top"] {
            assert_eq!(Link::parse(raw).unwrap().as_str(), raw);
        }
        assert_eq!(Link::parse("java\tscript:alert(1)"), Err(InvalidLink::Malformed));
    }

    #[test]
    fn data_is_limited_in_bytes_and_hidden_in_debug_output() {
        let data = Data::from_valid_json("{\"secret\":1}").unwrap();
        assert_eq!(format!("{data:?}"), "Data(12 bytes)");
        assert_eq!(data.as_str(), "{\"secret\":1}");
        assert!(Data::from_valid_json("ß".repeat(8_192)).is_ok());
        assert_eq!(Data::from_valid_json("x".repeat(16_385)), Err(InvalidData(16_385)));
    }

    #[test]
    fn every_priority_has_a_wire_name_and_is_parsed_from_it() {
        for (priority, name) in [
            (Priority::Low, "low"),
            (Priority::Normal, "normal"),
            (Priority::High, "high"),
            (Priority::Urgent, "urgent"),
        ] {
            assert_eq!(priority.as_str(), name);
            assert_eq!(name.parse(), Ok(priority));
        }
        assert_eq!("URGENT".parse::<Priority>(), Err(InvalidPriority));
    }
}
