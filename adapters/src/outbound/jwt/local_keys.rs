use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::algorithms::Accepted;
use super::key_material::KeyMaterial;
use super::key_set::KeySet;
use super::settings::{InvalidJwtSettings, JwtKey, JwtSettings};

/// The keys that are set here or lie in files. Files are read again when they change.
pub(super) struct LocalKeys {
    sources: Vec<JwtKey>,
    accepted: Accepted,
    published: bool,
    current: RwLock<Arc<KeySet>>,
    /// What was read last, to tell a change, and so that what is wrong with it is said once.
    last: Mutex<Result<Vec<KeyMaterial>, InvalidJwtSettings>>,
}

impl LocalKeys {
    /// How often files are read. By their content: where a file is a link into a folder that is
    /// swapped for another, as mounted secrets are, neither its time nor its number need change.
    const LOOK_EVERY: Duration = Duration::from_secs(5);

    pub(super) fn new(settings: &JwtSettings) -> Result<Self, InvalidJwtSettings> {
        let accepted = Accepted::parse(&settings.algorithms)?;
        let published = settings.has_published_keys();
        let material = Self::read(&settings.keys)?;
        let keys = KeySet::of_material(&material, &accepted, published)?;
        if keys.len() == 0 && settings.jwks.is_none() {
            return Err(InvalidJwtSettings::NoKey);
        }
        warn_of_weak_secrets(&material);
        Ok(Self {
            sources: settings.keys.clone(),
            accepted,
            published,
            current: RwLock::new(Arc::new(keys)),
            last: Mutex::new(Ok(material)),
        })
    }

    pub(super) fn read(sources: &[JwtKey]) -> Result<Vec<KeyMaterial>, InvalidJwtSettings> {
        sources.iter().map(KeyMaterial::read).collect()
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        self.current.read().clone()
    }

    /// Reads the files again and again, and at once when told to, until told to stop.
    pub(super) async fn keep(self: Arc<Self>, reload: &Notify, stop: &CancellationToken) {
        loop {
            let told = tokio::select! {
                () = stop.cancelled() => return,
                () = reload.notified() => true,
                () = tokio::time::sleep(Self::LOOK_EVERY), if self.has_files() => false,
            };
            let keys = self.clone();
            // A network file system may take its time. Should it panic, the keys stay as they are.
            let _ = tokio::task::spawn_blocking(move || keys.reload(told)).await;
        }
    }

    fn has_files(&self) -> bool {
        let in_file = |key: &JwtKey| !matches!(key, JwtKey::Secret(_) | JwtKey::PublicPem(_));
        self.sources.iter().any(in_file)
    }

    /// Takes over what the files hold now, all of it or nothing. `told`: also when they seem to hold
    /// what they held before.
    fn reload(&self, told: bool) {
        let read = Self::read(&self.sources);
        let mut last = self.last.lock();
        if !told && *last == read {
            return;
        }
        last.clone_from(&read);
        let keys = read.and_then(|material| {
            let keys = KeySet::of_material(&material, &self.accepted, self.published)?;
            warn_of_weak_secrets(&material);
            Ok(keys)
        });
        match keys {
            Ok(keys) => {
                info!(keys = keys.len(), "keys for tokens read again");
                *self.current.write() = Arc::new(keys);
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                error!(error, "keys for tokens cannot be read again: the old ones stay");
            }
        }
    }
}

