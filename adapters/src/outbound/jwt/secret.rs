use std::fmt;

use super::error::{GuessableSecret, InvalidJwtSettings};

/// A secret for HMAC. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

/// How to handle secrets that are easy to guess ([`Secret::guessable`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GuessableSecretPolicy {
    /// Accept them and log a warning.
    #[default]
    Warn,
    /// Reject them.
    Reject,
}

impl Secret {
    /// The minimum length of a secret in bytes: the length of a SHA-256 hash (RFC 7518, 3.2).
    pub const STRONG_BYTES: usize = 32;

    /// A secret with fewer different bytes is easy to guess. Random secrets have more: even 32 random digits
    /// usually have 9 or 10. The message of [`GuessableSecret::LowVariety`] repeats this number.
    const MIN_DIFFERENT_BYTES: usize = 6;

    /// Uses the bytes unchanged; they must not be empty.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self, InvalidJwtSettings> {
        let bytes = bytes.into();
        if bytes.is_empty() { Err(InvalidJwtSettings::EmptySecret) } else { Ok(Self(bytes)) }
    }

    /// Whether the secret is so short that it can be brute-forced offline from a single token. Short secrets are
    /// accepted, because some issuers cannot change theirs before they migrate to Belfry. Callers log a warning.
    pub fn is_short(&self) -> bool {
        self.0.len() < Self::STRONG_BYTES
    }

    /// Why the secret is easy to guess, whatever its length. `None` if it is not.
    pub fn guessable(&self) -> Option<GuessableSecret> {
        if is_key_text(&self.0) {
            Some(GuessableSecret::KeyText)
        } else if is_placeholder(&self.0) {
            Some(GuessableSecret::Placeholder)
        } else if different_bytes(&self.0) < Self::MIN_DIFFERENT_BYTES {
            Some(GuessableSecret::LowVariety)
        } else {
            None
        }
    }

    pub(super) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

fn is_key_text(secret: &[u8]) -> bool {
    let text = String::from_utf8_lossy(secret);
    text.trim_start().starts_with("-----BEGIN ")
        || (text.trim_start().starts_with('{') && text.contains("\"kty\""))
}

/// Compares letters and digits only: `change-me`, `CHANGE_ME` and `change me` are the same.
fn is_placeholder(secret: &[u8]) -> bool {
    /// A text that begins with one of these is a placeholder.
    const BEGINNINGS: [&str; 3] = ["changeme", "replaceme", "changethis"];
    /// A text that equals one of these is a placeholder: Belfry's own example, those of jwt.io, and those of
    /// tutorials.
    const TEXTS: [&str; 13] = [
        "atleast32bytesbelfrywarnsaboutshortersecrets",
        "your256bitsecret",
        "astringsecretatleast256bitslong",
        "secret",
        "secretkey",
        "mysecret",
        "mysecretkey",
        "supersecret",
        "supersecretkey",
        "yoursecret",
        "yoursecretkey",
        "jwtsecret",
        "password",
    ];
    let is_letter_or_digit = |byte: &u8| byte.is_ascii_alphanumeric();
    let normalized: Vec<u8> =
        secret.iter().filter(|byte| is_letter_or_digit(byte)).map(u8::to_ascii_lowercase).collect();
    BEGINNINGS.iter().any(|beginning| normalized.starts_with(beginning.as_bytes()))
        || TEXTS.iter().any(|text| normalized == text.as_bytes())
}

fn different_bytes(secret: &[u8]) -> usize {
    let mut seen = [false; 256];
    for byte in secret {
        seen[usize::from(*byte)] = true;
    }
    seen.iter().filter(|seen| **seen).count()
}

#[cfg(test)]
mod tests {
    use super::super::settings::{JwtKey, JwtSettings};
    use super::*;

    #[test]
    fn empty_secret_is_rejected_and_debug_hides_the_secret() {
        assert_eq!(Secret::new([]).unwrap_err(), InvalidJwtSettings::EmptySecret);
        assert!(Secret::new([b'x'; 31]).unwrap().is_short());
        assert!(!Secret::new([b'x'; 32]).unwrap().is_short());
        let settings = JwtSettings::new([JwtKey::Secret(Secret::new([b'x'; 32]).unwrap())]);
        assert!(!format!("{settings:?}").contains("xx"));
        // The same bytes as a list of numbers.
        assert!(!format!("{settings:?}").contains("120, 120"));
    }

    #[test]
    fn guessable_secret_is_detected_with_its_reason() {
        let guessable = |text: &str| Secret::new(text.as_bytes()).unwrap().guessable();
        for text in [
            "change-me-change-me-change-me-change-me",
            "CHANGE_ME",
            "changeme-in-production-0123456789",
            "at least 32 bytes; Belfry warns about shorter secrets",
            "your-256-bit-secret",
            "secret",
        ] {
            assert_eq!(guessable(text), Some(GuessableSecret::Placeholder), "{text}");
        }
        for text in [
            "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
            "\n-----BEGIN RSA PRIVATE KEY-----",
            r#"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}"#,
        ] {
            assert_eq!(guessable(text), Some(GuessableSecret::KeyText), "{text}");
        }
        for text in [" ".repeat(32), "a".repeat(64), "ababab12".repeat(8)] {
            assert_eq!(guessable(&text), Some(GuessableSecret::LowVariety), "{text}");
        }
        for text in [
            "0123456789012345678901234567890123456789",
            "the secret that services sign with",
            "5f4dcc3b5aa765d61d8327deb882cf99",
            "my.change-me",
        ] {
            assert_eq!(guessable(text), None, "{text}");
        }
    }
}
