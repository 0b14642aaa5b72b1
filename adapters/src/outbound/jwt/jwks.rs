//! JSON Web Key Sets (RFC 7517, 5) and the selection of their usable keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tracing::{debug, warn};

use super::algorithms::{AcceptedAlgorithms, P256, P384, RSA};
use super::error::InvalidJwtSettings;
use super::trusted_key::{MIN_RSA_BITS, TrustedKey, ec_key, ed25519_key};

/// The maximum number of keys, more than any provider publishes at the same time. Further keys are ignored.
pub(super) const MAX_KEYS: usize = 64;

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// Why a key of a JWKS is ignored. A JWKS also contains keys for other purposes, so one such key does
/// not invalidate the others (RFC 7517, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum UnusableKey {
    #[error("malformed, or of an unsupported key type or curve")]
    Unsupported,
    #[error("not a signature key")]
    OtherUse,
    #[error("a secret; a JWKS must contain only public keys")]
    Secret,
    #[error("a private key; a JWKS must contain only public keys")]
    Private,
    #[error("an RSA key of {0} bits; at least 2048 are required")]
    Weak(usize),
    #[error("for an algorithm that is not accepted or does not match its key type")]
    Algorithm,
}

/// The usable keys of a JWKS. An empty JWKS has none, and withdraws the keys of the previous one. A JWKS
/// whose keys are all unusable is an error.
pub(super) fn parse(
    text: &str,
    accepted: &AcceptedAlgorithms,
) -> Result<Vec<TrustedKey>, InvalidJwtSettings> {
    let invalid = |why: &str| InvalidJwtSettings::Jwks(why.to_owned());
    let Document { keys } = serde_json::from_str(text)
        .map_err(|_| invalid("not a JWKS: it must be a JSON object with an array \"keys\""))?;
    if keys.len() > MAX_KEYS {
        warn!(keys = keys.len(), max = MAX_KEYS, "too many keys in JWKS; ignoring the rest");
    }
    let mut usable = Vec::new();
    let mut last_error = None;
    for key in keys.into_iter().take(MAX_KEYS) {
        let id = key.get("kid").and_then(Value::as_str).map(str::to_owned);
        match parse_key(key, accepted) {
            Ok(key) => usable.push(key),
            Err(error) => {
                log_ignored(id.as_deref(), error);
                last_error = Some(error);
            }
        }
    }
    match (usable.is_empty(), last_error) {
        (false, _) | (true, None) => Ok(usable),
        (true, Some(error)) => Err(InvalidJwtSettings::Jwks(format!(
            "the JWKS contains no usable key; the last one is {error}"
        ))),
    }
}

fn log_ignored(id: Option<&str>, reason: UnusableKey) {
    let key = id.unwrap_or("(no kid)");
    match reason {
        // Common in the JWKS of identity providers.
        UnusableKey::OtherUse | UnusableKey::Unsupported | UnusableKey::Algorithm => {
            debug!(key, %reason, "JWKS key ignored");
        }
        UnusableKey::Secret | UnusableKey::Private | UnusableKey::Weak(_) => {
            warn!(key, %reason, "JWKS key ignored");
        }
    }
}

fn parse_key(key: Value, accepted: &AcceptedAlgorithms) -> Result<TrustedKey, UnusableKey> {
    // `d` is the private part of a key (RFC 7518, 6.2.2 and 6.3.2).
    let has_private_part = key.get("d").is_some();
    let jwk: Jwk = serde_json::from_value(key).map_err(|_| UnusableKey::Unsupported)?;
    let (key, supported) = public_key(&jwk)?;
    if has_private_part {
        return Err(UnusableKey::Private);
    }
    if !is_for_signatures(&jwk) {
        return Err(UnusableKey::OtherUse);
    }
    let algorithms = match jwk.common.key_algorithm {
        None => accepted.for_key(supported),
        Some(pinned) => match Algorithm::try_from(pinned) {
            Ok(pinned) => accepted.for_pinned_key(pinned, supported),
            Err(_) => Vec::new(),
        },
    };
    if algorithms.is_empty() {
        return Err(UnusableKey::Algorithm);
    }
    Ok(TrustedKey::new(jwk.common.key_id.as_deref(), key, supported, algorithms))
}

