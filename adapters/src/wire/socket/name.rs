//! Names with a shape, as settings write them: `unreadCount as number`.

use std::borrow::Cow;

/// The text is not a name with an optional shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not a valid name. A name is written into packets without escaping.
    #[error(
        "a name has 1 to 64 visible ASCII characters, without quotation marks, backslashes and commas; \
         a shape follows after \" as \""
    )]
    Malformed,
    /// A name that client libraries use themselves.
    #[error("client libraries use this name themselves")]
    Reserved,
    /// The name of one of Belfry's own events.
    #[error("Belfry sends its own event under this name")]
    OwnEvent,
    /// The shape is unknown. Contains the known shapes.
    #[error("unknown shape; the shapes are {0}")]
    UnknownShape(String),
}

/// Events that Socket.IO clients emit locally.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// A shape of a payload.
pub(super) trait Shape: Copy + PartialEq + Sized + 'static {
    /// Each shape with its name in settings. The first is the default.
    const NAMES: &'static [(Self, &'static str)];

    /// The shape's name in settings.
    fn setting(self) -> &'static str {
        Self::NAMES.iter().find(|(shape, _)| *shape == self).map_or("", |(_, name)| name)
    }
}

/// Parses `<name>` or `<name> as <shape>`.
pub(super) fn parse<S: Shape>(raw: &str) -> Result<(Cow<'static, str>, S), InvalidName> {
    let (name, shape) = match raw.rsplit_once(" as ") {
        None => (raw, S::NAMES[0].0),
        Some((name, shape)) => (name, shape_named(shape.trim())?),
    };
    Ok((checked(name.trim())?.to_owned().into(), shape))
}

fn shape_named<S: Shape>(raw: &str) -> Result<S, InvalidName> {
    let found = S::NAMES.iter().find(|(_, name)| *name == raw);
    found.map(|(shape, _)| *shape).ok_or_else(|| {
        let names: Vec<_> = S::NAMES.iter().map(|(_, name)| *name).collect();
        InvalidName::UnknownShape(names.join(", "))
    })
}

/// Returns the name if it is valid and not reserved.
pub(super) fn checked(name: &str) -> Result<&str, InvalidName> {
    const MAX_LENGTH: usize = 64;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\,".contains(&byte);
    if name.is_empty() || name.len() > MAX_LENGTH || !name.bytes().all(is_plain) {
        return Err(InvalidName::Malformed);
    }
    if RESERVED.contains(&name) {
        return Err(InvalidName::Reserved);
    }
    Ok(name)
}
