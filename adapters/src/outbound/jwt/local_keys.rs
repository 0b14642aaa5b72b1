use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::algorithms::AcceptedAlgorithms;
use super::error::InvalidJwtSettings;
use super::key_material::KeyMaterial;
use super::key_set::KeySet;
use super::secret::{GuessableSecretPolicy, Secret};
use super::settings::{JwtKey, JwtSettings};
use crate::polled_files::{FileSource, PolledFiles};

/// The keys from settings and files. Files are read again when they change.
pub(super) struct LocalKeys(Arc<PolledFiles<KeySource>>);

/// The configured keys, and the settings for loading them.
struct KeySource {
    keys: Vec<JwtKey>,
    accepted: AcceptedAlgorithms,
    has_jwks: bool,
    guessable_secrets: GuessableSecretPolicy,
}

impl LocalKeys {
    pub(super) fn new(settings: &JwtSettings) -> Result<Self, InvalidJwtSettings> {
        let keys = PolledFiles::open(KeySource {
            keys: settings.keys.clone(),
            accepted: AcceptedAlgorithms::parse(&settings.algorithms)?,
            has_jwks: settings.has_jwks(),
            guessable_secrets: settings.guessable_secrets,
        })?;
        if keys.current().len() == 0 && settings.jwks.is_none() {
            return Err(InvalidJwtSettings::NoKey);
        }
        Ok(Self(Arc::new(keys)))
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        self.0.current()
    }

    /// Reads the files periodically, and at once on `reload`, until `stop` is cancelled.
    pub(super) async fn run_reload(&self, reload: &Notify, stop: &CancellationToken) {
        self.0.clone().run(reload, stop).await;
    }
}

impl FileSource for KeySource {
    type Content = Vec<KeyMaterial>;
    type Value = KeySet;
    type Error = InvalidJwtSettings;

    fn has_files(&self) -> bool {
        let in_file = |key: &JwtKey| !matches!(key, JwtKey::Secret(_) | JwtKey::PublicPem(_));
        self.keys.iter().any(in_file)
    }

    fn read(&self) -> Result<Vec<KeyMaterial>, InvalidJwtSettings> {
        KeyMaterial::read_all(&self.keys)
    }

    fn load(&self, material: &Vec<KeyMaterial>) -> Result<KeySet, InvalidJwtSettings> {
        for one in material {
            one.check_secret(self.guessable_secrets)?;
        }
        let keys = KeySet::from_material(material, &self.accepted, self.has_jwks)?;
        warn_about_weak_secrets(material);
        Ok(keys)
    }

    fn log_reload(&self, result: Result<&KeySet, &InvalidJwtSettings>) {
        match result {
            Ok(keys) => info!(keys = keys.len(), "token keys reloaded"),
            Err(error) => {
                let error = error as &dyn std::error::Error;
                error!(error, "token key reload failed; keeping the old keys");
            }
        }
    }
}