/// Checks `use` and `key_ops` (RFC 7517, 4.2 and 4.3); both are optional.
fn is_for_signatures(jwk: &Jwk) -> bool {
    let use_allows = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let operations = jwk.common.key_operations.as_ref();
    use_allows && operations.is_none_or(|all| all.contains(&KeyOperations::Verify))
}

/// The key and the algorithms that its type and curve support (RFC 7518, 6; RFC 8037, 2).
fn public_key(jwk: &Jwk) -> Result<(DecodingKey, &'static [Algorithm]), UnusableKey> {
    let key = || DecodingKey::from_jwk(jwk).map_err(|_| UnusableKey::Unsupported);
    let public_key = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let bits = bits(&rsa.n).ok_or(UnusableKey::Unsupported)?;
            if bits < MIN_RSA_BITS {
                return Err(UnusableKey::Weak(bits));
            }
            return Ok((key()?, RSA));
        }
        AlgorithmParameters::EllipticCurve(point) => {
            let curve = match point.curve {
                EllipticCurve::P256 => P256,
                EllipticCurve::P384 => P384,
                _ => return Err(UnusableKey::Unsupported),
            };
            // The point must be on the curve that `crv` names.
            ec_key(key()?).filter(|(_, supported)| *supported == curve)
        }
        AlgorithmParameters::OctetKeyPair(point) if point.curve == EllipticCurve::Ed25519 => {
            ed25519_key(key()?)
        }
        AlgorithmParameters::OctetKey(_) => return Err(UnusableKey::Secret),
        _ => None,
    };
    public_key.ok_or(UnusableKey::Unsupported)
}

