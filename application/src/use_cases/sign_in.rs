use std::sync::Arc;

use tracing::debug;

use crate::access::Access;
use crate::ports::{
    BearerToken, Claims, Clock, PortError, TokenError, TokenTooLong, TokenVerifier,
};
use crate::revoked_tokens::RevokedTokens;

/// Somebody shows a token, at a socket's handshake or with a request.
#[derive(Clone)]
pub struct SignIn {
    tokens: Arc<dyn TokenVerifier>,
    clock: Arc<dyn Clock>,
    revoked: Arc<RevokedTokens>,
    access: Arc<Access>,
}

/// Why somebody may not do what they ask for.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No token was shown.
    #[error("a token is needed")]
    TokenMissing,
    /// The token is not one that is accepted here.
    #[error("the token is not valid")]
    TokenInvalid,
    /// The token held once.
    #[error("the token has expired")]
    TokenExpired,
    /// The token would still hold, but was revoked.
    #[error("the token was revoked")]
    TokenRevoked,
    /// The token speaks for another user than the session it is to renew.
    #[error("the token is of another user")]
    OtherUser,
    /// The token does not allow this.
    #[error("the token lacks the scope {0}")]
    ScopeMissing(Arc<str>),
    /// It cannot be decided now.
    #[error("signing in is not possible at the moment")]
    Unavailable(#[source] PortError),
}

impl Refusal {
    /// A stable word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::TokenInvalid => "token_invalid",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::OtherUser => "token_of_other_user",
            Self::ScopeMissing(_) => "scope_missing",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl From<TokenTooLong> for Refusal {
    fn from(_: TokenTooLong) -> Self {
        Self::TokenInvalid
    }
}

impl SignIn {
    /// Believes what that verifier believes, by that clock, but for what is revoked.
    pub fn new(
        tokens: Arc<dyn TokenVerifier>,
        clock: Arc<dyn Clock>,
        revoked: Arc<RevokedTokens>,
        access: Access,
    ) -> Self {
        Self { tokens, clock, revoked, access: Arc::new(access) }
    }

    /// What a token must allow for what is asked.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// What is known of tokens that hold no more.
    pub fn revoked(&self) -> &RevokedTokens {
        &self.revoked
    }

    /// Who is there, if the token holds now.
    pub async fn run(&self, token: Option<BearerToken>) -> Result<Claims, Refusal> {
        let token = token.ok_or(Refusal::TokenMissing)?;
        let claims = self.tokens.verify(&token).await.map_err(|error| match error {
            TokenError::Expired => Refusal::TokenExpired,
            TokenError::NotYetValid => Refusal::TokenInvalid,
            TokenError::Invalid(reason) => {
                // The one who shows it learns nothing of why: that would help to forge the next.
                debug!(reason, "token refused");
                Refusal::TokenInvalid
            }
            TokenError::Port(error) => Refusal::Unavailable(error),
        })?;
        if claims.expires_at <= self.clock.now() {
            return Err(Refusal::TokenExpired);
        }
        match self.revoked.have(&claims) {
            Ok(false) => Ok(claims),
            Ok(true) => Err(Refusal::TokenRevoked),
            Err(unknown) => Err(Refusal::Unavailable(PortError::unavailable(unknown))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Revocation;
    use crate::ports::token_verifier::MockTokenVerifier;
    use crate::testing::{ManualClock, at, claims, user};

    fn sign_in(answer: impl Fn() -> Result<Claims, TokenError> + Send + Sync + 'static) -> SignIn {
        let mut tokens = MockTokenVerifier::new();
        tokens.expect_verify().returning(move |_| answer());
        by(tokens, RevokedTokens::none())
    }

    fn by(tokens: MockTokenVerifier, revoked: RevokedTokens) -> SignIn {
        let clock = Arc::new(ManualClock::at(1_000));
        SignIn::new(Arc::new(tokens), clock, Arc::new(revoked), Access::default())
    }

    async fn code(sign_in: SignIn) -> &'static str {
        sign_in.run(BearerToken::parse("t").unwrap()).await.unwrap_err().code()
    }

    #[tokio::test]
    async fn each_refusal_has_its_code() {
        let forbids_call = by(MockTokenVerifier::new(), RevokedTokens::none());
        assert_eq!(forbids_call.run(None).await.unwrap_err().code(), "token_missing");
        assert_eq!(code(sign_in(|| Err(TokenError::Expired))).await, "token_expired");
        assert_eq!(code(sign_in(|| Err(TokenError::Invalid("x")))).await, "token_invalid");
        assert_eq!(code(sign_in(|| Ok(claims("ada", 1_000)))).await, "token_expired");
        let down = || Err(TokenError::Port(PortError::unavailable("down")));
        assert_eq!(code(sign_in(down)).await, "unavailable");
    }

    #[tokio::test]
    async fn a_revoked_token_is_refused_and_so_is_any_before_it_is_known_which_are() {
        let ada = || Claims { issued_at: Some(at(500)), ..claims("ada", 2_000) };
        let holding = || {
            let mut tokens = MockTokenVerifier::new();
            tokens.expect_verify().returning(move |_| Ok(ada()));
            tokens
        };
        let revoked = RevokedTokens::none();
        revoked.learn(&Revocation { user: user("ada"), issued_before: at(501) });
        assert_eq!(code(by(holding(), revoked)).await, "token_revoked");
        assert_eq!(code(by(holding(), RevokedTokens::unknown())).await, "unavailable");
    }

    #[tokio::test]
    async fn a_token_that_holds_tells_who_is_there() {
        let claims_of_ada =
            sign_in(|| Ok(claims("ada", 1_001))).run(BearerToken::parse("t").unwrap()).await;
        assert_eq!(claims_of_ada.unwrap().user.as_str(), "ada");
    }
}
