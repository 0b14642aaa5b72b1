//! Authentication and authorization of a request's caller.

use std::marker::PhantomData;

use axum::extract::{FromRef, FromRequestParts};
use belfry_application::access::Action;
use belfry_application::access::AuthError;
use belfry_application::ports::{BearerToken, Claims};
use belfry_application::use_cases::SignIn;
use belfry_domain::UserId;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use tracing::Span;

use super::cookie_token::CookieToken;
use super::limits::RequestLimits;
use super::problem::Problem;
use crate::limits::WorkPermit;

/// A caller whose token is valid and allows the action `A`. Extracting it also applies the rate limits.
pub(super) struct Authorized<A> {
    claims: Claims,
    /// The permit for the caller's work, held until the handler returns. `None` for [`Create`], which has a
    /// separate rate limit.
    _work: Option<WorkPermit>,
    action: PhantomData<A>,
}

/// An [`Action`] as a type, so that a handler's signature states the action that the token must allow.
pub(super) trait RequiredAction {
    const ACTION: Action;
}

macro_rules! required_actions {
    ($($action:ident),+) => {
        $(
            pub(super) struct $action;

            impl RequiredAction for $action {
                const ACTION: Action = Action::$action;
            }
        )+
    };
}

required_actions!(ReadInbox, ChangeInbox, Create, Revoke, Erase);

impl<A> Authorized<A> {
    /// The caller's user id. A caller may access this user's inbox and no other.
    pub(super) fn user(&self) -> &UserId {
        &self.claims.user
    }
}

impl<S, A> FromRequestParts<S> for Authorized<A>
where
    S: Send + Sync,
    SignIn: FromRef<S>,
    RequestLimits: FromRef<S>,
    A: RequiredAction + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (sign_in, limits) = (SignIn::from_ref(state), RequestLimits::from_ref(state));
        let claims = match authenticate(&sign_in, parts).await {
            Ok(claims) => claims,
            Err(error) => {
                limits.limit_anonymous(&parts.extensions)?;
                return Err(error.into());
            }
        };
        Span::current().record("user", claims.user.as_str());
        let allowed = sign_in.access().check(&claims, A::ACTION);
        if A::ACTION == Action::Create && allowed.is_ok() {
            limits.limit_write(&claims.user)?;
            return Ok(Self { claims, _work: None, action: PhantomData });
        }
        // A request is counted even if the caller lacks the scope.
        limits.limit_request(&claims.user)?;
        allowed?;
        let work = limits.acquire_work(&claims.user).await?;
        Ok(Self { claims, _work: Some(work), action: PhantomData })
    }
}

/// Verifies the token of the `Authorization` header, or else that of the cookie.
async fn authenticate(sign_in: &SignIn, parts: &Parts) -> Result<Claims, AuthError> {
    let token = match (bearer_token(&parts.headers)?, parts.extensions.get::<CookieToken>()) {
        (None, Some(CookieToken(cookie))) => BearerToken::parse(cookie)?,
        (token, _) => token,
    };
    sign_in.run(token).await
}

/// The token of the `Authorization` header. Several such headers are rejected, because their tokens could
/// belong to different users.
fn bearer_token(headers: &HeaderMap) -> Result<Option<BearerToken>, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, second) = (values.next(), values.next());
    let text = match (value.map(|value| value.to_str()), second) {
        (None, _) => return Ok(None),
        (Some(Ok(text)), None) => text,
        _ => return Err(AuthError::TokenInvalid),
    };
    Ok(BearerToken::parse(text)?)
}
