use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_application::ports::{BearerToken, Clock, TokenVerifier as _};
use belfry_domain::Timestamp;
use futures_util::FutureExt as _;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

use super::secret::Secret;
use super::settings::{JwtKey, JwtSettings};
use super::token_verifier::JwtVerifier;
use crate::fuzzing::split_first_line;

const SECRET: &[u8] = b"thirty-two bytes, none to spare.";

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(1_800_000_000_000)
    }
}

static VERIFIER: LazyLock<JwtVerifier> = LazyLock::new(|| {
    let secret = Secret::new(SECRET).expect("it is long enough");
    let settings = JwtSettings::new([JwtKey::Secret(secret)]);
    JwtVerifier::new(&settings, Arc::new(FixedClock)).expect("there is a key")
});

/// Verifies two tokens. The first is the input itself, which must be rejected because the trusted key has not
/// signed it. The second has the first line of the input as its header and the remaining lines as its claims.
/// It is signed with the trusted key, and may be accepted or rejected.
///
/// # Panics
/// If the first token is accepted.
pub fn token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(!is_accepted(text), "the token is not signed with the trusted key");
    }
    let (header, claims) = split_first_line(bytes);
    let [header, claims] = [header, claims].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let message = format!("{header}.{claims}");
    let key = EncodingKey::from_secret(SECRET);
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    let signature = signature.expect("a secret fits HS256");
    let _ = is_accepted(&format!("{message}.{signature}"));
}

fn is_accepted(text: &str) -> bool {
    let Ok(Some(token)) = BearerToken::parse(text) else { return false };
    let result = VERIFIER.verify(&token).now_or_never();
    let result = result.expect("without a JWKS, verification does not wait");
    result.is_ok_and(|claims| claims.expires_at > FixedClock.now())
}
