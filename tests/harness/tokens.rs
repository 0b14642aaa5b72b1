//! JSON Web Tokens for tests: valid, invalid and forged.

use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto, encode, get_current_timestamp};
use serde_json::{Map, Value, json};

/// A signing key of an identity provider.
#[derive(Debug, Clone)]
pub struct Key {
    algorithm: Algorithm,
    signing: EncodingKey,
    /// The public key as PEM; `None` for a shared secret.
    public_pem: Option<String>,
    id: Option<String>,
}

impl Key {
    /// A shared secret (HS256).
    pub fn hs256(secret: &str) -> Self {
        let signing = EncodingKey::from_secret(secret.as_bytes());
        Self { algorithm: Algorithm::HS256, signing, public_pem: None, id: None }
    }

    /// A new RSA key of 2048 bits (RS256).
    pub fn rs256() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key can be made");
        let private: Pkcs8V1Der<'_> = pair.as_der().expect("a new key can be written");
        // `from_rsa_der` expects PKCS#1; `from_rsa_pem` accepts PKCS#8 too.
        let signing = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes());
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("it can be written");
        Self::pair(Algorithm::RS256, signing.expect("it is an RSA key"), public.as_ref())
    }

    /// A new key on the curve P-256 (ES256).
    pub fn es256() -> Self {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        let private = pair.to_pkcs8v1().expect("a new key can be written");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("it can be written");
        Self::pair(Algorithm::ES256, EncodingKey::from_ec_der(private.as_ref()), public.as_ref())
    }

    /// A new Ed25519 key (`EdDSA`).
    pub fn eddsa() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key can be made");
        let private: Pkcs8V1Der<'_> = pair.as_der().expect("a new key can be written");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("it can be written");
        Self::pair(Algorithm::EdDSA, EncodingKey::from_ed_der(private.as_ref()), public.as_ref())
    }

    fn pair(algorithm: Algorithm, signing: EncodingKey, public: &[u8]) -> Self {
        Self { algorithm, signing, public_pem: Some(pem("PUBLIC KEY", public)), id: None }
    }

    /// The same key with an id: its tokens and its [`jwk`](Self::jwk) carry it as `kid`.
    #[must_use]
    pub fn named(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// The public key, for `auth.public_key_file`.
    ///
    /// # Panics
    /// When the key is a shared secret.
    pub fn public_pem(&self) -> &str {
        self.public_pem.as_deref().expect("a shared secret has no public key")
    }

    /// The public key as one of the `keys` of a JWKS.
    ///
    /// # Panics
    /// When the key is a shared secret.
    pub fn jwk(&self) -> Value {
        assert!(self.public_pem.is_some(), "a shared secret has no public key");
        let mut jwk = Jwk::from_encoding_key(&self.signing, self.algorithm).expect("it has one");
        jwk.common.key_id.clone_from(&self.id);
        serde_json::to_value(jwk).expect("a JWK is JSON")
    }

    /// A token of this user, issued now, valid for an hour, without a scope.
    pub fn token(&self, user: &str) -> Token<'_> {
        Token { key: self, header: self.header(), claims: Map::new() }
            .claim("sub", user)
            .issued_ago(Duration::ZERO)
            .expires_in(Duration::from_hours(1))
    }

    /// Signs any bytes as header and claims with this key and its algorithm.
    ///
    /// # Panics
    /// When the key does not fit its algorithm.
    pub fn sign_bytes(&self, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
        let [header, claims] =
            [header.as_ref(), claims.as_ref()].map(|part| URL_SAFE_NO_PAD.encode(part));
        let message = format!("{header}.{claims}");
        let signature = crypto::sign(message.as_bytes(), &self.signing, self.algorithm);
        format!("{message}.{}", signature.expect("the key fits"))
    }

    fn header(&self) -> Header {
        Header { kid: self.id.clone(), ..Header::new(self.algorithm) }
    }
}

/// A JWKS with these keys, as served at `auth.jwks_url`.
pub fn jwks<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Value {
    json!({ "keys": keys.into_iter().map(Key::jwk).collect::<Vec<_>>() })
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A token that is not signed yet.
#[derive(Debug, Clone)]
pub struct Token<'a> {
    key: &'a Key,
    header: Header,
    claims: Map<String, Value>,
}

