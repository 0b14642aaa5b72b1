use std::collections::HashMap;
use std::sync::Arc;

use belfry_application::ports::{BearerToken, TokenTooLong};
use belfry_application::use_cases::ResumePoint;
use belfry_domain::{Epoch, Revision};
use http::header::AUTHORIZATION;
use http::{HeaderMap, Uri};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::inbound::rest::CookieToken;
use crate::wire::Integer;

/// The credentials of a connect to a namespace, from its `auth` payload and the request that opened the transport.
pub(super) struct ConnectCredentials {
    /// The first token in the order of [`read`](Self::read); `None` if there is no token.
    pub(super) token: Result<Option<BearerToken>, TokenTooLong>,
    /// The device's position in its inbox; `None` if it sent no valid one.
    pub(super) resume_from: Option<ResumePoint>,
}

/// The tokens in the request that opened a transport. They are kept because the device may connect to a namespace
/// without a token in `auth`.
#[derive(Default)]
pub(super) struct RequestCredentials {
    header: Option<Box<str>>,
    query: Option<Box<str>>,
    cookie: Option<Arc<str>>,
}

impl RequestCredentials {
    /// Reads the token in the query only if the operator has allowed it (`token_in_query`), because proxies log URLs.
    pub(super) fn read(
        headers: &HeaderMap,
        uri: &Uri,
        cookie: Option<&CookieToken>,
        token_in_query: bool,
    ) -> Self {
        let in_header = || headers.get(AUTHORIZATION)?.to_str().ok();
        let in_query = || {
            let query = uri.query().unwrap_or_default();
            let mut query = serde_urlencoded::from_str::<HashMap<String, String>>(query).ok()?;
            query.remove("token")
        };
        Self {
            header: in_header().map(Into::into),
            query: if token_in_query { in_query().map(Into::into) } else { None },
            cookie: cookie.map(|CookieToken(token)| token.clone()),
        }
    }
}

impl ConnectCredentials {
    /// Looks for a token in `auth.token`, then in the `Authorization` header, in the query, and in the cookie.
    pub(super) fn read(auth: &RawValue, request: &RequestCredentials) -> Self {
        let AuthForm { token, since, epoch } = AuthForm::read(auth);
        let in_auth = token.and_then(|json| serde_json::from_str::<String>(json.get()).ok());
        let in_auth = in_auth.as_deref().filter(|raw| !raw.is_empty());
        let RequestCredentials { header, query, cookie } = request;
        let token = in_auth.or(header.as_deref()).or(query.as_deref()).or(cookie.as_deref());
        let token = token.map_or(Ok(None), BearerToken::parse);
        let position = json!({ "since": short_value(since), "epoch": short_value(epoch) });
        Self { token, resume_from: resume_point(&position) }
    }
}

/// The fields of an `auth` payload that Belfry reads. Other fields are skipped and need no memory: the client is not
/// authenticated yet.
#[derive(Default, Deserialize)]
struct AuthForm<'a> {
    #[serde(borrow, default)]
    token: Option<&'a RawValue>,
    #[serde(borrow, default)]
    since: Option<&'a RawValue>,
    #[serde(borrow, default)]
    epoch: Option<&'a RawValue>,
}

impl<'a> AuthForm<'a> {
    /// Reads an `auth` payload. All fields are `None` if it is not an object.
    fn read(auth: &'a RawValue) -> Self {
        // serde would also accept an array, with the fields in their order.
        let is_object = auth.get().starts_with('{');
        if is_object {
            serde_json::from_str(auth.get()).unwrap_or_default()
        } else {
            Self::default()
        }
    }
}