fn warn_about_weak_secrets(material: &[KeyMaterial]) {
    for (file, secret) in material.iter().filter_map(KeyMaterial::secret_file) {
        if secret.is_short() {
            warn!(
                file = %file.display(),
                min_bytes = Secret::STRONG_BYTES,
                "HMAC secret is too short; it can be brute-forced from a single token"
            );
        }
        if let Some(reason) = secret.guessable() {
            warn!(file = %file.display(), %reason, "HMAC secret can be guessed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use jsonwebtoken::Algorithm;
    use serde_json::json;
    use tempfile::TempDir;

    use super::super::key_set::UnverifiedToken;
    use super::super::signing::Key;
    use super::*;

    const OLD: &str = "the old secret, of at least thirty-two bytes";
    const NEW: &str = "the new secret, of at least thirty-two bytes";

    fn keys(sources: impl IntoIterator<Item = JwtKey>) -> LocalKeys {
        LocalKeys::new(&JwtSettings::new(sources)).unwrap()
    }

    fn accepts(keys: &LocalKeys, secret: &str) -> bool {
        let token = Key::secret(secret.as_bytes()).sign(Algorithm::HS256, &json!({}));
        keys.current().verify(&UnverifiedToken::parse(&token).unwrap()).is_ok()
    }

    fn secret_file(folder: &Path, secret: &str) -> JwtKey {
        let path = folder.join("secret");
        fs::write(&path, secret).unwrap();
        JwtKey::SecretFile(path)
    }

    #[test]
    fn trailing_line_break_is_not_part_of_a_secret_but_a_space_is() {
        let folder = TempDir::new().unwrap();
        for ending in ["", "\n", "\r\n"] {
            let keys = keys([secret_file(folder.path(), &format!("{OLD}{ending}"))]);
            assert!(accepts(&keys, OLD), "{ending:?}");
        }
        assert!(!accepts(&keys([secret_file(folder.path(), &format!("{OLD} "))]), OLD));
        let empty = JwtSettings::new([secret_file(folder.path(), "\n")]);
        let error = LocalKeys::new(&empty).err().unwrap();
        assert!(error.to_string().ends_with("secret: the secret must not be empty"), "{error}");
    }

    #[test]
    fn changed_file_is_loaded_and_invalid_or_missing_file_keeps_the_old_keys() {
        let folder = TempDir::new().unwrap();
        let file = secret_file(folder.path(), OLD);
        let path = folder.path().join("secret");
        let fixed = JwtKey::Secret(Secret::new(b"always there".as_slice()).unwrap());
        let keys = keys([fixed, file]);

        fs::write(&path, NEW).unwrap();
        keys.0.reload(false);
        assert!(accepts(&keys, NEW) && !accepts(&keys, OLD) && accepts(&keys, "always there"));
        fs::write(&path, "").unwrap();
        keys.0.reload(false);
        assert!(accepts(&keys, NEW), "an empty file keeps the old key");
        fs::remove_file(&path).unwrap();
        keys.0.reload(true);
        assert!(accepts(&keys, NEW), "a missing file keeps the old key");
        fs::write(&path, OLD).unwrap();
        keys.0.reload(false);
        assert!(accepts(&keys, OLD) && !accepts(&keys, NEW));
    }

    #[cfg(unix)]
    #[test]
    fn change_through_a_symbolic_link_is_detected() {
        use std::os::unix::fs::symlink;

        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (version, secret) in [("v1", OLD), ("v2", NEW)] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("secret"), secret).unwrap();
        }
        // Like a mounted Kubernetes secret: `secret` links to `data/secret`, and `data` to the folder of a
        // version.
        symlink("v1", path("data")).unwrap();
        symlink("data/secret", path("secret")).unwrap();
        let keys = keys([JwtKey::SecretFile(path("secret"))]);
        assert!(accepts(&keys, OLD));

        symlink("v2", path("data.new")).unwrap();
        fs::rename(path("data.new"), path("data")).unwrap();
        keys.0.reload(false);
        assert!(accepts(&keys, NEW) && !accepts(&keys, OLD));
    }

    #[test]
    fn guessable_secret_is_rejected_at_start_and_reload_if_so_configured() {
        let folder = TempDir::new().unwrap();
        let settings = JwtSettings {
            guessable_secrets: GuessableSecretPolicy::Reject,
            ..JwtSettings::new([secret_file(folder.path(), "change-me")])
        };
        let error = LocalKeys::new(&settings).err().unwrap().to_string();
        assert!(
            error.ends_with(
                "secret: the secret is a placeholder from documentation; use 32 random bytes"
            ),
            "{error}"
        );
        let inline = Secret::new(" ".repeat(32).as_bytes()).unwrap();
        let inline = JwtSettings { keys: vec![JwtKey::Secret(inline)], ..settings.clone() };
        LocalKeys::new(&inline).err().unwrap();
        let warned =
            JwtSettings { guessable_secrets: GuessableSecretPolicy::Warn, ..settings.clone() };
        LocalKeys::new(&warned).unwrap();

        secret_file(folder.path(), OLD);
        let keys = LocalKeys::new(&settings).unwrap();
        secret_file(folder.path(), "change-me");
        keys.0.reload(false);
        assert!(accepts(&keys, OLD) && !accepts(&keys, "change-me"));
    }

    #[test]
    fn jwks_file_is_read_and_too_large_file_is_rejected() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("jwks.json");
        let key = Key::ed25519();
        fs::write(&path, json!({ "keys": [key.jwk("k1")] }).to_string()).unwrap();
        let set = keys([JwtKey::JwksFile(path.clone())]);
        let token = key.sign_with_id("k1", &json!({}));
        assert!(set.current().verify(&UnverifiedToken::parse(&token).unwrap()).is_ok());

        fs::write(&path, vec![b' '; 1024 * 1024 + 1]).unwrap();
        let error = LocalKeys::new(&JwtSettings::new([JwtKey::JwksFile(path)])).err().unwrap();
        assert!(error.to_string().ends_with("it has more than 1048576 bytes"), "{error}");
    }
}