fn warn_of_weak_secrets(material: &[KeyMaterial]) {
    for file in material.iter().filter_map(KeyMaterial::weak_secret_file) {
        warn!(file = %file.display(), "the secret in it is so short that it can be guessed from any one token");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use jsonwebtoken::Algorithm;
    use serde_json::json;
    use tempfile::TempDir;

    use super::super::Secret;
    use super::super::key_set::SignedToken;
    use super::super::signing::Key;
    use super::*;

    const OLD: &str = "the old secret, of at least thirty-two bytes";
    const NEW: &str = "the new secret, of at least thirty-two bytes";

    fn keys(sources: impl IntoIterator<Item = JwtKey>) -> LocalKeys {
        LocalKeys::new(&JwtSettings::new(sources)).unwrap()
    }

    fn believes(keys: &LocalKeys, secret: &str) -> bool {
        let token = Key::secret(secret.as_bytes()).sign(Algorithm::HS256, &json!({}));
        keys.current().open(&SignedToken::read(&token).unwrap()).is_ok()
    }

    fn secret_file(folder: &Path, secret: &str) -> JwtKey {
        let path = folder.join("secret");
        fs::write(&path, secret).unwrap();
        JwtKey::SecretFile(path)
    }

    #[test]
    fn a_line_end_is_not_part_of_a_secret_and_a_space_is() {
        let folder = TempDir::new().unwrap();
        for ending in ["", "\n", "\r\n"] {
            let keys = keys([secret_file(folder.path(), &format!("{OLD}{ending}"))]);
            assert!(believes(&keys, OLD), "{ending:?}");
        }
        assert!(!believes(&keys([secret_file(folder.path(), &format!("{OLD} "))]), OLD));
        let empty = JwtSettings::new([secret_file(folder.path(), "\n")]);
        let error = LocalKeys::new(&empty).err().unwrap();
        assert!(error.to_string().ends_with("secret: the secret must not be empty"), "{error}");
    }

    #[test]
    fn a_file_that_changes_is_taken_over_and_one_that_breaks_is_not() {
        let folder = TempDir::new().unwrap();
        let file = secret_file(folder.path(), OLD);
        let path = folder.path().join("secret");
        let kept = JwtKey::Secret(Secret::new(b"always there".as_slice()).unwrap());
        let keys = keys([kept, file]);

        fs::write(&path, NEW).unwrap();
        keys.reload(false);
        assert!(believes(&keys, NEW) && !believes(&keys, OLD) && believes(&keys, "always there"));
        fs::write(&path, "").unwrap();
        keys.reload(false);
        assert!(believes(&keys, NEW), "empty");
        fs::remove_file(&path).unwrap();
        keys.reload(true);
        assert!(believes(&keys, NEW), "gone");
        fs::write(&path, OLD).unwrap();
        keys.reload(false);
        assert!(believes(&keys, OLD) && !believes(&keys, NEW));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_swapped_by_a_link_is_seen() {
        use std::os::unix::fs::symlink;

        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (version, secret) in [("v1", OLD), ("v2", NEW)] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("secret"), secret).unwrap();
        }
        // As a mounted secret is: the file is a link through a link to the folder of its version.
        symlink("v1", path("data")).unwrap();
        symlink("data/secret", path("secret")).unwrap();
        let keys = keys([JwtKey::SecretFile(path("secret"))]);
        assert!(believes(&keys, OLD));

        symlink("v2", path("data.new")).unwrap();
        fs::rename(path("data.new"), path("data")).unwrap();
        keys.reload(false);
        assert!(believes(&keys, NEW) && !believes(&keys, OLD));
    }

    #[test]
    fn a_set_in_a_file_is_read_and_what_is_too_large_is_not() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("jwks.json");
        let key = Key::ed25519();
        fs::write(&path, json!({ "keys": [key.jwk("k1")] }).to_string()).unwrap();
        let set = keys([JwtKey::JwksFile(path.clone())]);
        let token = key.sign_named("k1", &json!({}));
        assert!(set.current().open(&SignedToken::read(&token).unwrap()).is_ok());

        fs::write(&path, vec![b' '; 1024 * 1024 + 1]).unwrap();
        let error = LocalKeys::new(&JwtSettings::new([JwtKey::JwksFile(path)])).err().unwrap();
        assert!(error.to_string().ends_with("it is too large for keys"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_looked_at_until_told_to_stop() {
        let folder = TempDir::new().unwrap();
        let keys = Arc::new(keys([secret_file(folder.path(), OLD)]));
        let (reload, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let keeping = tokio::spawn({
            let (keys, reload, stop) = (keys.clone(), reload.clone(), stop.clone());
            async move { keys.keep(&reload, &stop).await }
        });
        secret_file(folder.path(), NEW);
        while !believes(&keys, NEW) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        stop.cancel();
        keeping.await.unwrap();
    }
}
