//! Who is calling.

use axum::extract::{FromRef, FromRequestParts};
use belfry_application::ports::{BearerToken, Claims, Scopes};
use belfry_application::use_cases::{Refusal, SignIn};
use belfry_domain::UserId;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use tracing::Span;

use super::problem::Problem;

/// Somebody whose token holds now.
pub(super) struct Caller(Claims);

impl Caller {
    /// Whose inbox this caller may see and change: no other.
    pub(super) fn user(&self) -> &UserId {
        &self.0.user
    }
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    SignIn: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer_token(&parts.headers)?;
        let claims = SignIn::from_ref(state).run(token).await?;
        Span::current().record("user", claims.user.as_str());
        Ok(Self(claims))
    }
}

/// A caller who may write notifications for any user.
pub(super) struct Writer(pub(super) Claims);

impl<S> FromRequestParts<S> for Writer
where
    S: Send + Sync,
    SignIn: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Caller(claims) = Caller::from_request_parts(parts, state).await?;
        if !claims.scopes.contain(Scopes::WRITE) {
            return Err(Refusal::ScopeMissing(Scopes::WRITE).into());
        }
        Ok(Self(claims))
    }
}

/// The token of the one `Authorization` header. Two of them would leave it to chance who is calling.
fn bearer_token(headers: &HeaderMap) -> Result<Option<BearerToken>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, more) = (values.next(), values.next());
    let text = match (value.map(|value| value.to_str()), more) {
        (None, _) => return Ok(None),
        (Some(Ok(text)), None) => text.trim(),
        _ => return Err(Refusal::TokenInvalid),
    };
    match BearerToken::parse(text) {
        // It was shown, but is too long to be one.
        None if text.len() > BearerToken::MAX_BYTES => Err(Refusal::TokenInvalid),
        token => Ok(token),
    }
}
