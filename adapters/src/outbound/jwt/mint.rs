use std::fmt;
use std::time::Duration;

use belfry_domain::{Timestamp, UserId};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value};

use super::algorithms::Accepted;
use super::key_material::KeyMaterial;
use super::key_set::KeySet;
use super::local_keys::LocalKeys;
use super::settings::{InvalidJwtSettings, JwtSettings};

/// Signs tokens, for those who try things out: a verifier with the same settings believes them.
pub struct TokenMint {
    key: EncodingKey,
    algorithm: Algorithm,
    issuer: Option<String>,
    audience: Option<String>,
    user_claim: String,
    scope_claim: String,
}

/// Why no tokens can be signed with these settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotMint {
    /// Only the issuer has the private half.
    #[error(
        "tokens are checked with a public key here, and only its owner can sign with the other half"
    )]
    PublicKey,
    /// The settings make no sense.
    #[error(transparent)]
    Settings(#[from] InvalidJwtSettings),
}

impl TokenMint {
    /// Signs with the first secret of the settings, and says in a token what they ask for.
    pub fn new(settings: &JwtSettings) -> Result<Self, CannotMint> {
        let accepted = Accepted::parse(&settings.algorithms)?;
        let material = LocalKeys::read(&settings.keys)?;
        // Refuses what does not fit together, as the verifier does.
        KeySet::of_material(&material, &accepted, settings.has_published_keys())?;
        let secret = material.iter().find_map(KeyMaterial::secret).ok_or(CannotMint::PublicKey)?;
        Ok(Self {
            key: EncodingKey::from_secret(secret.reveal()),
            algorithm: accepted.to_sign(),
            issuer: settings.issuer.clone(),
            audience: settings.audiences.first().cloned(),
            user_claim: settings.user_claim.clone(),
            scope_claim: settings.scope_claim.clone(),
        })
    }

    /// A token of that user with these scopes, which holds from `now` for `ttl`.
    pub fn mint(&self, user: &UserId, scopes: &[&str], ttl: Duration, now: Timestamp) -> String {
        let iat = ("iat".to_owned(), seconds(now));
        self.sign(user, scopes, now.plus(ttl), [iat])
    }

    #[cfg(test)]
    pub(super) fn mint_until(&self, user: &UserId, scopes: &[&str], end: Timestamp) -> String {
        self.sign(user, scopes, end, [])
    }

    fn sign(
        &self,
        user: &UserId,
        scopes: &[&str],
        end: Timestamp,
        more: impl IntoIterator<Item = (String, Value)>,
    ) -> String {
        let mut claims: Map<String, Value> = more.into_iter().collect();
        let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        claim(&self.user_claim, user.as_str().into());
        claim("exp", seconds(end));
        if !scopes.is_empty() {
            claim(&self.scope_claim, scopes.join(" ").into());
        }
        if let Some(issuer) = &self.issuer {
            claim("iss", issuer.as_str().into());
        }
        if let Some(audience) = &self.audience {
            claim("aud", audience.as_str().into());
        }
        encode(&Header::new(self.algorithm), &claims, &self.key)
            .expect("a secret and an HMAC algorithm sign any text")
    }
}

/// Whole seconds, as `NumericDate` is usually written.
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

    use super::super::signing::{Key, SECRET};
    use super::super::{JwtKey, JwtVerifier, Secret};
    use super::*;

    #[tokio::test]
    async fn what_is_minted_is_believed_under_the_same_settings() {
        let settings = JwtSettings {
            algorithms: vec!["HS384".to_owned()],
            issuer: Some("https://id.example.org".to_owned()),
            audiences: vec!["belfry".to_owned()],
            leeway: Duration::ZERO,
            user_claim: "https://example.org/user".to_owned(),
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
    fn an_algorithm_that_does_not_fit_signs_nothing() {
        let settings = JwtSettings {
            algorithms: vec!["RS256".to_owned()],
            ..JwtSettings::new([Key::hmac().public()])
        };
        assert!(matches!(TokenMint::new(&settings), Err(CannotMint::Settings(_))));
    }

    #[test]
    fn a_public_key_signs_nothing() {
        let settings = JwtSettings::new([Key::p256().public()]);
        assert_eq!(TokenMint::new(&settings).unwrap_err(), CannotMint::PublicKey);
    }
}
