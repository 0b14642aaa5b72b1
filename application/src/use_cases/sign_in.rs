use std::collections::HashSet;
use std::sync::Arc;

use tracing::debug;

use crate::access::{Access, AuthError};
use crate::ports::{
    BearerToken, Claims, Clock, KeyFingerprint, PortError, TokenError, TokenVerifier,
};
use crate::revoked_tokens::RevokedTokens;

/// Authenticates a client by its token: a device when it connects to a namespace, a caller at each REST
/// request.
#[derive(Clone)]
pub struct SignIn {
    tokens: Arc<dyn TokenVerifier>,
    clock: Arc<dyn Clock>,
    revoked: Arc<RevokedTokens>,
    access: Arc<Access>,
}

impl SignIn {
    /// Accepts the tokens that `tokens` verifies, unless they have expired or are revoked.
    pub fn new(
        tokens: Arc<dyn TokenVerifier>,
        clock: Arc<dyn Clock>,
        revoked: Arc<RevokedTokens>,
        access: Access,
    ) -> Self {
        Self { tokens, clock, revoked, access: Arc::new(access) }
    }

    /// The scopes that actions require.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The revocations that this node knows.
    pub fn revoked(&self) -> &RevokedTokens {
        &self.revoked
    }

    /// The keys that have not been withdrawn.
    pub fn accepted_keys(&self) -> HashSet<KeyFingerprint> {
        self.tokens.accepted_keys()
    }

    /// Verifies the token and returns its claims.
    pub async fn run(&self, token: Option<BearerToken>) -> Result<Claims, AuthError> {
        let token = token.ok_or(AuthError::TokenMissing)?;
        let claims = self.tokens.verify(&token).await.map_err(|error| match error {
            TokenError::Expired => AuthError::TokenExpired,
            TokenError::NotYetValid => AuthError::TokenInvalid,
            TokenError::Invalid(reason) => {
                // The client does not learn the reason, because that would help to forge the next token.
                debug!(reason, "token rejected");
                AuthError::TokenInvalid
            }
            TokenError::Claim(reason) => {
                debug!(reason, "token rejected");
                AuthError::ClaimInvalid(reason)
            }
            TokenError::Port(error) => AuthError::Unavailable(error),
        })?;
        if claims.expires_at <= self.clock.now() {
            return Err(AuthError::TokenExpired);
        }
        match self.revoked.is_revoked(&claims) {
            Ok(false) => Ok(claims),
            Ok(true) => Err(AuthError::TokenRevoked),
            Err(not_loaded) => Err(AuthError::Unavailable(PortError::unavailable(not_loaded))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::token_verifier::MockTokenVerifier;
    use crate::ports::{Revocation, TokenOwner};
    use crate::testing::{ManualClock, at, claims, user};

    fn sign_in(verify: impl Fn() -> Result<Claims, TokenError> + Send + Sync + 'static) -> SignIn {
        let mut tokens = MockTokenVerifier::new();
        tokens.expect_verify().returning(move |_| verify());
        sign_in_with(tokens, RevokedTokens::empty())
    }

    fn sign_in_with(tokens: MockTokenVerifier, revoked: RevokedTokens) -> SignIn {
        let clock = Arc::new(ManualClock::at(1_000));
        SignIn::new(Arc::new(tokens), clock, Arc::new(revoked), Access::default())
    }

    async fn rejection_code(sign_in: SignIn) -> &'static str {
        sign_in.run(BearerToken::parse("t").unwrap()).await.unwrap_err().code()
    }

    #[tokio::test]
    async fn each_rejection_has_its_code() {
        // This mock panics if it is called.
        let not_called = sign_in_with(MockTokenVerifier::new(), RevokedTokens::empty());
        assert_eq!(not_called.run(None).await.unwrap_err().code(), "token_missing");
        let code_for = |verify: fn() -> Result<Claims, TokenError>| rejection_code(sign_in(verify));
        assert_eq!(code_for(|| Err(TokenError::Expired)).await, "token_expired");
        assert_eq!(code_for(|| Err(TokenError::Invalid("x"))).await, "token_invalid");
        assert_eq!(code_for(|| Err(TokenError::Claim("x".into()))).await, "token_invalid");
        assert_eq!(code_for(|| Ok(claims("ada", 1_000))).await, "token_expired");
        let down = || Err(TokenError::Port(PortError::unavailable("down")));
        assert_eq!(code_for(down).await, "unavailable");
    }

    #[tokio::test]
    async fn token_is_rejected_if_it_is_revoked_or_revocations_are_not_loaded() {
        let ada = || Claims { issued_at: Some(at(500)), ..claims("ada", 2_000) };
        let verifier = || {
            let mut tokens = MockTokenVerifier::new();
            tokens.expect_verify().returning(move |_| Ok(ada()));
            tokens
        };
        let revoked = RevokedTokens::empty();
        revoked.add(&Revocation { owner: TokenOwner::User(user("ada")), issued_before: at(501) });
        assert_eq!(rejection_code(sign_in_with(verifier(), revoked)).await, "token_revoked");
        let not_loaded = RevokedTokens::not_loaded();
        assert_eq!(rejection_code(sign_in_with(verifier(), not_loaded)).await, "unavailable");
    }

    #[tokio::test]
    async fn valid_token_authenticates_its_user() {
        let claims_of_ada =
            sign_in(|| Ok(claims("ada", 1_001))).run(BearerToken::parse("t").unwrap()).await;
        assert_eq!(claims_of_ada.unwrap().user.as_str(), "ada");
    }
}
