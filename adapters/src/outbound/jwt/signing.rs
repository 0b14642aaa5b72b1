//! Signing keys for tests.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::Value;

use super::secret::Secret;
use super::settings::JwtKey;

pub(super) const SECRET: &[u8; 32] = b"thirty-two bytes, none to spare.";

/// A private key with its public key, or an HMAC secret.
#[derive(Clone)]
pub(super) struct Key {
    signing: EncodingKey,
    /// The default algorithm of the key's type.
    algorithm: Algorithm,
    private_pem: String,
    public_pem: String,
}

impl Key {
    pub(super) fn hmac() -> Self {
        Self::secret(SECRET)
    }

    pub(super) fn secret(bytes: &[u8]) -> Self {
        Self {
            signing: EncodingKey::from_secret(bytes),
            algorithm: Algorithm::HS256,
            private_pem: String::new(),
            public_pem: String::new(),
        }
    }

    /// Returns the same key each time, because generating an RSA key is slow.
    pub(super) fn rsa() -> Self {
        static KEY: LazyLock<Key> = LazyLock::new(Key::another_rsa);
        KEY.clone()
    }

    pub(super) fn another_rsa() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let private_pem = pem("PRIVATE KEY", private.as_ref());
        Self {
            signing: EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap(),
            algorithm: Algorithm::RS256,
            private_pem,
            public_pem: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    pub(super) fn p256() -> Self {
        Self::ec(&ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::ES256)
    }

    pub(super) fn p384() -> Self {
        Self::ec(&ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::ES384)
    }

    fn ec(algorithm: &'static EcdsaSigningAlgorithm, default: Algorithm) -> Self {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let private = pair.to_pkcs8v1().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            signing: EncodingKey::from_ec_der(private.as_ref()),
            algorithm: default,
            private_pem: pem("PRIVATE KEY", private.as_ref()),
            public_pem: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    pub(super) fn ed25519() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self {
            signing: EncodingKey::from_ed_der(private.as_ref()),
            algorithm: Algorithm::EdDSA,
            private_pem: pem("PRIVATE KEY", private.as_ref()),
            public_pem: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    /// The key that verifies the signatures. For an HMAC key, this is always [`SECRET`].
    pub(super) fn public(&self) -> JwtKey {
        if self.public_pem.is_empty() {
            return JwtKey::Secret(Secret::new(*SECRET).unwrap());
        }
        JwtKey::PublicPem(self.public_pem.clone())
    }

    /// The key as an identity provider publishes it, with this key id.
    pub(super) fn jwk(&self, id: &str) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.signing, self.algorithm).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    pub(super) fn sign_with_id(&self, id: &str, claims: &Value) -> String {
        let header = Header { kid: Some(id.to_owned()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signing).unwrap()
    }

    pub(super) fn public_pem(&self) -> &str {
        &self.public_pem
    }

    pub(super) fn private_pem(&self) -> &str {
        &self.private_pem
    }

    pub(super) fn sign(&self, algorithm: Algorithm, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &self.signing).unwrap()
    }

    /// Signs any header, even an invalid one.
    pub(super) fn sign_raw(&self, algorithm: Algorithm, header: &Value, claims: &Value) -> String {
        self.sign_message(algorithm, &format!("{}.{}", base64url(header), base64url(claims)))
    }

    /// Signs any claims, even if they are not JSON.
    pub(super) fn sign_bytes(&self, algorithm: Algorithm, claims: &[u8]) -> String {
        let header = base64url(&serde_json::to_value(Header::new(algorithm)).unwrap());
        let claims = URL_SAFE_NO_PAD.encode(claims);
        self.sign_message(algorithm, &format!("{header}.{claims}"))
    }

    fn sign_message(&self, algorithm: Algorithm, message: &str) -> String {
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.signing, algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

/// The base64url encoding of a token's header or claims.
pub(super) fn base64url(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    let lines = lines.join("\n");
    format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
}
