//! The parts of a notification that people and applications read.

use std::fmt;
use std::str::FromStr;

use crate::text;

/// A headline: one to [`Title::MAX_CHARS`] characters, no outer whitespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title(Box<str>);

/// Why a text is not a [`Title`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTitle {
    /// Nothing but whitespace.
    #[error("a title must not be blank")]
    Blank,
    /// Longer than [`Title::MAX_CHARS`]; holds its length.
    #[error("a title has at most {max} characters, this one has {0}", max = Title::MAX_CHARS)]
    TooLong(usize),
    /// A control character.
    #[error("a title must not hold control characters")]
    Control,
}

impl Title {
    /// The most characters a title has.
    pub const MAX_CHARS: usize = 200;

    /// Trims and checks.
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

/// The text of a notification: up to [`Message::MAX_CHARS`] characters, possibly none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message(Box<str>);

/// Why a text is not a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// Longer than [`Message::MAX_CHARS`]; holds its length.
    #[error("a message has at most {max} characters, this one has {0}", max = Message::MAX_CHARS)]
    TooLong(usize),
    /// A control character other than line breaks and tabs.
    #[error("a message must not hold control characters")]
    Control,
}

impl Message {
    /// The most characters a message has.
    pub const MAX_CHARS: usize = 4_000;

    /// Checks; the text is kept as it stands.
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

/// What kind of notification it is, in the words of the application that sends it: `order.shipped`,
/// `MENTION`, … One to [`Kind::MAX_CHARS`] visible characters. On the wire it is called `type`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kind(Box<str>);

/// A text is not a [`Kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a type has 1 to {} visible characters, without spaces", Kind::MAX_CHARS)]
pub struct InvalidKind;

impl Kind {
    /// The most characters a kind has.
    pub const MAX_CHARS: usize = 100;

    /// Takes the text as it stands.
    pub fn parse(raw: &str) -> Result<Self, InvalidKind> {
        text::visible(raw, Self::MAX_CHARS).map_err(|_| InvalidKind)?;
        Ok(Self(raw.into()))
    }

    /// The kind as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Kind {
    /// `general`, for senders that know only one kind.
    fn default() -> Self {
        Self("general".into())
    }
}

/// What an application passes along for its own use: a text of at most [`Data::MAX_BYTES`] bytes
/// that the domain carries and never reads.
///
/// Its syntax (a JSON object) is the edge's promise: whoever makes one has parsed it.
#[derive(Clone, PartialEq, Eq)]
pub struct Data(Box<str>);

/// A text is too large for [`Data`]; holds its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("data has at most {max} bytes, this has {0}", max = Data::MAX_BYTES)]
pub struct InvalidData(pub usize);

impl Data {
    /// The most bytes that data has.
    pub const MAX_BYTES: usize = 16 * 1024;

    /// Checks the size; the syntax has been checked by the caller.
    pub fn of_checked_syntax(text: impl Into<Box<str>>) -> Result<Self, InvalidData> {
        let text = text.into();
        if text.len() > Self::MAX_BYTES { Err(InvalidData(text.len())) } else { Ok(Self(text)) }
    }

    /// The data as it was put in.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Data {
    /// The size only: what applications put here is nobody's business, logs' least of all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

/// Where a tap on a notification leads: a path of the application or an absolute URI, at most
/// [`Link::MAX_CHARS`] visible characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link(Box<str>);

/// Why a text is not a [`Link`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLink {
    /// Empty, too long, or with invisible characters.
    #[error("a link has 1 to {} visible characters", Link::MAX_CHARS)]
    NotALink,
    /// A scheme that runs what it names in the page that shows it.
    #[error("a link must not use the schemes javascript, vbscript or data")]
    RunsCode,
}

impl Link {
    /// The most characters a link has.
    pub const MAX_CHARS: usize = 2_000;

    /// Takes the text as it stands, unless following it would run code in the page that shows it.
    pub fn parse(raw: &str) -> Result<Self, InvalidLink> {
        text::visible(raw, Self::MAX_CHARS).map_err(|_| InvalidLink::NotALink)?;
        let scheme = raw.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("javascript" | "vbscript" | "data") => Err(InvalidLink::RunsCode),
            _ => Ok(Self(raw.into())),
        }
    }

    /// The link as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How urgent a notification is. Belfry passes it on; what it means is the application's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Can wait.
    Low,
    /// The usual one.
    #[default]
    Normal,
    /// Should be noticed soon.
    High,
    /// Should be noticed now.
    Urgent,
}

/// A text is not a [`Priority`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a priority is one of low, normal, high, urgent")]
pub struct InvalidPriority;

impl Priority {
    /// The priority's word.
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
    fn a_title_is_trimmed_and_bounded_in_characters() {
        assert_eq!(Title::parse("  Hi \n").unwrap().as_str(), "Hi");
        assert!(Title::parse(&"ß".repeat(200)).is_ok());
        assert_eq!(Title::parse(&"x".repeat(201)), Err(InvalidTitle::TooLong(201)));
        assert_eq!(Title::parse(" \t"), Err(InvalidTitle::Blank));
        assert_eq!(Title::parse("a\u{0}b"), Err(InvalidTitle::Control));
    }

    #[test]
    fn a_message_may_be_empty_and_have_lines() {
        assert_eq!(Message::parse("").unwrap(), Message::default());
        assert!(Message::parse("one\ntwo\tthree").is_ok());
        assert_eq!(Message::parse("\u{1b}[31m"), Err(InvalidMessage::Control));
        assert_eq!(Message::parse(&"x".repeat(4_001)), Err(InvalidMessage::TooLong(4_001)));
    }

    #[test]
    fn a_link_that_runs_code_is_refused() {
        for raw in ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x"] {
            assert_eq!(Link::parse(raw), Err(InvalidLink::RunsCode), "{raw}");
        }
        for raw in ["/orders/7", "https://example.org/a?b=c:d", "myapp://open/7", "#top"] {
            assert!(Link::parse(raw).is_ok(), "{raw}");
        }
        assert_eq!(Link::parse("java\tscript:alert(1)"), Err(InvalidLink::NotALink));
    }

    #[test]
    fn data_is_bounded_in_bytes_and_silent_in_logs() {
        let data = Data::of_checked_syntax("{\"secret\":1}").unwrap();
        assert_eq!(format!("{data:?}"), "Data(12 bytes)");
        assert_eq!(Data::of_checked_syntax("x".repeat(16_385)), Err(InvalidData(16_385)));
    }

    #[test]
    fn every_priority_is_read_back_from_its_word() {
        for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent] {
            assert_eq!(priority.as_str().parse(), Ok(priority));
        }
        assert_eq!("URGENT".parse::<Priority>(), Err(InvalidPriority));
    }
}
