use std::path::Path;

use super::algorithms::AcceptedAlgorithms;
use super::error::InvalidJwtSettings;
use super::jwks;
use super::secret::{GuessableSecretPolicy, Secret};
use super::settings::JwtKey;
use super::trusted_key::TrustedKey;
use crate::file_access;

/// The content of a [`JwtKey`], from the setting itself or from its file at the time of reading.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum KeyMaterial {
    Secret(Secret),
    SecretFile(Box<Path>, Secret),
    Pem(String),
    PemFile(Box<Path>, String),
    JwksFile(Box<Path>, String),
}

impl KeyMaterial {
    /// The maximum size of a file. A larger file does not contain keys.
    const MAX_BYTES: u64 = 1024 * 1024;

    pub(super) fn read(key: &JwtKey) -> Result<Self, InvalidJwtSettings> {
        Ok(match key {
            JwtKey::Secret(secret) => Self::Secret(secret.clone()),
            JwtKey::PublicPem(pem) => Self::Pem(pem.clone()),
            JwtKey::SecretFile(path) => {
                let bytes = read_file(path)?;
                // Editors and `echo` add a line break, which is never meant as part of the secret.
                let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
                let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
                let secret = Secret::new(secret).map_err(|problem| problem.in_file(path))?;
                Self::SecretFile(path.as_path().into(), secret)
            }
            JwtKey::PublicPemFile(path) => Self::PemFile(path.as_path().into(), read_text(path)?),
            JwtKey::JwksFile(path) => Self::JwksFile(path.as_path().into(), read_text(path)?),
        })
    }

    pub(super) fn read_all(keys: &[JwtKey]) -> Result<Vec<Self>, InvalidJwtSettings> {
        keys.iter().map(Self::read).collect()
    }

    pub(super) fn trusted_keys(
        &self,
        accepted: &AcceptedAlgorithms,
    ) -> Result<Vec<TrustedKey>, InvalidJwtSettings> {
        match self {
            Self::Secret(secret) => Ok(vec![TrustedKey::from_secret(secret, accepted)?]),
            Self::Pem(pem) => TrustedKey::from_pem(pem, accepted),
            Self::SecretFile(path, secret) => TrustedKey::from_secret(secret, accepted)
                .map(|key| vec![key])
                .map_err(|problem| problem.in_file(path)),
            Self::PemFile(path, pem) => {
                TrustedKey::from_pem(pem, accepted).map_err(|problem| problem.in_file(path))
            }
            Self::JwksFile(path, text) => {
                jwks::parse(text, accepted).map_err(|problem| problem.in_file(path))
            }
        }
    }

    pub(super) fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Secret(secret) | Self::SecretFile(_, secret) => Some(secret),
            _ => None,
        }
    }

    /// The secret and its file, if the secret is in a file.
    pub(super) fn secret_file(&self) -> Option<(&Path, &Secret)> {
        match self {
            Self::SecretFile(path, secret) => Some((path, secret)),
            _ => None,
        }
    }

    /// Fails for a secret that is easy to guess, if the setting is to reject such secrets.
    pub(super) fn check_secret(
        &self,
        guessable: GuessableSecretPolicy,
    ) -> Result<(), InvalidJwtSettings> {
        let reason = self.secret().and_then(Secret::guessable);
        match reason.filter(|_| guessable == GuessableSecretPolicy::Reject) {
            None => Ok(()),
            Some(reason) => {
                let problem = InvalidJwtSettings::GuessableSecret(reason);
                Err(match self {
                    Self::SecretFile(path, _) => problem.in_file(path),
                    _ => problem,
                })
            }
        }
    }
}

impl JwtKey {
    /// Reads the key and checks that it can be used.
    pub fn check(&self, guessable: GuessableSecretPolicy) -> Result<(), InvalidJwtSettings> {
        let material = KeyMaterial::read(self)?;
        material.check_secret(guessable)?;
        material.trusted_keys(&AcceptedAlgorithms::default()).map(drop)
    }
}

fn read_text(path: &Path) -> Result<String, InvalidJwtSettings> {
    String::from_utf8(read_file(path)?).map_err(|_| InvalidJwtSettings::NotUtf8.in_file(path))
}

fn read_file(path: &Path) -> Result<Vec<u8>, InvalidJwtSettings> {
    let read = file_access::read(path, KeyMaterial::MAX_BYTES);
    read.map(|(bytes, _)| bytes).map_err(|problem| InvalidJwtSettings::File(problem.to_string()))
}
