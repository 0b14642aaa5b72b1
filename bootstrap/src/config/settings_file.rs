//! The settings file.

use std::path::{Path, PathBuf};

use belfry_adapters::file_access::{self, FileAccess, UnusableFile};

use super::error::BadSettings;

/// The content of the settings file.
#[derive(Debug)]
pub(super) struct SettingsFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) access: FileAccess,
}

impl SettingsFile {
    /// The file that is read if it exists and no other file is named.
    const DEFAULT_PATH: &str = "belfry.toml";
    const MAX_BYTES: u64 = 1024 * 1024;

    /// Reads the named file or pipe, or the default file if it exists. The default file must belong to this
    /// process's user or to root, because it is in the working directory, where other users may be able to
    /// create files.
    pub(super) fn open(named: Option<PathBuf>) -> Result<Option<Self>, BadSettings> {
        let Some(path) = named else {
            return Self::open_default(Path::new(Self::DEFAULT_PATH));
        };
        Self::read(path).map(Some)
    }

    fn open_default(path: &Path) -> Result<Option<Self>, BadSettings> {
        if !path.is_file() {
            return Ok(None);
        }
        let file = Self::read(path.to_owned())?;
        if file.access.is_foreign() {
            return Err(BadSettings::new(format!(
                "{} in the working directory belongs to another user; name it by --config to use it",
                path.display()
            )));
        }
        Ok(Some(file))
    }

    fn read(path: PathBuf) -> Result<Self, BadSettings> {
        let problem = |problem: &dyn std::fmt::Display| {
            BadSettings::new(format!("settings file {}: {problem}", path.display()))
        };
        let (bytes, access) =
            file_access::read(&path, Self::MAX_BYTES).map_err(|error| match error {
                UnusableFile::Io { error, .. } => problem(&format_args!("cannot read it: {error}")),
                error => problem(&error),
            })?;
        let text = String::from_utf8(bytes).map_err(|_| problem(&"it is not UTF-8"))?;
        // Some editors begin a file with a byte order mark.
        let text = match text.strip_prefix('\u{feff}') {
            Some(without_mark) => without_mark.to_owned(),
            None => text,
        };
        Ok(Self { path, text, access })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    fn problem(named: &Path) -> String {
        SettingsFile::open(Some(named.to_owned())).unwrap_err().to_string()
    }

    #[test]
    fn named_file_must_be_readable_text_that_not_everyone_can_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.toml");
        assert!(problem(&path).contains("settings.toml: cannot read it: No such file"));
        assert!(problem(folder.path()).contains("cannot read it: Is a directory"));
        fs::write(&path, b"\xe9").unwrap();
        assert!(problem(&path).ends_with("settings.toml: it is not UTF-8"));
        fs::write(&path, "\u{feff}[log]").unwrap();
        assert_eq!(SettingsFile::open(Some(path.clone())).unwrap().unwrap().text, "[log]");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        assert!(problem(&path).contains("every user can write to"), "{}", problem(&path));
    }

    #[test]
    fn default_file_of_another_user_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("belfry.toml");
        assert!(SettingsFile::open_default(&path).unwrap().is_none());
        fs::write(&path, "").unwrap();
        assert!(SettingsFile::open_default(&path).unwrap().is_some());
        // Only root can change the owner of a file. Otherwise this part is skipped.
        if chown(&path, Some(65534), None).is_ok() {
            let problem = SettingsFile::open_default(&path).unwrap_err().to_string();
            assert!(problem.contains("belongs to another user"), "{problem}");
            SettingsFile::open(Some(path)).unwrap();
        }
    }
}
