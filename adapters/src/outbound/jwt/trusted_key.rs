use std::collections::HashSet;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519 as ED25519_SIGNATURE,
    ParsedPublicKey, VerificationAlgorithm,
};
use belfry_application::ports::KeyFingerprint;
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Header, Validation, decode};
use serde_json::{Map, Value};

use super::algorithms::{AcceptedAlgorithms, ED25519, HMAC, P256, P384, RSA, names};
use super::error::InvalidJwtSettings;
use super::secret::Secret;

/// The minimum size of an RSA key (RFC 7518, 3.3). A shorter key can be factored.
pub(super) const MIN_RSA_BITS: usize = 2048;

/// A verification key and the algorithms it is used with. The algorithms belong to the key, so that a
/// public key is never used as an HMAC secret (RFC 8725, 3.1 and 3.2).
pub(super) struct TrustedKey {
    /// The issuer's key id (`kid`). `None` matches every `kid` in a token.
    id: Option<Box<str>>,
    key: DecodingKey,
    /// All algorithms of the key's type, whether accepted or not.
    supported: &'static [Algorithm],
    /// Contains the accepted algorithms.
    validation: Validation,
    fingerprint: KeyFingerprint,
}

impl TrustedKey {
    /// `algorithms` are the accepted ones: a non-empty subset of `supported`.
    pub(super) fn new(
        id: Option<&str>,
        key: DecodingKey,
        supported: &'static [Algorithm],
        algorithms: Vec<Algorithm>,
    ) -> Self {
        let fingerprint = fingerprint(&key, supported);
        let validation = signature_only(algorithms);
        Self { id: id.map(Into::into), key, supported, validation, fingerprint }
    }

    pub(super) fn from_secret(
        secret: &Secret,
        accepted: &AcceptedAlgorithms,
    ) -> Result<Self, InvalidJwtSettings> {
        Self::without_id(DecodingKey::from_secret(secret.reveal()), HMAC, accepted)
    }

    /// All public keys in this PEM text, which must contain at least one.
    pub(super) fn from_pem(
        pem: &str,
        accepted: &AcceptedAlgorithms,
    ) -> Result<Vec<Self>, InvalidJwtSettings> {
        // The library would read an RSA private key as a public key.
        if pem.contains("PRIVATE KEY-----") {
            return Err(InvalidJwtSettings::PrivateKey);
        }
        let keys: Vec<_> = pem_blocks(pem)
            .map(|block| {
                let (key, supported) = parse_public_key(&block)?;
                Self::without_id(key, supported, accepted)
            })
            .collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(InvalidJwtSettings::NotAPublicKey) } else { Ok(keys) }
    }

    fn without_id(
        key: DecodingKey,
        supported: &'static [Algorithm],
        accepted: &AcceptedAlgorithms,
    ) -> Result<Self, InvalidJwtSettings> {
        let algorithms = accepted.for_key(supported);
        if algorithms.is_empty() {
            return Err(InvalidJwtSettings::KeyWithoutAlgorithm(names(supported)));
        }
        Ok(Self::new(None, key, supported, algorithms))
    }

    pub(super) fn has_id(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }

    pub(super) fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    pub(super) fn supported(&self) -> &'static [Algorithm] {
        self.supported
    }

    #[cfg(test)]
    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.validation.algorithms
    }

    pub(super) fn matches(&self, header: &Header) -> bool {
        let id_matches = match (&self.id, &header.kid) {
            (Some(id), Some(kid)) => **id == **kid,
            _ => true,
        };
        id_matches && self.validation.algorithms.contains(&header.alg)
    }

    /// The token's claims, if its signature is valid. The claims themselves are not checked.
    pub(super) fn verify(&self, token: &str) -> jsonwebtoken::errors::Result<Map<String, Value>> {
        decode(token, &self.key, &self.validation).map(|verified| verified.claims)
    }
}

