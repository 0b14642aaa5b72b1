//! Errors of the settings library as sentences for an operator.

use figment::Metadata;

use super::error::BadSettings;

/// The name of the source in messages: the path of the file, or the variable or flag.
pub(super) fn source_name(metadata: &Metadata) -> String {
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(file) => format!("in {}", file.display()),
        None => metadata.name.clone().into_owned(),
    }
}

/// The first problem as one sentence, with the setting and its source. It never contains the value of a secret
/// setting.
pub(super) fn sentence(error: figment::Error) -> BadSettings {
    BadSettings::new(describe(error))
}

fn describe(error: figment::Error) -> String {
    use figment::error::Kind;
    let Some(error) = error.into_iter().next() else {
        return "the settings cannot be read".to_owned();
    };
    let path = error.path.join(".");
    let source = error
        .metadata
        .as_ref()
        .map_or_else(String::new, |metadata| format!(" ({})", source_name(metadata)));
    match &error.kind {
        Kind::UnknownField(field, known) => {
            let section = if path.is_empty() { field.clone() } else { path.clone() };
            format!(
                "there is no setting {section}{source}; the settings of {} are {}",
                section.rsplit_once('.').map_or("the top level", |(section, _)| section),
                known.join(", ")
            )
        }
        Kind::InvalidType(_, expected) => {
            format!("setting {path}{source} has the wrong type: expected {expected}")
        }
        Kind::InvalidValue(_, expected) => {
            format!("setting {path}{source} has an invalid value: expected {expected}")
        }
        Kind::UnknownVariant(found, known) => {
            format!("setting {path}{source} is {found}, but must be one of {}", known.join(", "))
        }
        // A syntax error quotes the file, which may hold secrets: keep the position and the reason only.
        Kind::Message(message) if path.is_empty() => {
            let mut lines = message.lines();
            let position = lines.next().unwrap_or_default();
            let reason = lines.next_back().map_or_else(String::new, |why| format!(": {why}"));
            format!("settings{source}: {position}{reason}")
        }
        Kind::Message(message) => format!("setting {path}{source}: {message}"),
        other => format!("setting {path}{source}: {other}"),
    }
}
