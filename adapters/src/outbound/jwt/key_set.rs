use std::collections::HashSet;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    VerificationAlgorithm,
};
use belfry_application::ports::TokenError;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};

use super::settings::{InvalidJwtSettings, JwtKey, JwtSettings};

/// The keys that tokens may be signed with. There may be several, as while an issuer changes from
/// one to the next.
pub(super) struct KeySet(Vec<TrustedKey>);

/// A key, and all that a token signed with it is held to.
struct TrustedKey {
    /// What the issuer calls it; a key without a name may be meant by any name.
    id: Option<Box<str>>,
    key: DecodingKey,
    rules: Validation,
}

impl KeySet {
    /// The one key of the settings.
    pub(super) fn of(settings: &JwtSettings) -> Result<Self, InvalidJwtSettings> {
        let (key, fitting) = read(&settings.key)?;
        let mut algorithms = settings.named_algorithms()?;
        if let Some(other) = algorithms.iter().find(|one| !fitting.contains(one)) {
            return Err(InvalidJwtSettings::AlgorithmDoesNotFit {
                algorithm: format!("{other:?}"),
                fitting: names(fitting),
            });
        }
        if algorithms.is_empty() {
            algorithms.push(fitting[0]);
        }
        let rules = signature_only(algorithms);
        let id = None;
        Ok(Self(vec![TrustedKey { id, key, rules }]))
    }

    /// What a token claims, if one of the keys signed it. What it claims is not judged here.
    pub(super) fn open(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        let header = decode_header(token)
            .map_err(|_| TokenError::Invalid("its header cannot be read or names no algorithm"))?;
        if header.crit.is_some() {
            // RFC 7515, 4.1.11: what must be understood and is not makes the token invalid.
            return Err(TokenError::Invalid("it asks for extensions"));
        }
        let mut refused = TokenError::Invalid("no key with its algorithm and key id is trusted");
        for trusted in self.0.iter().filter(|one| one.may_have_signed(&header)) {
            match decode(token, &trusted.key, &trusted.rules) {
                Ok(opened) => return Ok(opened.claims),
                Err(error) => refused = TokenError::Invalid(reason(error.kind())),
            }
        }
        Err(refused)
    }
}

impl TrustedKey {
    fn may_have_signed(&self, header: &Header) -> bool {
        let named = match (&self.id, &header.kid) {
            (Some(id), Some(kid)) => **id == **kid,
            _ => true,
        };
        named && self.rules.algorithms.contains(&header.alg)
    }
}

/// The signature and nothing else: the claims are judged by [`super::claim_rules`], which knows our
/// clock and says why.
fn signature_only(algorithms: Vec<Algorithm>) -> Validation {
    let mut rules = Validation::new(algorithms[0]);
    rules.algorithms = algorithms;
    rules.required_spec_claims = HashSet::new();
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    rules
}

fn reason(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => "its signature does not fit",
        ErrorKind::Base64(_) => "it is not base64url",
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => "its claims are not a JSON object",
        _ => "it is not a signed token",
    }
}

/// The key, and the algorithms that it can be used with, the usual one first.
fn read(key: &JwtKey) -> Result<(DecodingKey, &'static [Algorithm]), InvalidJwtSettings> {
    match key {
        JwtKey::Secret(secret) => Ok((
            DecodingKey::from_secret(secret.reveal()),
            &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
        )),
        JwtKey::PublicPem(pem) => read_public(pem),
    }
}

fn read_public(pem: &str) -> Result<(DecodingKey, &'static [Algorithm]), InvalidJwtSettings> {
    // The library reads an RSA private key, and a certificate's first bit string, as a public key.
    if pem.contains("PRIVATE KEY-----") {
        return Err(InvalidJwtSettings::PrivateKey);
    }
    if !pem.contains("PUBLIC KEY-----") {
        return Err(InvalidJwtSettings::NotAPublicKey);
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem.as_bytes()) {
        return if is_valid(&key, &ECDSA_P256_SHA256_FIXED) {
            Ok((key, &[Algorithm::ES256]))
        } else if is_valid(&key, &ECDSA_P384_SHA384_FIXED) {
            Ok((key, &[Algorithm::ES384]))
        } else {
            Err(InvalidJwtSettings::NotAPublicKey)
        };
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem.as_bytes()) {
        return if is_valid(&key, &ED25519) {
            Ok((key, &[Algorithm::EdDSA]))
        } else {
            Err(InvalidJwtSettings::NotAPublicKey)
        };
    }
    let key =
        DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| InvalidJwtSettings::NotAPublicKey)?;
    match rsa_bits(&key).ok_or(InvalidJwtSettings::NotAPublicKey)? {
        bits if bits < 2048 => Err(InvalidJwtSettings::WeakRsaKey(bits)),
        _ => Ok((
            key,
            &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
        )),
    }
}

/// Whether these bytes are a key for that algorithm. A wrong one would refuse every token, and only
/// then.
fn is_valid(key: &DecodingKey, algorithm: &'static dyn VerificationAlgorithm) -> bool {
    key.try_get_as_bytes().is_ok_and(|bytes| ParsedPublicKey::new(algorithm, bytes).is_ok())
}

fn rsa_bits(key: &DecodingKey) -> Option<usize> {
    let public = aws_lc_rs::rsa::PublicKey::from_der(key.try_get_as_bytes().ok()?).ok()?;
    Some(public.modulus_len() * 8)
}

fn names(algorithms: &[Algorithm]) -> String {
    let names: Vec<_> = algorithms.iter().map(|one| format!("{one:?}")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::super::signing::{Key, SECRET};
    use super::*;

    fn settings(key: JwtKey, algorithms: &[&str]) -> JwtSettings {
        JwtSettings {
            algorithms: algorithms.iter().map(ToString::to_string).collect(),
            ..JwtSettings::new(key)
        }
    }

    fn secret() -> JwtKey {
        JwtKey::Secret(Secret::new(*SECRET).unwrap())
    }

    fn refused(key: JwtKey, algorithms: &[&str]) -> InvalidJwtSettings {
        match KeySet::of(&settings(key, algorithms)) {
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
            "HS256 does not fit the key, which is for RS256, RS384, RS512, PS256, PS384, PS512"
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
            let keys = KeySet::of(&settings(key, &[])).unwrap();
            assert_eq!(keys.0[0].rules.algorithms, [usual]);
        }
    }

    #[test]
    fn a_named_key_is_taken_by_its_name_and_the_next_is_tried_after_one_that_does_not_fit() {
        let named = |id: Option<&str>, secret: &[u8]| TrustedKey {
            id: id.map(Into::into),
            key: DecodingKey::from_secret(secret),
            rules: signature_only(vec![Algorithm::HS256]),
        };
        let token = |kid: Option<&str>, secret: &[u8]| {
            let mut header = Header::new(Algorithm::HS256);
            header.kid = kid.map(str::to_owned);
            let key = jsonwebtoken::EncodingKey::from_secret(secret);
            jsonwebtoken::encode(&header, &serde_json::json!({}), &key).unwrap()
        };
        let keys = KeySet(vec![named(Some("old"), b"1"), named(Some("new"), b"2")]);
        assert!(keys.open(&token(Some("new"), b"2")).is_ok());
        assert!(keys.open(&token(Some("old"), b"1")).is_ok());
        assert!(keys.open(&token(None, b"2")).is_ok());
        assert!(keys.open(&token(Some("old"), b"2")).is_err());
        assert!(keys.open(&token(Some("other"), b"2")).is_err());
        assert!(KeySet(vec![named(None, b"1")]).open(&token(Some("x"), b"1")).is_ok());
    }
}
