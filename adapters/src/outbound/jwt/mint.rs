use std::fmt;
use std::time::Duration;

use belfry_domain::{Timestamp, UserId};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value};

use super::algorithms::AcceptedAlgorithms;
use super::error::InvalidJwtSettings;
use super::key_material::KeyMaterial;
use super::key_set::KeySet;
use super::settings::JwtSettings;

/// Signs tokens for development. A verifier with the same settings accepts them.
pub struct TokenMint {
    key: EncodingKey,
    algorithm: Algorithm,
    issuer: Option<String>,
    audience: Option<String>,
    user_claim: String,
    scope_claim: String,
}

/// Why tokens cannot be signed with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenMintError {
    /// No secret is configured, and only the issuer has the private key.
    #[error("only public keys are configured; signing a token needs the issuer's private key")]
    PublicKey,
    #[expect(missing_docs, reason = "the inner type is documented")]
    #[error(transparent)]
    Settings(#[from] InvalidJwtSettings),
}

impl TokenMint {
    /// A mint that signs with the first secret in the settings. Its tokens have the issuer and the first
    /// audience of the settings, and the user and scopes in the claims that the settings name.
    pub fn new(settings: &JwtSettings) -> Result<Self, TokenMintError> {
        let accepted = AcceptedAlgorithms::parse(&settings.algorithms)?;
        let material = KeyMaterial::read_all(&settings.keys)?;
        // Rejects the same invalid settings as the verifier.
        KeySet::from_material(&material, &accepted, settings.has_jwks())?;
        let secret =
            material.iter().find_map(KeyMaterial::secret).ok_or(TokenMintError::PublicKey)?;
        Ok(Self {
            key: EncodingKey::from_secret(secret.reveal()),
            algorithm: accepted.to_sign(),
            issuer: settings.issuer.clone(),
            audience: settings.audiences.first().cloned(),
            user_claim: settings.user_claims.first().cloned().unwrap_or_default(),
            scope_claim: settings.scope_claim.clone(),
        })
    }

    /// A token for this user with these scopes, valid from `now` for `ttl`.
    #[expect(clippy::missing_panics_doc, reason = "signing with a secret cannot fail")]
    pub fn mint(&self, user: &UserId, scopes: &[&str], ttl: Duration, now: Timestamp) -> String {
        let mut claims = Map::new();
        let mut add = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        add("iat", seconds(now));
        add(&self.user_claim, user.as_str().into());
        add("exp", seconds(now.plus(ttl)));
        if !scopes.is_empty() {
            add(&self.scope_claim, scopes.join(" ").into());
        }
        if let Some(issuer) = &self.issuer {
            add("iss", issuer.as_str().into());
        }
        if let Some(audience) = &self.audience {
            add("aud", audience.as_str().into());
        }
        encode(&Header::new(self.algorithm), &claims, &self.key)
            .expect("a secret and an HMAC algorithm sign any text")
    }
}

/// A `NumericDate` (RFC 7519, 2) in whole seconds.
fn seconds(at: Timestamp) -> Value {
    at.unix_millis().div_euclid(1_000).into()
}

impl fmt::Debug for TokenMint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenMint").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use belfry_application::ports::{BearerToken, Scopes, TokenVerifier as _};
    use belfry_application::testing::{ManualClock, at, user};

    use super::super::secret::Secret;
    use super::super::settings::JwtKey;
    use super::super::signing::{Key, SECRET};
    use super::super::token_verifier::JwtVerifier;
    use super::*;

    #[tokio::test]
    async fn minted_token_is_accepted_under_the_same_settings() {
        let settings = JwtSettings {
            algorithms: vec!["HS384".to_owned()],
            issuer: Some("https://id.example.org".to_owned()),
            audiences: vec!["belfry".to_owned()],
            leeway: Duration::ZERO,
            user_claims: vec!["https://example.org/user".to_owned()],
            scope_claim: "realm_access.roles".to_owned(),
            ..JwtSettings::new([JwtKey::Secret(Secret::new(*SECRET).unwrap())])
        };
        let now = at(1_800_000_000_123);
        let mint = TokenMint::new(&settings).unwrap();
        let token = mint.mint(&user("ada"), &[Scopes::WRITE], Duration::from_mins(1), now);

        let clock = Arc::new(ManualClock::at(now.unix_millis()));
        let verifier = JwtVerifier::new(&settings, clock).unwrap();
        let token = BearerToken::parse(&token).unwrap().unwrap();
        let claims = verifier.verify(&token).await.unwrap();
        assert_eq!(claims.user, user("ada"));
        assert!(claims.scopes.contains(Scopes::WRITE));
        assert_eq!(claims.expires_at, at(1_800_000_060_000));
    }

    #[test]
    fn algorithm_that_no_key_supports_is_rejected() {
        let settings = JwtSettings {
            algorithms: vec!["RS256".to_owned()],
            ..JwtSettings::new([Key::hmac().public()])
        };
        assert!(matches!(TokenMint::new(&settings), Err(TokenMintError::Settings(_))));
    }

    #[test]
    fn settings_with_only_public_keys_are_rejected() {
        let settings = JwtSettings::new([Key::p256().public()]);
        assert_eq!(TokenMint::new(&settings).unwrap_err(), TokenMintError::PublicKey);
    }
}
