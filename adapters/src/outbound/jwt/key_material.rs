use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::algorithms::Accepted;
use super::jwks;
use super::settings::{InvalidJwtSettings, JwtKey, Secret};
use super::trusted_key::TrustedKey;

/// What a [`JwtKey`] stands for at this moment: what is written there, or in its file.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum KeyMaterial {
    Secret(Secret),
    SecretIn(Box<Path>, Secret),
    Pem(String),
    PemIn(Box<Path>, String),
    JwksIn(Box<Path>, String),
}

impl KeyMaterial {
    /// A file with keys is small; one that is not is something else.
    const MAX_BYTES: u64 = 1024 * 1024;

    pub(super) fn read(key: &JwtKey) -> Result<Self, InvalidJwtSettings> {
        Ok(match key {
            JwtKey::Secret(secret) => Self::Secret(secret.clone()),
            JwtKey::PublicPem(pem) => Self::Pem(pem.clone()),
            JwtKey::SecretFile(path) => {
                let bytes = read_file(path)?;
                // Editors and `echo` leave a line end; no secret is meant to end with one.
                let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
                let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
                let secret = Secret::new(secret).map_err(|problem| in_file(path, problem))?;
                Self::SecretIn(path.as_path().into(), secret)
            }
            JwtKey::PublicPemFile(path) => Self::PemIn(path.as_path().into(), read_text(path)?),
            JwtKey::JwksFile(path) => Self::JwksIn(path.as_path().into(), read_text(path)?),
        })
    }

    pub(super) fn trusted_keys(
        &self,
        accepted: &Accepted,
    ) -> Result<Vec<TrustedKey>, InvalidJwtSettings> {
        match self {
            Self::Secret(secret) => Ok(vec![TrustedKey::of_secret(secret, accepted)?]),
            Self::Pem(pem) => TrustedKey::of_pem(pem, accepted),
            Self::SecretIn(path, secret) => TrustedKey::of_secret(secret, accepted)
                .map(|key| vec![key])
                .map_err(|problem| in_file(path, problem)),
            Self::PemIn(path, pem) => {
                TrustedKey::of_pem(pem, accepted).map_err(|problem| in_file(path, problem))
            }
            Self::JwksIn(path, set) => {
                jwks::read(set, accepted).map_err(|problem| in_file(path, problem))
            }
        }
    }

    /// The secret, if it is one.
    pub(super) fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Secret(secret) | Self::SecretIn(_, secret) => Some(secret),
            _ => None,
        }
    }

    /// The file of a secret that can be guessed.
    pub(super) fn weak_secret_file(&self) -> Option<&Path> {
        match self {
            Self::SecretIn(path, secret) if secret.is_weak() => Some(path),
            _ => None,
        }
    }
}

fn in_file(path: &Path, problem: InvalidJwtSettings) -> InvalidJwtSettings {
    InvalidJwtSettings::InFile { path: path.to_owned(), problem: Box::new(problem) }
}

fn read_text(path: &Path) -> Result<String, InvalidJwtSettings> {
    String::from_utf8(read_file(path)?).map_err(|_| unreadable(path, "it is not text"))
}

fn read_file(path: &Path) -> Result<Vec<u8>, InvalidJwtSettings> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(KeyMaterial::MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| unreadable(path, &error.to_string()))?;
    if bytes.len() as u64 > KeyMaterial::MAX_BYTES {
        return Err(unreadable(path, "it is too large for keys"));
    }
    Ok(bytes)
}

fn unreadable(path: &Path, reason: &str) -> InvalidJwtSettings {
    InvalidJwtSettings::Unreadable { path: path.to_owned(), reason: reason.to_owned() }
}
