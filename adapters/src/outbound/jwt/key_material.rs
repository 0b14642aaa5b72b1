use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::algorithms::AcceptedAlgorithms;
use super::error::InvalidJwtSettings;
use super::jwks;
use super::settings::{JwtKey, Secret};
use super::trusted_key::TrustedKey;

/// The current content of a [`JwtKey`]: of the setting itself, or of its file.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum KeyMaterial {
    Secret(Secret),
    SecretFile(Box<Path>, Secret),
    Pem(String),
    PemFile(Box<Path>, String),
    JwksFile(Box<Path>, String),
}

impl KeyMaterial {
    /// A larger file does not contain keys.
    const MAX_BYTES: u64 = 1024 * 1024;

    pub(super) fn read(key: &JwtKey) -> Result<Self, InvalidJwtSettings> {
        Ok(match key {
            JwtKey::Secret(secret) => Self::Secret(secret.clone()),
            JwtKey::PublicPem(pem) => Self::Pem(pem.clone()),
            JwtKey::SecretFile(path) => {
                let bytes = read_file(path)?;
                // Editors and `echo` add a line break; no intended secret ends with one.
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

    /// The file, if it contains a [weak](Secret::is_weak) secret.
    pub(super) fn weak_secret_file(&self) -> Option<&Path> {
        match self {
            Self::SecretFile(path, secret) if secret.is_weak() => Some(path),
            _ => None,
        }
    }
}

impl JwtKey {
    /// Reads the key and checks that it can be used.
    pub fn check(&self) -> Result<(), InvalidJwtSettings> {
        KeyMaterial::read(self)?.trusted_keys(&AcceptedAlgorithms::default()).map(drop)
    }
}

fn read_text(path: &Path) -> Result<String, InvalidJwtSettings> {
    String::from_utf8(read_file(path)?)
        .map_err(|_| InvalidJwtSettings::unreadable(path, "it is not UTF-8"))
}

fn read_file(path: &Path) -> Result<Vec<u8>, InvalidJwtSettings> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(KeyMaterial::MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| InvalidJwtSettings::unreadable(path, &error))?;
    if bytes.len() as u64 > KeyMaterial::MAX_BYTES {
        return Err(InvalidJwtSettings::unreadable(path, "it is too large for a key file"));
    }
    Ok(bytes)
}
