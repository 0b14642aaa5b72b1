use belfry_application::ports::TokenError;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, decode_header};
use serde_json::{Map, Value};

use super::algorithms::{Accepted, names};
use super::key_material::KeyMaterial;
use super::settings::{InvalidJwtSettings, JwtSettings};
use super::trusted_key::TrustedKey;

/// A token whose header can be read and asks for nothing special. Nothing that it says is believed
/// yet, and where it brings or names keys itself (`jku`, `jwk`, `x5u`, `x5c`) nobody looks: whoever
/// forges a token would bring the keys to it (RFC 8725, 3.10).
pub(super) struct SignedToken<'a> {
    text: &'a str,
    header: Header,
}

impl<'a> SignedToken<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, TokenError> {
        let header = decode_header(text)
            .map_err(|_| TokenError::Invalid("its header cannot be read or names no algorithm"))?;
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: what must be understood and is not makes the token invalid.
            return Err(TokenError::Invalid("it asks for extensions"));
        }
        Ok(Self { text, header })
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.header.alg
    }
}

/// The keys of one source that tokens may be signed with. There may be several, as while an issuer
/// changes from one to the next.
pub(super) struct KeySet(Vec<TrustedKey>);

/// Why no key of a set opens a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unopened {
    /// It names a key that is not in the set.
    UnknownKey,
    /// Those that may have signed it did not.
    Refused(&'static str),
}

impl KeySet {
    /// How many keys are tried with one token: what somebody sends who has no key at all costs no more
    /// than that.
    const MAX_TRIES: usize = JwtSettings::MAX_KEYS;

    pub(super) fn new(keys: Vec<TrustedKey>) -> Self {
        Self(keys)
    }

