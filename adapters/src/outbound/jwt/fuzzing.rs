use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use belfry_application::ports::{BearerToken, Clock, TokenVerifier as _};
use belfry_domain::Timestamp;
use futures_util::FutureExt as _;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};

use super::{JwtKey, JwtSettings, JwtVerifier, Secret};
use crate::fuzzing::first_line;

const SECRET: &[u8] = b"thirty-two bytes, none to spare.";

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(1_800_000_000_000)
    }
}

static VERIFIER: LazyLock<JwtVerifier> = LazyLock::new(|| {
    let secret = Secret::new(SECRET).expect("it is long enough");
    let settings = JwtSettings::new([JwtKey::Secret(secret)]);
    JwtVerifier::new(&settings, Arc::new(Fixed)).expect("there is a key")
});

/// A line and the rest: together a token as it stands, which is not believed, as nobody has signed it;
/// and a header and claims that are signed with the right key, and of which anything may be believed
/// that does no harm.
///
/// # Panics
/// When that does not hold.
pub fn token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(!is_believed(text), "nobody has signed it");
    }
    let (header, claims) = first_line(bytes);
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{claims}");
    let key = EncodingKey::from_secret(SECRET);
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
    let signature = signature.expect("a secret fits HS256");
    let _ = is_believed(&format!("{message}.{signature}"));
}

fn is_believed(text: &str) -> bool {
    let Ok(Some(token)) = BearerToken::parse(text) else { return false };
    // Nothing to wait for: no keys are published.
    let verdict = VERIFIER.verify(&token).now_or_never().expect("it is told at once");
    verdict.is_ok_and(|claims| claims.expires_at > Fixed.now())
}
