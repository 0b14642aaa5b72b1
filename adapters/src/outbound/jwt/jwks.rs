//! A JSON Web Key Set (RFC 7517, 5), and which of its keys are of use.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tracing::{debug, warn};

use super::algorithms::{Accepted, P256, P384, RSA};
use super::settings::InvalidJwtSettings;
use super::trusted_key::{LEAST_RSA_BITS, TrustedKey, edwards, elliptic};

/// More keys than any provider publishes at a time.
pub(super) const MAX_KEYS: usize = 64;

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// Why a key of a set is passed over. Sets hold keys for other purposes too, so that is no failure of
/// the set (RFC 7517, 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unusable {
    #[error("its parameters cannot be read, or its kind or curve is not known here")]
    Unknown,
    #[error("it is not for signatures")]
    OtherUse,
    #[error("it is a secret, and a set is for public keys")]
    Secret,
    #[error("it is a private key, which has no business there")]
    Private,
    #[error("it has {0} bits and must have at least 2048")]
    Weak(usize),
    #[error("its algorithm is not accepted, or does not fit its kind")]
    Algorithm,
}

/// The keys of that set that tokens may be signed with; at least one.
pub(super) fn read(text: &str, accepted: &Accepted) -> Result<Vec<TrustedKey>, InvalidJwtSettings> {
    let invalid = |why: &str| InvalidJwtSettings::Jwks(why.to_owned());
    let Document { keys } = serde_json::from_str(text)
        .map_err(|_| invalid("not a JWKS: it must be a JSON object with an array \"keys\""))?;
    if keys.len() > MAX_KEYS {
        warn!(keys = keys.len(), "a JWKS has more keys than are taken: the last are passed over");
    }
    let mut usable = Vec::new();
    let mut why_not = None;
    for key in keys.into_iter().take(MAX_KEYS) {
        let id = key.get("kid").and_then(Value::as_str).map(str::to_owned);
        match read_key(key, accepted) {
            Ok(key) => usable.push(key),
            Err(why) => {
                say(id.as_deref(), why);
                why_not = Some(why);
            }
        }
    }
    match (usable.is_empty(), why_not) {
        (false, _) => Ok(usable),
        (true, None) => Err(invalid("the JWKS has no keys")),
        (true, Some(why)) => Err(InvalidJwtSettings::Jwks(format!(
            "the JWKS has no key that can be used; of one: {why}"
        ))),
    }
}

fn say(id: Option<&str>, why: Unusable) {
    let key = id.unwrap_or("(without a kid)");
    match why {
        // Usual in the sets of providers.
        Unusable::OtherUse | Unusable::Unknown | Unusable::Algorithm => {
            debug!(key, %why, "a key of a JWKS is passed over");
        }
        Unusable::Secret | Unusable::Private | Unusable::Weak(_) => {
            warn!(key, %why, "a key of a JWKS is passed over");
        }
    }
}

fn read_key(key: Value, accepted: &Accepted) -> Result<TrustedKey, Unusable> {
    let private = key.get("d").is_some();
    let jwk: Jwk = serde_json::from_value(key).map_err(|_| Unusable::Unknown)?;
    let (key, fitting) = public_half(&jwk)?;
    if private {
        return Err(Unusable::Private);
    }
    if !verifies(&jwk) {
        return Err(Unusable::OtherUse);
    }
    let algorithms = match jwk.common.key_algorithm {
        None => accepted.of_key(fitting),
        Some(pinned) => match Algorithm::try_from(pinned) {
            Ok(pinned) => accepted.of_pinned_key(pinned, fitting),
            Err(_) => Vec::new(),
        },
    };
    if algorithms.is_empty() {
        return Err(Unusable::Algorithm);
    }
    Ok(TrustedKey::new(jwk.common.key_id.as_deref(), key, fitting, algorithms))
}

/// `use` and `key_ops` (RFC 7517, 4.2 and 4.3), where it says either.
fn verifies(jwk: &Jwk) -> bool {
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let operations = jwk.common.key_operations.as_ref();
    signs && operations.is_none_or(|all| all.contains(&KeyOperations::Verify))
}

/// The key, and the algorithms that fit its kind and curve (RFC 7518, 6; RFC 8037, 2).
fn public_half(jwk: &Jwk) -> Result<(DecodingKey, &'static [Algorithm]), Unusable> {
    let key = || DecodingKey::from_jwk(jwk).map_err(|_| Unusable::Unknown);
    let (key, fitting) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let bits = bits(&rsa.n).ok_or(Unusable::Unknown)?;
            if bits < LEAST_RSA_BITS {
                return Err(Unusable::Weak(bits));
            }
            return Ok((key()?, RSA));
        }
        AlgorithmParameters::EllipticCurve(point) => {
            let curve = match point.curve {
                EllipticCurve::P256 => P256,
                EllipticCurve::P384 => P384,
                _ => return Err(Unusable::Unknown),
            };
            // The point must be on the curve that the key names.
            elliptic(key()?).filter(|(_, fitting)| *fitting == curve)
        }
        AlgorithmParameters::OctetKeyPair(point) if point.curve == EllipticCurve::Ed25519 => {
            edwards(key()?)
        }
        AlgorithmParameters::OctetKey(_) => return Err(Unusable::Secret),
        _ => None,
    }
    .ok_or(Unusable::Unknown)?;
    Ok((key, fitting))
}