impl Token<'_> {
    /// Sets a claim; [`Value::Null`] removes it.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        match value.into() {
            Value::Null => self.claims.remove(name),
            value => self.claims.insert(name.to_owned(), value),
        };
        self
    }

    /// Sets `scope`: the scopes, separated by spaces.
    #[must_use]
    pub fn scope(self, scopes: &str) -> Self {
        self.claim("scope", scopes)
    }

    /// Sets `exp`, from now.
    #[must_use]
    pub fn expires_in(self, time: Duration) -> Self {
        self.claim("exp", get_current_timestamp() + time.as_secs())
    }

    /// Sets `iat` to this long ago.
    #[must_use]
    pub fn issued_ago(self, time: Duration) -> Self {
        self.claim("iat", get_current_timestamp() - time.as_secs())
    }

    /// Sets `iat` to this far in the future, like an issuer whose clock is ahead.
    #[must_use]
    pub fn issued_in(self, time: Duration) -> Self {
        self.claim("iat", get_current_timestamp() + time.as_secs())
    }

    /// Sets `exp` to this long ago.
    #[must_use]
    pub fn expired_for(self, time: Duration) -> Self {
        self.claim("exp", get_current_timestamp() - time.as_secs())
    }

    /// Sets `iss`.
    #[must_use]
    pub fn issuer(self, issuer: &str) -> Self {
        self.claim("iss", issuer)
    }

    /// Sets `aud`.
    #[must_use]
    pub fn audience(self, audience: &str) -> Self {
        self.claim("aud", audience)
    }

    /// Sets another `kid` than the key's own.
    #[must_use]
    pub fn key_id(mut self, id: &str) -> Self {
        self.header.kid = Some(id.to_owned());
        self
    }

    /// The claims as JSON.
    pub fn claims(&self) -> Value {
        Value::Object(self.claims.clone())
    }

    /// The signed token.
    ///
    /// # Panics
    /// When the key does not fit its algorithm.
    pub fn sign(&self) -> String {
        encode(&self.header, &self.claims, &self.key.signing).expect("the key fits")
    }

    /// The signed token with another user in its claims, so that the signature does not match.
    pub fn forge(&self, user: &str) -> String {
        let signed = self.sign();
        let (header, _) = signed.split_once('.').expect("a token has a header");
        let (_, signature) = signed.rsplit_once('.').expect("a token has a signature");
        let claims = self.clone().claim("sub", user).claims;
        format!("{header}.{}.{signature}", base64url(&Value::Object(claims)))
    }

    /// The same claims with `alg: none` and without a signature.
    pub fn unsigned(&self) -> String {
        let header = json!({ "alg": "none", "typ": "JWT" });
        format!("{}.{}.", base64url(&header), base64url(&Value::Object(self.claims.clone())))
    }

    /// The token signed with HS256 and the public key as the secret. This attack, algorithm confusion, works
    /// on verifiers that take the algorithm from the token.
    ///
    /// # Panics
    /// When the key is a shared secret.
    pub fn confused(&self) -> String {
        let key = EncodingKey::from_secret(self.key.public_pem().as_bytes());
        let header = Header { alg: Algorithm::HS256, ..self.header.clone() };
        encode(&header, &self.claims, &key).expect("a secret fits HS256")
    }
}

fn base64url(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation, decode, jwk::JwkSet};

    use super::*;

    fn subject(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Option<String> {
        let claims = decode::<Value>(token, key, &Validation::new(algorithm)).ok()?.claims;
        claims["sub"].as_str().map(str::to_owned)
    }

    #[test]
    fn token_of_a_shared_secret_verifies_with_that_secret_only() {
        let token = Key::hs256("secret").token("u42").sign();
        let good = DecodingKey::from_secret(b"secret");
        let bad = DecodingKey::from_secret(b"other");
        assert_eq!(subject(&token, &good, Algorithm::HS256).as_deref(), Some("u42"));
        assert_eq!(subject(&token, &bad, Algorithm::HS256), None);
    }

    #[test]
    fn token_of_a_key_pair_verifies_by_pem_and_by_jwk() {
        type FromPem = fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>;
        let pairs: [(Key, FromPem); 3] = [
            (Key::rs256(), DecodingKey::from_rsa_pem),
            (Key::es256(), DecodingKey::from_ec_pem),
            (Key::eddsa(), DecodingKey::from_ed_pem),
        ];
        for (key, from_pem) in pairs {
            let key = key.named("k1");
            let token = key.token("u42").sign();
            let pem = from_pem(key.public_pem().as_bytes()).unwrap();
            assert_eq!(subject(&token, &pem, key.algorithm).as_deref(), Some("u42"));
            let set: JwkSet = serde_json::from_value(jwks([&key])).unwrap();
            let jwk = DecodingKey::from_jwk(set.find("k1").unwrap()).unwrap();
            assert_eq!(subject(&token, &jwk, key.algorithm).as_deref(), Some("u42"));
        }
    }

    #[test]
    fn forged_tokens_do_not_verify() {
        let key = Key::rs256();
        let verifying = DecodingKey::from_rsa_pem(key.public_pem().as_bytes()).unwrap();
        let token = key.token("u42");
        for forged in [token.forge("u1"), token.unsigned(), token.confused()] {
            assert_eq!(subject(&forged, &verifying, Algorithm::RS256), None, "{forged}");
        }
    }

    #[test]
    fn expired_token_does_not_verify() {
        let key = Key::hs256("secret");
        let verifying = DecodingKey::from_secret(b"secret");
        let long_ago = key.token("u42").expired_for(Duration::from_hours(2)).sign();
        assert_eq!(subject(&long_ago, &verifying, Algorithm::HS256), None);
    }
}
