use belfry_application::ports::{KeyFingerprint, TokenError};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, decode_header};
use serde_json::{Map, Value};

use super::algorithms::{AcceptedAlgorithms, names};
use super::error::InvalidJwtSettings;
use super::key_material::KeyMaterial;
use super::settings::JwtSettings;
use super::trusted_key::TrustedKey;

/// A token with a well-formed header. Its signature is not verified yet, so none of its content is trusted.
/// Keys that the token contains or links to (`jku`, `jwk`, `x5u`, `x5c`) are ignored: an attacker who
/// forges a token would supply matching keys (RFC 8725, 3.10).
pub(super) struct UnverifiedToken<'a> {
    text: &'a str,
    header: Header,
}

impl<'a> UnverifiedToken<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenError> {
        let header = decode_header(text)
            .map_err(|_| TokenError::Invalid("malformed header or unknown algorithm"))?;
        if header.crit.is_some() {
            // A token with a critical extension that is not supported is invalid (RFC 7515, 4.1.11).
            return Err(TokenError::Invalid("critical header extensions are not supported"));
        }
        Ok(Self { text, header })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.header.alg
    }
}

/// The verification keys of one source.
pub(super) struct KeySet(Vec<TrustedKey>);

/// The content of a token with a valid signature.
#[derive(Debug, PartialEq)]
pub(super) struct SignedContent {
    pub(super) claims: Map<String, Value>,
    /// The key that signed it.
    pub(super) key: KeyFingerprint,
}

/// Why no key of a set verifies a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureError {
    /// The token's key id is not in the set.
    UnknownKey,
    /// No key matches the token's header, or no matching key has signed it. Contains the reason.
    Invalid(&'static str),
}

impl KeySet {
    /// The maximum number of keys tried per token. It bounds the cost of a token that no key has signed.
    const MAX_TRIES: usize = JwtSettings::MAX_KEYS;

    pub(super) fn new(keys: Vec<TrustedKey>) -> Self {
        Self(keys)
    }

