//! Owner and permissions of files that decide who may sign in: keys, secrets and settings.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Owner and permissions of a file. They are read from the open file and not from its path, because a path could
/// lead to another file by the time it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileAccess {
    /// User id of the owner.
    pub owner: u32,
    /// Permission bits, such as `0o600`.
    pub mode: u32,
    /// False for a pipe.
    is_regular: bool,
}

impl FileAccess {
    /// Reads owner and permissions of the open file.
    pub fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::from(&metadata))
    }

    /// Whether every user of the machine can change the file. Group permissions are ignored, because on many
    /// systems the group is the owner's private one. False for a pipe, which is read only once.
    pub const fn is_writable_by_everyone(self) -> bool {
        self.is_regular && self.mode & 0o002 != 0
    }

    /// Whether every user of the machine can read the file. False for a pipe.
    pub const fn is_readable_by_everyone(self) -> bool {
        self.is_regular && self.mode & 0o004 != 0
    }

    /// Whether only the owner can read or change the file.
    #[expect(clippy::verbose_bit_mask, reason = "the permission bits are read in octal")]
    pub const fn is_private(self) -> bool {
        self.mode & 0o077 == 0
    }

    /// Whether the file belongs to the user that this process runs as.
    pub fn is_own(self) -> bool {
        self.owner == rustix::process::geteuid().as_raw()
    }

    /// Whether the file belongs neither to this process's user nor to root, so that another user can change it.
    /// False for a pipe.
    pub fn is_foreign(self) -> bool {
        self.is_regular && self.owner != 0 && !self.is_own()
    }
}

impl From<&Metadata> for FileAccess {
    fn from(metadata: &Metadata) -> Self {
        Self {
            owner: metadata.uid(),
            // Without the bits for the type of the file.
            mode: metadata.mode() & 0o7777,
            is_regular: metadata.is_file(),
        }
    }
}

/// The error of [`read`].
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages are sufficient")]
pub enum UnusableFile {
    #[error("cannot read {}: {error}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("cannot read {}: it has more than {max} bytes", path.display())]
    TooLarge { path: PathBuf, max: u64 },
    #[error("every user can write to {}; remove that permission (chmod o-w)", .0.display())]
    WritableByEveryone(PathBuf),
}

/// Reads a file or pipe. Fails if it has more than `max` bytes, or if every user can change it.
pub fn read(path: &Path, max: u64) -> Result<(Vec<u8>, FileAccess), UnusableFile> {
    let io_error = |error| UnusableFile::Io { path: path.to_owned(), error };
    let file = File::open(path).map_err(io_error)?;
    let access = FileAccess::of(&file).map_err(io_error)?;
    if access.is_writable_by_everyone() {
        return Err(UnusableFile::WritableByEveryone(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() as u64 > max {
        return Err(UnusableFile::TooLarge { path: path.to_owned(), max });
    }
    Ok((bytes, access))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    fn access(mode: u32) -> FileAccess {
        FileAccess { owner: 1, mode, is_regular: true }
    }

    #[test]
    fn group_permissions_make_a_file_neither_writable_by_everyone_nor_private() {
        for (mode, writable, readable, private) in [
            (0o600, false, false, true),
            (0o400, false, false, true),
            (0o640, false, false, false),
            (0o660, false, false, false),
            (0o644, false, true, false),
            (0o666, true, true, false),
            (0o602, true, false, false),
        ] {
            let access = access(mode);
            assert_eq!(access.is_writable_by_everyone(), writable, "{mode:o}");
            assert_eq!(access.is_readable_by_everyone(), readable, "{mode:o}");
            assert_eq!(access.is_private(), private, "{mode:o}");
        }
    }

    #[test]
    fn file_that_is_too_large_or_writable_by_everyone_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "s3cret").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let (bytes, access) = read(&path, 6).unwrap();
        assert_eq!((bytes.as_slice(), access.mode), (b"s3cret".as_slice(), 0o640));
        assert!(access.is_own() && !access.is_foreign());
        let too_large = read(&path, 5).unwrap_err().to_string();
        assert!(too_large.ends_with("secret: it has more than 5 bytes"), "{too_large}");

        fs::set_permissions(&path, Permissions::from_mode(0o646)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for path in [&path, &link] {
            let error = read(path, 6).unwrap_err();
            assert!(matches!(error, UnusableFile::WritableByEveryone(_)), "{error}");
        }
        let missing = read(&folder.path().join("missing"), 6).unwrap_err().to_string();
        assert!(missing.contains("missing: No such file"), "{missing}");
    }

    #[test]
    fn file_of_another_user_is_foreign_and_file_of_root_is_not() {
        const OTHER_USER: u32 = 65534;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        // Only root can change the owner of a file.
        if chown(&path, Some(OTHER_USER), None).is_ok() {
            let access = FileAccess::of(&File::open(&path).unwrap()).unwrap();
            assert!(access.is_foreign() && !access.is_own() && access.owner == OTHER_USER);
        }
        assert!(!FileAccess { owner: 0, mode: 0o600, is_regular: true }.is_foreign());
    }

    #[test]
    fn pipe_is_read() {
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"text").unwrap();
        drop(writer);
        let path = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        assert_eq!(read(Path::new(&path), 10).unwrap().0, b"text");
    }
}