/// A hash of the key and its type. An RSA key has different encodings in PEM and in a JWKS, so both are
/// re-encoded in the same form.
fn fingerprint(key: &DecodingKey, supported: &[Algorithm]) -> KeyFingerprint {
    let rsa: Option<PublicKeyX509Der<'_>> = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => PublicKeyComponents { n, e }.as_der().ok(),
        DecodingKeyKind::SecretOrDer(der) if supported == RSA => {
            aws_lc_rs::rsa::PublicKey::from_der(der).ok().and_then(|key| key.as_der().ok())
        }
        DecodingKeyKind::SecretOrDer(_) => None,
    };
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(names(supported).as_bytes());
    match (&rsa, key.kind()) {
        (Some(der), _) => hash.update(der.as_ref()),
        (None, DecodingKeyKind::SecretOrDer(bytes)) => hash.update(bytes),
        (None, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            hash.update(n);
            hash.update(e);
        }
    }
    let hash = hash.finish();
    let (prefix, _) = hash.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
    KeyFingerprint(*prefix)
}

/// Settings of the library to verify the signature only. [`super::claim_rules`] checks the claims, with the
/// clock port and a reason for each rejection.
fn signature_only(algorithms: Vec<Algorithm>) -> Validation {
    let mut validation = Validation::new(algorithms[0]);
    validation.algorithms = algorithms;
    validation.required_spec_claims = HashSet::new();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// The text of each PEM block, without the explanatory text between blocks (RFC 7468, 2).
fn pem_blocks(pem: &str) -> impl Iterator<Item = String> {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    const DASHES: &str = "-----";
    pem.split(BEGIN).skip(1).map(|block| {
        let end = block.find(END).and_then(|end_line| {
            let label = end_line + END.len();
            Some(label + block[label..].find(DASHES)? + DASHES.len())
        });
        format!("{BEGIN}{}\n", &block[..end.unwrap_or(block.len())])
    })
}

/// A key and the algorithms that its type supports.
type PublicKey = (DecodingKey, &'static [Algorithm]);

fn parse_public_key(pem: &str) -> Result<PublicKey, InvalidJwtSettings> {
    // The library would read the first bit string of a certificate as a public key.
    if !pem.contains("PUBLIC KEY-----") {
        return Err(InvalidJwtSettings::NotAPublicKey);
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem.as_bytes()) {
        return ec_key(key).ok_or(InvalidJwtSettings::NotAPublicKey);
    }
    if let Ok(key) = DecodingKey::from_ed_pem(pem.as_bytes()) {
        return ed25519_key(key).ok_or(InvalidJwtSettings::NotAPublicKey);
    }
    let key =
        DecodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| InvalidJwtSettings::NotAPublicKey)?;
    match rsa_bits(&key).ok_or(InvalidJwtSettings::NotAPublicKey)? {
        bits if bits < MIN_RSA_BITS => Err(InvalidJwtSettings::WeakRsaKey(bits)),
        _ => Ok((key, RSA)),
    }
}

/// The key with the algorithm of its curve. `None` unless it is a point on P-256 or P-384.
pub(super) fn ec_key(key: DecodingKey) -> Option<PublicKey> {
    if is_valid(&key, &ECDSA_P256_SHA256_FIXED) {
        Some((key, P256))
    } else if is_valid(&key, &ECDSA_P384_SHA384_FIXED) {
        Some((key, P384))
    } else {
        None
    }
}

pub(super) fn ed25519_key(key: DecodingKey) -> Option<PublicKey> {
    is_valid(&key, &ED25519_SIGNATURE).then_some((key, ED25519))
}

/// Whether the key's bytes are valid for this algorithm. Without this check, an invalid key would be accepted
/// and then verify no token.
fn is_valid(key: &DecodingKey, algorithm: &'static dyn VerificationAlgorithm) -> bool {
    key.try_get_as_bytes().is_ok_and(|bytes| ParsedPublicKey::new(algorithm, bytes).is_ok())
}

fn rsa_bits(key: &DecodingKey) -> Option<usize> {
    let public = aws_lc_rs::rsa::PublicKey::from_der(key.try_get_as_bytes().ok()?).ok()?;
    Some(public.modulus_len() * 8)
}