    /// The configured keys. Each key must support at least one accepted algorithm. Each accepted algorithm
    /// needs a key that supports it. With `has_jwks`, this may be a key that is published later.
    pub(super) fn from_material(
        material: &[KeyMaterial],
        accepted: &AcceptedAlgorithms,
        has_jwks: bool,
    ) -> Result<Self, InvalidJwtSettings> {
        // The default algorithms reject no key. `supported` returns all algorithms of a key, accepted or not.
        let supported: Vec<_> = trusted_keys(material, &AcceptedAlgorithms::default())?
            .iter()
            .flat_map(|key| key.supported().iter().copied())
            .collect();
        let has_key = |one: &Algorithm| {
            supported.contains(one) || (has_jwks && accepted.is_allowed_in_jwks(*one))
        };
        if let Some(without_key) = accepted.iter().find(|one| !has_key(one)) {
            let (algorithm, supported) = (format!("{without_key:?}"), names(&supported));
            return Err(InvalidJwtSettings::AlgorithmWithoutKey { algorithm, supported });
        }
        let keys = trusted_keys(material, accepted)?;
        let max = JwtSettings::MAX_KEYS;
        if keys.len() > max {
            return Err(InvalidJwtSettings::TooManyKeys { keys: keys.len(), max });
        }
        Ok(Self(keys))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn fingerprints(&self) -> impl Iterator<Item = KeyFingerprint> {
        self.0.iter().map(TrustedKey::fingerprint)
    }

    /// The token's content, if one of the keys has signed it. The claims are not checked.
    pub(super) fn verify(
        &self,
        token: &UnverifiedToken<'_>,
    ) -> Result<SignedContent, SignatureError> {
        let mut last_error = "no trusted key for its algorithm and key id";
        let candidates = self.0.iter().filter(|one| one.matches(&token.header));
        for key in candidates.take(Self::MAX_TRIES) {
            match key.verify(token.text) {
                Ok(claims) => return Ok(SignedContent { claims, key: key.fingerprint() }),
                Err(error) => last_error = reason(error.kind()),
            }
        }
        match &token.header.kid {
            Some(id) if !self.0.iter().any(|key| key.has_id(id)) => Err(SignatureError::UnknownKey),
            _ => Err(SignatureError::Invalid(last_error)),
        }
    }
}

impl From<SignatureError> for TokenError {
    fn from(error: SignatureError) -> Self {
        Self::Invalid(match error {
            SignatureError::UnknownKey => "unknown key id",
            SignatureError::Invalid(reason) => reason,
        })
    }
}

fn trusted_keys(
    material: &[KeyMaterial],
    accepted: &AcceptedAlgorithms,
) -> Result<Vec<TrustedKey>, InvalidJwtSettings> {
    let mut keys = Vec::new();
    for one in material {
        keys.extend(one.trusted_keys(accepted)?);
    }
    Ok(keys)
}

fn reason(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => "the signature does not match",
        ErrorKind::Base64(_) => "a part of the token is not base64url",
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => "the claims are not a JSON object",
        _ => "not a signed token",
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::DecodingKey;

    use super::super::algorithms::HMAC;
    use super::super::secret::Secret;
    use super::super::settings::JwtKey;
    use super::super::signing::{Key, SECRET};
    use super::*;

    fn key_set(keys: &[JwtKey], algorithms: &[&str]) -> Result<KeySet, InvalidJwtSettings> {
        let names: Vec<_> = algorithms.iter().map(ToString::to_string).collect();
        let material: Vec<_> = keys.iter().map(|key| KeyMaterial::read(key).unwrap()).collect();
        KeySet::from_material(&material, &AcceptedAlgorithms::parse(&names)?, false)
    }

    fn secret() -> JwtKey {
        JwtKey::Secret(Secret::new(*SECRET).unwrap())
    }

    fn error_of(key: JwtKey, algorithms: &[&str]) -> InvalidJwtSettings {
        match key_set(&[key], algorithms) {
            Ok(_) => panic!("accepted {algorithms:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn algorithm_that_no_key_supports_is_rejected() {
        let rsa = || Key::rsa().public();
        for (key, algorithms) in [
            (secret(), &["RS256"][..]),
            (secret(), &["HS256", "RS256"]),
            (rsa(), &["HS256"]),
            (rsa(), &["RS256", "HS256"]),
            (rsa(), &["ES256"]),
            (Key::p256().public(), &["ES384"]),
            (Key::p384().public(), &["ES256"]),
            (Key::ed25519().public(), &["ES256"]),
        ] {
            let error = error_of(key, algorithms);
            assert!(
                matches!(error, InvalidJwtSettings::AlgorithmWithoutKey { .. }),
                "{algorithms:?}: {error}"
            );
        }
        for name in ["none", "HS257", "rs256", ""] {
            let expected = InvalidJwtSettings::UnknownAlgorithm(name.to_owned());
            assert_eq!(error_of(rsa(), &[name]), expected);
        }
        assert_eq!(
            error_of(rsa(), &["HS256"]).to_string(),
            "no configured key can be used with HS256; \
             the keys support RS256, RS384, RS512, PS256, PS384, PS512"
        );
    }

    #[test]
    fn pem_without_a_public_key_is_rejected_with_its_reason() {
        for pem in [
            "",
            "hello",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        ] {
            let error = error_of(JwtKey::PublicPem(pem.to_owned()), &[]);
            assert_eq!(error, InvalidJwtSettings::NotAPublicKey, "{pem}");
        }
        for key in [Key::rsa(), Key::p256(), Key::ed25519()] {
            let private = JwtKey::PublicPem(key.private_pem().to_owned());
            assert_eq!(error_of(private, &[]), InvalidJwtSettings::PrivateKey);
        }
    }

    #[test]
    fn short_rsa_key_is_rejected() {
        let pem = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCvyyBNLLRmmGLl2MSpx5KR6d2E
QvWJv3FvQjRppOjMQCs5JvtvCMD4nKyOp3EQBmDCxDZRmx2MvM+tV/OH9gpnnTB4
rLxhPcGlYzHnS52KuGaAvd+tv9XkzKYLV4h0jP+WW6BAaNiMMaVb+1E8hzS3jMA7
u208aeDrL3guDMD6zQIDAQAB
-----END PUBLIC KEY-----
";
        let error = error_of(JwtKey::PublicPem(pem.to_owned()), &[]);
        assert_eq!(error, InvalidJwtSettings::WeakRsaKey(1024));
    }

    #[test]
    fn default_algorithm_depends_on_the_key_type() {
        for (key, default) in [
            (secret(), Algorithm::HS256),
            (Key::rsa().public(), Algorithm::RS256),
            (Key::p256().public(), Algorithm::ES256),
            (Key::p384().public(), Algorithm::ES384),
            (Key::ed25519().public(), Algorithm::EdDSA),
        ] {
            let keys = key_set(&[key], &[]).unwrap();
            assert_eq!(keys.0[0].algorithms(), [default]);
        }
    }

    #[test]
    fn key_is_selected_by_id_and_without_id_all_keys_are_tried() {
        let key = |id: Option<&str>, secret: &[u8]| {
            TrustedKey::new(id, DecodingKey::from_secret(secret), HMAC, vec![Algorithm::HS256])
        };
        let keys = KeySet(vec![key(Some("old"), b"1"), key(Some("new"), b"2")]);
        assert!(verify(&keys, &token(Some("new"), b"2")).is_ok());
        assert!(verify(&keys, &token(Some("old"), b"1")).is_ok());
        assert!(verify(&keys, &token(None, b"2")).is_ok());
        let mismatch = Err(SignatureError::Invalid("the signature does not match"));
        assert_eq!(verify(&keys, &token(Some("old"), b"2")), mismatch);
        assert_eq!(verify(&keys, &token(None, b"3")), mismatch);
        assert_eq!(verify(&keys, &token(Some("other"), b"2")), Err(SignatureError::UnknownKey));
        assert!(verify(&KeySet(vec![key(None, b"1")]), &token(Some("x"), b"1")).is_ok());
    }

    fn token(kid: Option<&str>, secret: &[u8]) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid.map(str::to_owned);
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&header, &serde_json::json!({}), &key).unwrap()
    }

    fn verify(keys: &KeySet, token: &str) -> Result<SignedContent, SignatureError> {
        keys.verify(&UnverifiedToken::parse(token).unwrap())
    }

    #[test]
    fn secret_and_public_keys_coexist_each_with_its_own_algorithms() {
        let keys = [Key::rsa().public(), secret(), Key::p256().public(), Key::ed25519().public()];
        let set = key_set(&keys, &[]).unwrap();
        let algorithms: Vec<_> = set.0.iter().map(|key| key.algorithms()[0]).collect();
        let own = [Algorithm::RS256, Algorithm::HS256, Algorithm::ES256, Algorithm::EdDSA];
        assert_eq!(algorithms, own);

        let set = key_set(&keys[..2], &["HS512", "PS256", "RS512"]).unwrap();
        assert_eq!(set.0[0].algorithms(), [Algorithm::PS256, Algorithm::RS512]);
        assert_eq!(set.0[1].algorithms(), [Algorithm::HS512]);
        let error = key_set(&keys[..2], &["HS256"]).err().unwrap();
        assert!(matches!(error, InvalidJwtSettings::KeyWithoutAlgorithm(_)), "{error}");
    }

    #[test]
    fn pem_may_contain_several_keys_with_text_between_them() {
        let keys = [Key::rsa(), Key::p256(), Key::ed25519()];
        let pem = keys.each_ref().map(Key::public_pem).join("the next one:\n");
        let set = key_set(&[JwtKey::PublicPem(pem.clone())], &[]).unwrap();
        for (key, algorithm) in
            keys.iter().zip([Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA])
        {
            let token = key.sign(algorithm, &serde_json::json!({}));
            assert!(verify(&set, &token).is_ok(), "{algorithm:?}");
        }
        let broken = format!("{pem}-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----");
        let error = error_of(JwtKey::PublicPem(broken), &[]);
        assert_eq!(error, InvalidJwtSettings::NotAPublicKey);
    }

    #[test]
    fn number_of_keys_and_of_tries_is_limited() {
        let many: Vec<_> = (0..=JwtSettings::MAX_KEYS).map(|_| secret()).collect();
        let error = key_set(&many, &[]).err().unwrap();
        let max = JwtSettings::MAX_KEYS;
        assert_eq!(error, InvalidJwtSettings::TooManyKeys { keys: max + 1, max });

        let numbered = |number: usize| {
            let (id, secret) = (number.to_string(), [u8::try_from(number).unwrap()]);
            let key = DecodingKey::from_secret(&secret);
            TrustedKey::new(Some(&id), key, HMAC, vec![Algorithm::HS256])
        };
        let published = KeySet((0..20).map(numbered).collect());
        assert!(verify(&published, &token(None, &[15])).is_ok());
        assert!(verify(&published, &token(None, &[16])).is_err(), "the 17th key is not tried");
        assert!(
            verify(&published, &token(Some("16"), &[16])).is_ok(),
            "a key with a matching id is found"
        );
    }
}
