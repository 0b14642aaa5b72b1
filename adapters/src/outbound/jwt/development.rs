use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::secret::Secret;
use super::settings::JwtKey;
use crate::file_access::{self, UnusableFile};

/// The HMAC secret of a Belfry without configured keys, for development on one machine. Belfry
/// generates it and stores it in a file that only the owner can read.
#[derive(Debug, Clone)]
pub struct DevelopmentKey(Secret);

/// Why the development key cannot be read or created.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentKeyError {
    /// The file cannot be read or created.
    #[error("development key {}: {error}", path.display())]
    Io {
        #[expect(missing_docs, reason = "the message names it")]
        path: PathBuf,
        #[expect(missing_docs, reason = "the message names it")]
        #[source]
        error: io::Error,
    },
    /// The file does not contain a development key.
    #[error("{} does not contain a development key; remove it to generate a new one", .0.display())]
    NotAKey(PathBuf),
    /// The file belongs to another user, who could sign in as any user of Belfry.
    #[error(
        "{} belongs to another user; remove it, or name another file in auth.development_key_file",
        .0.display()
    )]
    NotOwn(PathBuf),
    /// Other users can read or change the file, and could sign in as any user of Belfry.
    #[error("{} is accessible to other users; make it private (chmod 600)", .0.display())]
    NotPrivate(PathBuf),
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    NoRandomness,
}

impl DevelopmentKey {
    const BYTES: usize = 32;

    /// Reads the key from the file, or generates it if the file is missing. Several processes that call this
    /// at the same time get the same key.
    pub fn open(path: &Path) -> Result<Self, DevelopmentKeyError> {
        match read(path) {
            Err(DevelopmentKeyError::Io { error, .. })
                if error.kind() == io::ErrorKind::NotFound =>
            {
                create(path)?;
                read(path)
            }
            result => result,
        }
    }

    /// The key for the settings of a verifier or a [`TokenMint`](super::TokenMint).
    pub fn to_jwt_key(&self) -> JwtKey {
        JwtKey::Secret(self.0.clone())
    }
}

fn read(path: &Path) -> Result<DevelopmentKey, DevelopmentKeyError> {
    const MAX_BYTES: u64 = 1024;
    let (text, access) = file_access::read(path, MAX_BYTES).map_err(|problem| match problem {
        UnusableFile::Io { path, error } => DevelopmentKeyError::Io { path, error },
        UnusableFile::TooLarge { path, .. } => DevelopmentKeyError::NotAKey(path),
        UnusableFile::WritableByEveryone(path) => DevelopmentKeyError::NotPrivate(path),
    })?;
    if !access.is_own() {
        return Err(DevelopmentKeyError::NotOwn(path.to_owned()));
    }
    if !access.is_private() {
        return Err(DevelopmentKeyError::NotPrivate(path.to_owned()));
    }
    let not_a_key = || DevelopmentKeyError::NotAKey(path.to_owned());
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_ascii()).map_err(|_| not_a_key())?;
    let secret = Secret::new(bytes).ok().filter(|secret| !secret.is_short());
    secret.map(DevelopmentKey).ok_or_else(not_a_key)
}

/// Writes a new key to a temporary file and links it to `path`, so that no process reads a partial key.
/// If another process has created `path` in the meantime, that key stays.
fn create(path: &Path) -> Result<(), DevelopmentKeyError> {
    let failed = |error| io_error(path, error);
    // The random extension keeps several processes from using the same temporary file.
    let temporary = path.with_added_extension(URL_SAFE_NO_PAD.encode(random::<9>()?));
    let mut file = private_file().open(&temporary).map_err(failed)?;
    let created =
        writeln!(file, "{}", URL_SAFE_NO_PAD.encode(random::<{ DevelopmentKey::BYTES }>()?))
            .and_then(|()| file.sync_all())
            .and_then(|()| match fs::hard_link(&temporary, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                result => result,
            });
    fs::remove_file(&temporary).map_err(failed)?;
    created.map_err(failed)
}

