use std::collections::HashSet;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519 as ED25519_SIGNATURE,
    ParsedPublicKey, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode};
use serde_json::{Map, Value};

use super::algorithms::{Accepted, ED25519, HMAC, P256, P384, RSA, names};
use super::settings::{InvalidJwtSettings, Secret};

/// Fewer bits can be broken (RFC 7518, 3.3).
pub(super) const LEAST_RSA_BITS: usize = 2048;

/// A key, and all that a token signed with it is held to. The algorithms are the key's, so that a
/// public key is never taken for a secret (RFC 8725, 3.1 and 3.2).
pub(super) struct TrustedKey {
    /// What the issuer calls it; a key without a name may be meant by any name.
    id: Option<Box<str>>,
    key: DecodingKey,
    /// All algorithms of its kind.
    fitting: &'static [Algorithm],
    rules: Validation,
}

impl TrustedKey {
    /// A key that is used with these algorithms, at least one, of those that fit its kind.
    pub(super) fn new(
        id: Option<&str>,
        key: DecodingKey,
        fitting: &'static [Algorithm],
        algorithms: Vec<Algorithm>,
    ) -> Self {
        Self { id: id.map(Into::into), key, fitting, rules: signature_only(algorithms) }
    }

    pub(super) fn of_secret(
        secret: &Secret,
        accepted: &Accepted,
    ) -> Result<Self, InvalidJwtSettings> {
        Self::nameless(DecodingKey::from_secret(secret.reveal()), HMAC, accepted)
    }

    /// All public keys in that PEM.
    pub(super) fn of_pem(pem: &str, accepted: &Accepted) -> Result<Vec<Self>, InvalidJwtSettings> {
        // The library reads an RSA private key, and a certificate's first bit string, as a public key.
        if pem.contains("PRIVATE KEY-----") {
            return Err(InvalidJwtSettings::PrivateKey);
        }
        let keys: Vec<_> = pem_blocks(pem)
            .map(|block| {
                let (key, fitting) = read_public(&block)?;
                Self::nameless(key, fitting, accepted)
            })
            .collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(InvalidJwtSettings::NotAPublicKey) } else { Ok(keys) }
    }

    fn nameless(
        key: DecodingKey,
        fitting: &'static [Algorithm],
        accepted: &Accepted,
    ) -> Result<Self, InvalidJwtSettings> {
        let algorithms = accepted.of_key(fitting);
        if algorithms.is_empty() {
            return Err(InvalidJwtSettings::KeyOfNoUse(names(fitting)));
        }
        Ok(Self::new(None, key, fitting, algorithms))
    }

    pub(super) fn is_named(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }

    pub(super) fn fitting(&self) -> &'static [Algorithm] {
        self.fitting
    }

    #[cfg(test)]
    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.rules.algorithms
    }

    pub(super) fn may_have_signed(&self, header: &Header) -> bool {
        let named = match (&self.id, &header.kid) {
            (Some(id), Some(kid)) => **id == **kid,
            _ => true,
        };
        named && self.rules.algorithms.contains(&header.alg)
    }

    /// What the token claims, if this key signed it. What it claims is not judged here.
    pub(super) fn open(&self, token: &str) -> jsonwebtoken::errors::Result<Map<String, Value>> {
        decode(token, &self.key, &self.rules).map(|opened| opened.claims)
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

/// Each `-----BEGIN …` with what belongs to it; what stands between them is for people (RFC 7468, 2).
fn pem_blocks(pem: &str) -> impl Iterator<Item = String> {
    pem.split("-----BEGIN ").skip(1).map(|block| {
        let end = block
            .find("-----END ")
            .and_then(|end| Some(end + 9 + block[end + 9..].find("-----")? + 5))
            .unwrap_or(block.len());
        format!("-----BEGIN {}\n", &block[..end])
    })
}

type Readable = (DecodingKey, &'static [Algorithm]);

fn read_public(pem: &str) -> Result<Readable, InvalidJwtSettings> {
    if !pem.contains("PUBLIC KEY-----") {
        return Err(InvalidJwtSettings::NotAPublicKey);
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem.as_bytes()) {
        return elliptic(key).ok_or(InvalidJwtSettings::NotAPublicKey);
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem.as_bytes()) {
        return edwards(key).ok_or(InvalidJwtSettings::NotAPublicKey);
    }
    let key =
        DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| InvalidJwtSettings::NotAPublicKey)?;
    match rsa_bits(&key).ok_or(InvalidJwtSettings::NotAPublicKey)? {
        bits if bits < LEAST_RSA_BITS => Err(InvalidJwtSettings::WeakRsaKey(bits)),
        _ => Ok((key, RSA)),
    }
}

/// A key on P-256 or P-384, with the one algorithm that its curve is for.
pub(super) fn elliptic(key: DecodingKey) -> Option<Readable> {
    if is_valid(&key, &ECDSA_P256_SHA256_FIXED) {
        Some((key, P256))
    } else if is_valid(&key, &ECDSA_P384_SHA384_FIXED) {
        Some((key, P384))
    } else {
        None
    }
}

pub(super) fn edwards(key: DecodingKey) -> Option<Readable> {
    is_valid(&key, &ED25519_SIGNATURE).then_some((key, ED25519))
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