    /// The keys that are set. Each must be of use, and so must be each accepted algorithm, unless it
    /// may be for what a provider publishes.
    pub(super) fn of_material(
        material: &[KeyMaterial],
        accepted: &Accepted,
        published: bool,
    ) -> Result<Self, InvalidJwtSettings> {
        let fitting: Vec<_> = read(material, &Accepted::default())?
            .iter()
            .flat_map(|key| key.fitting().iter().copied())
            .collect();
        let of_use = |one: &Algorithm| {
            fitting.contains(one) || (published && accepted.may_be_published(*one))
        };
        if let Some(other) = accepted.iter().find(|one| !of_use(one)) {
            let (algorithm, fitting) = (format!("{other:?}"), names(&fitting));
            return Err(InvalidJwtSettings::AlgorithmDoesNotFit { algorithm, fitting });
        }
        let keys = read(material, accepted)?;
        match keys.len() {
            many if many > JwtSettings::MAX_KEYS => Err(InvalidJwtSettings::TooManyKeys(many)),
            _ => Ok(Self(keys)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What a token claims, if one of the keys signed it. What it claims is not judged here.
    pub(super) fn open(&self, token: &SignedToken<'_>) -> Result<Map<String, Value>, Unopened> {
        let mut refused = "no key with its algorithm and key id is trusted";
        let candidates = self.0.iter().filter(|one| one.may_have_signed(&token.header));
        for key in candidates.take(Self::MAX_TRIES) {
            match key.open(token.text) {
                Ok(claims) => return Ok(claims),
                Err(error) => refused = reason(error.kind()),
            }
        }
        match &token.header.kid {
            Some(id) if !self.0.iter().any(|key| key.is_named(id)) => Err(Unopened::UnknownKey),
            _ => Err(Unopened::Refused(refused)),
        }
    }
}

impl From<Unopened> for TokenError {
    fn from(unopened: Unopened) -> Self {
        Self::Invalid(match unopened {
            Unopened::UnknownKey => "no key of that id has signed it",
            Unopened::Refused(reason) => reason,
        })
    }
}

fn read(
    material: &[KeyMaterial],
    accepted: &Accepted,
) -> Result<Vec<TrustedKey>, InvalidJwtSettings> {
    let mut keys = Vec::new();
    for one in material {
        keys.extend(one.trusted_keys(accepted)?);
    }
    Ok(keys)
}

fn reason(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => "its signature does not fit",
        ErrorKind::Base64(_) => "it is not base64url",
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => "its claims are not a JSON object",
        _ => "it is not a signed token",
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::DecodingKey;

    use super::super::algorithms::HMAC;
    use super::super::signing::{Key, SECRET};
    use super::super::{JwtKey, Secret};
    use super::*;

    fn key_set(keys: &[JwtKey], algorithms: &[&str]) -> Result<KeySet, InvalidJwtSettings> {
        let names: Vec<_> = algorithms.iter().map(ToString::to_string).collect();
        let material: Vec<_> = keys.iter().map(|key| KeyMaterial::read(key).unwrap()).collect();
        KeySet::of_material(&material, &Accepted::parse(&names)?, false)
    }

    fn secret() -> JwtKey {
        JwtKey::Secret(Secret::new(*SECRET).unwrap())
    }

    fn refused(key: JwtKey, algorithms: &[&str]) -> InvalidJwtSettings {
        match key_set(&[key], algorithms) {
            Ok(_) => panic!("accepted {algorithms:?}"),
            Err(error) => error,
        }
    }

    #[test]
    fn algorithms_fit_the_key_or_are_refused() {
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
            let error = refused(key, algorithms);
            assert!(
                matches!(error, InvalidJwtSettings::AlgorithmDoesNotFit { .. }),
                "{algorithms:?}: {error}"
            );
        }
        for name in ["none", "HS257", "rs256", ""] {
            let expected = InvalidJwtSettings::UnknownAlgorithm(name.to_owned());
            assert_eq!(refused(rsa(), &[name]), expected);
        }
        assert_eq!(
            refused(rsa(), &["HS256"]).to_string(),
            "HS256 fits no key that is set; they are for RS256, RS384, RS512, PS256, PS384, PS512"
        );
    }

    #[test]
    fn what_is_not_a_public_key_is_refused_and_said_so() {
        for pem in [
            "",
            "hello",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        ] {
            let error = refused(JwtKey::PublicPem(pem.to_owned()), &[]);
            assert_eq!(error, InvalidJwtSettings::NotAPublicKey, "{pem}");
        }
        for key in [Key::rsa(), Key::p256(), Key::ed25519()] {
            let private = JwtKey::PublicPem(key.private_pem().to_owned());
            assert_eq!(refused(private, &[]), InvalidJwtSettings::PrivateKey);
        }
    }

    #[test]
    fn an_rsa_key_that_can_be_broken_is_refused() {
        let pem = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCvyyBNLLRmmGLl2MSpx5KR6d2E
QvWJv3FvQjRppOjMQCs5JvtvCMD4nKyOp3EQBmDCxDZRmx2MvM+tV/OH9gpnnTB4
rLxhPcGlYzHnS52KuGaAvd+tv9XkzKYLV4h0jP+WW6BAaNiMMaVb+1E8hzS3jMA7
u208aeDrL3guDMD6zQIDAQAB
-----END PUBLIC KEY-----
";
        let error = refused(JwtKey::PublicPem(pem.to_owned()), &[]);
        assert_eq!(error, InvalidJwtSettings::WeakRsaKey(1024));
    }

    #[test]
    fn the_usual_algorithm_is_the_keys_own() {
        for (key, usual) in [
            (secret(), Algorithm::HS256),
            (Key::rsa().public(), Algorithm::RS256),
            (Key::p256().public(), Algorithm::ES256),
            (Key::p384().public(), Algorithm::ES384),
            (Key::ed25519().public(), Algorithm::EdDSA),
        ] {
            let keys = key_set(&[key], &[]).unwrap();
            assert_eq!(keys.0[0].algorithms(), [usual]);
        }
    }

    #[test]
    fn a_named_key_is_taken_by_its_name_and_the_next_is_tried_after_one_that_does_not_fit() {
        let named = |id: Option<&str>, secret: &[u8]| {
            TrustedKey::new(id, DecodingKey::from_secret(secret), HMAC, vec![Algorithm::HS256])
        };
        let keys = KeySet(vec![named(Some("old"), b"1"), named(Some("new"), b"2")]);
        assert!(open(&keys, &token(Some("new"), b"2")).is_ok());
        assert!(open(&keys, &token(Some("old"), b"1")).is_ok());
        assert!(open(&keys, &token(None, b"2")).is_ok());
        let refused = Err(Unopened::Refused("its signature does not fit"));
        assert_eq!(open(&keys, &token(Some("old"), b"2")), refused);
        assert_eq!(open(&keys, &token(None, b"3")), refused);
        assert_eq!(open(&keys, &token(Some("other"), b"2")), Err(Unopened::UnknownKey));
        assert!(open(&KeySet(vec![named(None, b"1")]), &token(Some("x"), b"1")).is_ok());
    }

    fn token(kid: Option<&str>, secret: &[u8]) -> String {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = kid.map(str::to_owned);
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&header, &serde_json::json!({}), &key).unwrap()
    }

    fn open(keys: &KeySet, token: &str) -> Result<Map<String, Value>, Unopened> {
        keys.open(&SignedToken::read(token).unwrap())
    }

    #[test]
    fn a_secret_and_public_keys_stand_side_by_side_each_with_its_own_algorithms() {
        let keys = [Key::rsa().public(), secret(), Key::p256().public(), Key::ed25519().public()];
        let set = key_set(&keys, &[]).unwrap();
        let algorithms: Vec<_> = set.0.iter().map(|key| key.algorithms()[0]).collect();
        let own = [Algorithm::RS256, Algorithm::HS256, Algorithm::ES256, Algorithm::EdDSA];
        assert_eq!(algorithms, own);

        let set = key_set(&keys[..2], &["HS512", "PS256", "RS512"]).unwrap();
        assert_eq!(set.0[0].algorithms(), [Algorithm::PS256, Algorithm::RS512]);
        assert_eq!(set.0[1].algorithms(), [Algorithm::HS512]);
        let of_no_use = key_set(&keys[..2], &["HS256"]).err().unwrap();
        assert!(matches!(of_no_use, InvalidJwtSettings::KeyOfNoUse(_)), "{of_no_use}");
    }

    #[test]
    fn a_pem_text_may_hold_several_keys_and_words_between_them() {
        let keys = [Key::rsa(), Key::p256(), Key::ed25519()];
        let pem = keys.each_ref().map(Key::public_pem).join("the next one:\n");
        let set = key_set(&[JwtKey::PublicPem(pem.clone())], &[]).unwrap();
        for (key, algorithm) in
            keys.iter().zip([Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA])
        {
            let token = key.sign(algorithm, &serde_json::json!({}));
            assert!(open(&set, &token).is_ok(), "{algorithm:?}");
        }
        let spoilt = format!("{pem}-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----");
        let error = refused(JwtKey::PublicPem(spoilt), &[]);
        assert_eq!(error, InvalidJwtSettings::NotAPublicKey);
    }

    #[test]
    fn the_number_of_keys_and_of_tries_is_bounded() {
        let many: Vec<_> = (0..=JwtSettings::MAX_KEYS).map(|_| secret()).collect();
        let error = key_set(&many, &[]).err().unwrap();
        assert_eq!(error, InvalidJwtSettings::TooManyKeys(JwtSettings::MAX_KEYS + 1));

        let named = |number: usize| {
            let (id, secret) = (number.to_string(), [u8::try_from(number).unwrap()]);
            let key = DecodingKey::from_secret(&secret);
            TrustedKey::new(Some(&id), key, HMAC, vec![Algorithm::HS256])
        };
        let published = KeySet((0..20).map(named).collect());
        assert!(open(&published, &token(None, &[15])).is_ok());
        assert!(open(&published, &token(None, &[16])).is_err(), "a seventeenth is not tried");
        assert!(open(&published, &token(Some("16"), &[16])).is_ok(), "by its name it is found");
    }
}