/// The length of a number in bits, without leading zeros. `number` is base64url (`Base64urlUInt`; RFC 7518, 2).
fn bits(number: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(number).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some((bytes.len() - first) * 8 - bytes[first].leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::signing::Key;
    use super::*;

    fn unusable(key: Value, accepted: &[&str]) -> UnusableKey {
        let names: Vec<_> = accepted.iter().map(ToString::to_string).collect();
        let shown = key.to_string();
        match parse_key(key, &AcceptedAlgorithms::parse(&names).unwrap()) {
            Ok(_) => panic!("accepted: {shown}"),
            Err(error) => error,
        }
    }

    fn algorithms(key: Value, accepted: &[&str]) -> Vec<Algorithm> {
        let names: Vec<_> = accepted.iter().map(ToString::to_string).collect();
        parse_key(key, &AcceptedAlgorithms::parse(&names).unwrap())
            .map(|key| key.algorithms().to_vec())
            .unwrap()
    }

    fn jwk_with(key: &Key, fields: &[(&str, Value)]) -> Value {
        let mut jwk = key.jwk("k");
        for (name, value) in fields {
            jwk[name] = value.clone();
        }
        jwk
    }

    #[test]
    fn declared_algorithm_is_used_else_the_default_of_the_key_type() {
        let (rsa, p256, p384, ed) = (Key::rsa(), Key::p256(), Key::p384(), Key::ed25519());
        let none = [("alg", Value::Null)];
        for (key, default) in [
            (&rsa, Algorithm::RS256),
            (&p256, Algorithm::ES256),
            (&p384, Algorithm::ES384),
            (&ed, Algorithm::EdDSA),
        ] {
            assert_eq!(algorithms(jwk_with(key, &none), &[]), [default]);
        }
        let ps512 = || jwk_with(&rsa, &[("alg", json!("PS512"))]);
        assert_eq!(algorithms(ps512(), &[]), [Algorithm::PS512]);
        assert_eq!(algorithms(ps512(), &["RS256", "PS512"]), [Algorithm::PS512]);
        assert_eq!(unusable(ps512(), &["RS256"]), UnusableKey::Algorithm);
        assert_eq!(algorithms(jwk_with(&rsa, &none), &["ES256", "RS384"]), [Algorithm::RS384]);
    }

    #[test]
    fn algorithm_that_does_not_match_the_key_type_is_rejected() {
        for alg in ["HS256", "ES256", "EdDSA", "none", "RSA-OAEP", "RS257"] {
            let key = jwk_with(&Key::rsa(), &[("alg", json!(alg))]);
            assert_eq!(unusable(key, &[]), UnusableKey::Algorithm, "{alg}");
        }
        let other_curve = jwk_with(&Key::p256(), &[("alg", json!("ES384"))]);
        assert_eq!(unusable(other_curve, &[]), UnusableKey::Algorithm);
        let wrong_curve = jwk_with(&Key::p256(), &[("crv", json!("P-384"))]);
        assert_eq!(unusable(wrong_curve, &[]), UnusableKey::Unsupported);
        let off_the_curve = jwk_with(&Key::p256(), &[("x", json!("AAAA"))]);
        assert_eq!(unusable(off_the_curve, &[]), UnusableKey::Unsupported);
    }

    #[test]
    fn only_public_signature_keys_are_used() {
        let rsa = Key::rsa();
        for (name, value, error) in [
            ("use", json!("enc"), UnusableKey::OtherUse),
            ("key_ops", json!(["encrypt"]), UnusableKey::OtherUse),
            ("kty", json!("AKP"), UnusableKey::Unsupported),
            ("n", json!("?"), UnusableKey::Unsupported),
            ("d", json!("AQAB"), UnusableKey::Private),
        ] {
            assert_eq!(unusable(jwk_with(&rsa, &[(name, value)]), &[]), error, "{name}");
        }
        for (name, value) in [("use", json!("sig")), ("key_ops", json!(["verify"]))] {
            assert!(!algorithms(jwk_with(&rsa, &[(name, value)]), &[]).is_empty(), "{name}");
        }
        let secret = json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" });
        assert_eq!(unusable(secret, &["HS256"]), UnusableKey::Secret);
    }

    #[test]
    fn short_rsa_key_is_ignored() {
        let modulus = |bytes: usize| {
            // A leading zero does not add to the length.
            let number: Vec<u8> = [0].into_iter().chain(std::iter::repeat_n(0xc1, bytes)).collect();
            json!({ "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(number) })
        };
        assert_eq!(unusable(modulus(128), &[]), UnusableKey::Weak(1024));
        assert_eq!(unusable(modulus(255), &[]), UnusableKey::Weak(2040));
        assert_eq!(algorithms(modulus(256), &[]), [Algorithm::RS256]);
    }

    #[test]
    fn unusable_keys_are_skipped_and_a_jwks_without_usable_keys_is_rejected() {
        let set = json!({ "keys": [
            { "kty": "unheard of" }, 7, null, Key::p256().jwk("a"),
            { "kty": "OKP", "crv": "X25519", "x": "AAAA" }, Key::ed25519().jwk("b"),
        ] });
        let keys = parse(&set.to_string(), &AcceptedAlgorithms::default()).unwrap();
        assert!(keys.len() == 2 && keys[0].has_id("a") && keys[1].has_id("b"));
        for nothing in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[{}]}"#] {
            assert!(parse(nothing, &AcceptedAlgorithms::default()).is_err(), "{nothing}");
        }
        let empty = parse(r#"{"keys":[]}"#, &AcceptedAlgorithms::default());
        assert!(empty.unwrap().is_empty());
    }

    #[test]
    fn keys_beyond_the_limit_are_ignored() {
        let key = Key::ed25519().jwk("k");
        let set = json!({ "keys": vec![key; MAX_KEYS + 1] });
        assert_eq!(
            parse(&set.to_string(), &AcceptedAlgorithms::default()).unwrap().len(),
            MAX_KEYS
        );
    }
}