/// How long a number is (`Base64urlUInt`; RFC 7518, 2).
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

    fn unusable(key: Value, accepted: &[&str]) -> Unusable {
        let names: Vec<_> = accepted.iter().map(ToString::to_string).collect();
        let shown = key.to_string();
        match read_key(key, &Accepted::parse(&names).unwrap()) {
            Ok(_) => panic!("taken: {shown}"),
            Err(why) => why,
        }
    }

    fn algorithms(key: Value, accepted: &[&str]) -> Vec<Algorithm> {
        let names: Vec<_> = accepted.iter().map(ToString::to_string).collect();
        read_key(key, &Accepted::parse(&names).unwrap())
            .map(|key| key.algorithms().to_vec())
            .unwrap()
    }

    fn with(key: &Key, more: &[(&str, Value)]) -> Value {
        let mut jwk = key.jwk("k");
        for (name, value) in more {
            jwk[name] = value.clone();
        }
        jwk
    }

    #[test]
    fn a_key_is_held_to_its_own_algorithm_else_to_the_usual_one_of_its_kind() {
        let (rsa, p256, p384, ed) = (Key::rsa(), Key::p256(), Key::p384(), Key::ed25519());
        let none = [("alg", Value::Null)];
        for (key, usual) in [
            (&rsa, Algorithm::RS256),
            (&p256, Algorithm::ES256),
            (&p384, Algorithm::ES384),
            (&ed, Algorithm::EdDSA),
        ] {
            assert_eq!(algorithms(with(key, &none), &[]), [usual]);
        }
        let ps512 = || with(&rsa, &[("alg", json!("PS512"))]);
        assert_eq!(algorithms(ps512(), &[]), [Algorithm::PS512]);
        assert_eq!(algorithms(ps512(), &["RS256", "PS512"]), [Algorithm::PS512]);
        assert_eq!(unusable(ps512(), &["RS256"]), Unusable::Algorithm);
        assert_eq!(algorithms(with(&rsa, &none), &["ES256", "RS384"]), [Algorithm::RS384]);
    }

    #[test]
    fn an_algorithm_that_does_not_fit_the_kind_is_not_believed() {
        for alg in ["HS256", "ES256", "EdDSA", "none", "RSA-OAEP", "RS257"] {
            let key = with(&Key::rsa(), &[("alg", json!(alg))]);
            assert_eq!(unusable(key, &[]), Unusable::Algorithm, "{alg}");
        }
        let other_curve = with(&Key::p256(), &[("alg", json!("ES384"))]);
        assert_eq!(unusable(other_curve, &[]), Unusable::Algorithm);
        let wrong_curve = with(&Key::p256(), &[("crv", json!("P-384"))]);
        assert_eq!(unusable(wrong_curve, &[]), Unusable::Unknown);
        let off_the_curve = with(&Key::p256(), &[("x", json!("AAAA"))]);
        assert_eq!(unusable(off_the_curve, &[]), Unusable::Unknown);
    }

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let rsa = Key::rsa();
        for (name, value, why) in [
            ("use", json!("enc"), Unusable::OtherUse),
            ("key_ops", json!(["encrypt"]), Unusable::OtherUse),
            ("kty", json!("AKP"), Unusable::Unknown),
            ("n", json!("?"), Unusable::Unknown),
            ("d", json!("AQAB"), Unusable::Private),
        ] {
            assert_eq!(unusable(with(&rsa, &[(name, value)]), &[]), why, "{name}");
        }
        for (name, value) in [("use", json!("sig")), ("key_ops", json!(["verify"]))] {
            assert!(!algorithms(with(&rsa, &[(name, value)]), &[]).is_empty(), "{name}");
        }
        let secret = json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" });
        assert_eq!(unusable(secret, &["HS256"]), Unusable::Secret);
    }

    #[test]
    fn a_weak_rsa_key_is_passed_over() {
        let modulus = |bytes: usize| {
            // A leading zero does not make it longer.
            let number: Vec<u8> = [0].into_iter().chain(std::iter::repeat_n(0xc1, bytes)).collect();
            json!({ "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(number) })
        };
        assert_eq!(unusable(modulus(128), &[]), Unusable::Weak(1024));
        assert_eq!(unusable(modulus(255), &[]), Unusable::Weak(2040));
        assert_eq!(algorithms(modulus(256), &[]), [Algorithm::RS256]);
    }

    #[test]
    fn what_is_of_no_use_does_not_spoil_the_rest() {
        let set = json!({ "keys": [
            { "kty": "unheard of" }, 7, null, Key::p256().jwk("a"),
            { "kty": "OKP", "crv": "X25519", "x": "AAAA" }, Key::ed25519().jwk("b"),
        ] });
        let keys = read(&set.to_string(), &Accepted::default()).unwrap();
        assert!(keys.len() == 2 && keys[0].is_named("a") && keys[1].is_named("b"));
        for nothing in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[{}]}"#] {
            assert!(read(nothing, &Accepted::default()).is_err(), "{nothing}");
        }
    }

    #[test]
    fn no_more_keys_are_taken_than_a_provider_needs() {
        let key = Key::ed25519().jwk("k");
        let set = json!({ "keys": vec![key; MAX_KEYS + 1] });
        assert_eq!(read(&set.to_string(), &Accepted::default()).unwrap().len(), MAX_KEYS);
    }
}