fn random<const N: usize>() -> Result<[u8; N], DevelopmentKeyError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| DevelopmentKeyError::NoRandomness)?;
    Ok(bytes)
}

fn io_error(path: &Path, error: io::Error) -> DevelopmentKeyError {
    let path = path.to_owned();
    DevelopmentKeyError::Io { path, error }
}

fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use belfry_application::ports::{BearerToken, Clock as _, Scopes, TokenVerifier as _};
    use belfry_application::testing::{ManualClock, user};
    use tempfile::TempDir;

    use super::super::mint::TokenMint;
    use super::super::settings::JwtSettings;
    use super::super::token_verifier::JwtVerifier;
    use super::*;

    fn bytes(key: &DevelopmentKey) -> Vec<u8> {
        key.0.reveal().to_vec()
    }

    #[test]
    fn key_is_generated_once_and_then_read() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("belfry.dev-key");
        let generated = DevelopmentKey::open(&path).unwrap();
        assert_eq!(bytes(&generated).len(), 32);
        assert_eq!(bytes(&DevelopmentKey::open(&path).unwrap()), bytes(&generated));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
        let other = DevelopmentKey::open(&folder.path().join("other")).unwrap();
        assert_ne!(bytes(&other), bytes(&generated));
    }

    #[tokio::test]
    async fn tokens_of_the_key_are_accepted() {
        let folder = TempDir::new().unwrap();
        let key = DevelopmentKey::open(&folder.path().join("key")).unwrap();
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let settings = JwtSettings::new([key.to_jwt_key()]);
        let verifier = JwtVerifier::new(&settings, clock.clone()).unwrap();
        let mint = TokenMint::new(&settings).unwrap();

        let hour = Duration::from_hours(1);
        let token = mint.mint(&user("ada"), &[Scopes::WRITE, "other"], hour, clock.now());
        let claims = verifier.verify(&BearerToken::parse(&token).unwrap().unwrap()).await.unwrap();
        assert_eq!(claims.user, user("ada"));
        assert!(claims.scopes.contains(Scopes::WRITE) && claims.scopes.contains("other"));
        assert_eq!(claims.expires_at, clock.now().plus(hour));
    }

    #[test]
    fn concurrent_creators_get_the_same_key() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("belfry.dev-key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let open = || bytes(&DevelopmentKey::open(&path).unwrap());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[test]
    fn file_with_other_content_is_rejected_and_left_unchanged() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("belfry.dev-key");
        for content in ["", "hello", "c2hvcnQ", "ä"] {
            fs::write(&path, content).unwrap();
            make_private(&path);
            let error = DevelopmentKey::open(&path).unwrap_err();
            assert!(matches!(error, DevelopmentKeyError::NotAKey(_)), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        let nowhere = folder.path().join("no").join("such").join("folder");
        let error = DevelopmentKey::open(&nowhere).unwrap_err();
        assert!(matches!(error, DevelopmentKeyError::Io { .. }), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn key_that_others_can_read_is_rejected() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = TempDir::new().unwrap();
        let path = folder.path().join("belfry.dev-key");
        DevelopmentKey::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = DevelopmentKey::open(&path).unwrap_err();
        assert!(matches!(error, DevelopmentKeyError::NotPrivate(_)));
    }

    #[cfg(unix)]
    #[test]
    fn key_of_another_user_is_rejected_even_through_a_link() {
        const OTHER_USER: u32 = 65534;
        let folder = TempDir::new().unwrap();
        let (path, link) = (folder.path().join("theirs"), folder.path().join("belfry.dev-key"));
        DevelopmentKey::open(&path).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        DevelopmentKey::open(&link).unwrap();
        // Only root can change the owner of a file.
        if std::os::unix::fs::chown(&path, Some(OTHER_USER), None).is_ok() {
            for path in [&path, &link] {
                let error = DevelopmentKey::open(path).unwrap_err();
                assert!(matches!(error, DevelopmentKeyError::NotOwn(_)), "{error}");
            }
        }
    }

    fn make_private(path: &Path) {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let _ = path;
    }
}