/// Parses a value of at most 1 KiB. A longer value is neither a revision nor an epoch. It becomes null, because its
/// parsed form could need much memory.
fn short_value(json: Option<&RawValue>) -> Value {
    const MAX_LENGTH: usize = 1_024;
    let json = json.map(RawValue::get).filter(|json| json.len() <= MAX_LENGTH);
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// Reads the position `{since, epoch}` of a device. The revision is a number or, from some clients, a string. `None`
/// if the position is missing or malformed.
pub(super) fn resume_point(payload: &Value) -> Option<ResumePoint> {
    let since = match payload.get("since")? {
        Value::Number(number) => Integer::of(number)?,
        Value::String(text) => Integer::parse(text)?,
        _ => return None,
    };
    let since = since.to()?;
    let epoch = match payload.get("epoch") {
        None | Some(Value::Null) => None,
        // A malformed epoch is not the epoch of this store, so the device starts over.
        Some(other) => Some(Epoch::parse(other.as_str()?).ok()?),
    };
    Some(ResumePoint { since: Revision::new(since), epoch })
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::epoch;
    use http::Request;
    use http::request::Parts;
    use serde_json::value::to_raw_value;

    use super::*;

    fn request() -> Parts {
        Request::get("/socket.io/?EIO=4&transport=polling&token=in%2Bquery")
            .header("authorization", "Bearer in-header")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    fn token(auth: &Value, request: &Parts, token_in_query: bool) -> Option<String> {
        let cookie = request.extensions.get::<CookieToken>();
        let request =
            RequestCredentials::read(&request.headers, &request.uri, cookie, token_in_query);
        let auth = to_raw_value(auth).unwrap();
        let token = ConnectCredentials::read(&auth, &request).token;
        token.unwrap().map(|token| token.reveal().to_owned())
    }

    #[test]
    fn token_is_read_from_auth_then_header_then_query() {
        let (with_header, mut without) = (request(), request());
        without.headers.clear();
        let auth = json!({ "token": "Bearer in-auth" });
        assert_eq!(token(&auth, &with_header, true).as_deref(), Some("in-auth"));
        assert_eq!(token(&json!({}), &with_header, true).as_deref(), Some("in-header"));
        assert_eq!(token(&json!({ "token": 7 }), &without, true).as_deref(), Some("in+query"));
        assert_eq!(token(&json!("in-auth"), &without, false), None);
    }

    #[test]
    fn cookie_is_used_last() {
        let mut request = request();
        request.extensions.insert(CookieToken("in-cookie".into()));
        assert_eq!(token(&json!({}), &request, true).as_deref(), Some("in-header"));
        request.headers.clear();
        assert_eq!(token(&json!({}), &request, true).as_deref(), Some("in+query"));
        assert_eq!(token(&json!({}), &request, false).as_deref(), Some("in-cookie"));
        let auth = json!({ "token": "in-auth" });
        assert_eq!(token(&auth, &request, false).as_deref(), Some("in-auth"));
    }

    #[test]
    fn large_auth_payload_needs_no_memory_for_fields_that_are_not_read() {
        let zeros = vec!["0"; 10_000].join(",");
        let json = format!(
            r#"{{"other":[{zeros}],"token":"in-auth","since":7,"epoch":[{zeros}],"since2":[{zeros}]}}"#
        );
        let auth: Box<RawValue> = serde_json::from_str(&json).unwrap();
        let request = RequestCredentials::default();
        let mut read = None;
        let allocated = allocation_counter::measure(|| {
            read = Some(ConnectCredentials::read(&auth, &request));
        });
        let read = read.unwrap();
        assert_eq!(read.token.unwrap().unwrap().reveal(), "in-auth");
        assert_eq!(read.resume_from.map(|point| point.since.get()), Some(7));
        assert!(allocated.bytes_max < 4_096, "{allocated:?}");
        for other in [json!(["in-auth"]), json!({ "token": ["in-auth"] }), json!(null)] {
            let auth = to_raw_value(&other).unwrap();
            assert!(ConnectCredentials::read(&auth, &request).token.unwrap().is_none(), "{other}");
        }
    }

    #[test]
    fn resume_point_is_read_leniently_and_ignored_when_malformed() {
        let read =
            |payload: Value| resume_point(&payload).map(|point| (point.since.get(), point.epoch));
        assert_eq!(read(json!({ "since": 7, "epoch": "e1" })), Some((7, Some(epoch("e1")))));
        assert_eq!(read(json!({ "since": "7" })), Some((7, None)));
        for nothing in [
            json!({}),
            json!(null),
            json!({ "since": -1 }),
            json!({ "since": null }),
            json!({ "since": 7, "epoch": 1 }),
            json!({ "since": 7, "epoch": "" }),
            json!({ "since": [7] }),
        ] {
            assert_eq!(read(nothing.clone()), None, "{nothing}");
        }
    }
}
