//! Who is calling, and whether their token allows what they ask for.

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

use super::limits::RequestLimits;
use super::problem::Problem;
use crate::limits::WorkPermit;

/// Somebody whose token holds now, and allows what this handler does.
pub(super) struct Caller<D> {
    claims: Claims,
    /// Held until the handler is done.
    _work: Option<WorkPermit>,
    action: PhantomData<D>,
}

/// What a handler does, as far as it takes a scope.
pub(super) trait Doing {
    const ACTION: Action;
}

macro_rules! doing {
    ($($name:ident: $action:ident),+ $(,)?) => {
        $(
            pub(super) struct $name;

            impl Doing for $name {
                const ACTION: Action = Action::$action;
            }
        )+
    };
}

doing!(Reading: ReadInbox, Changing: ChangeInbox, Creating: Create, Revoking: Revoke);

impl<D> Caller<D> {
    /// Whose inbox this caller may see and change: no other.
    pub(super) fn user(&self) -> &UserId {
        &self.claims.user
    }
}

impl<S, D> FromRequestParts<S> for Caller<D>
where
    S: Send + Sync,
    SignIn: FromRef<S>,
    RequestLimits: FromRef<S>,
    D: Doing + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (sign_in, limits) = (SignIn::from_ref(state), RequestLimits::from_ref(state));
        let claims = match signed_in(&sign_in, &parts.headers).await {
            Ok(claims) => claims,
            Err(refusal) => {
                limits.count_stranger(&parts.extensions)?;
                return Err(refusal.into());
            }
        };
        Span::current().record("user", claims.user.as_str());
        let allowed = sign_in.access().check(&claims, D::ACTION);
        if D::ACTION == Action::Create && allowed.is_ok() {
            limits.count_write(&claims.user)?;
            return Ok(Self { claims, _work: None, action: PhantomData });
        }
        limits.count(&claims.user)?;
        allowed?;
        let work = limits.begin_work(&claims.user).await?;
        Ok(Self { claims, _work: Some(work), action: PhantomData })
    }
}

async fn signed_in(sign_in: &SignIn, headers: &HeaderMap) -> Result<Claims, AuthError> {
    sign_in.run(bearer_token(headers)?).await
}

/// The token of the one `Authorization` header. Two of them would leave it to chance who is calling.
fn bearer_token(headers: &HeaderMap) -> Result<Option<BearerToken>, AuthError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, more) = (values.next(), values.next());
    let text = match (value.map(|value| value.to_str()), more) {
        (None, _) => return Ok(None),
        (Some(Ok(text)), None) => text,
        _ => return Err(AuthError::TokenInvalid),
    };
    Ok(BearerToken::parse(text)?)
}
