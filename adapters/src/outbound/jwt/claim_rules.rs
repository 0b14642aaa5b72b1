use std::time::Duration;

use belfry_application::ports::{Claims, Scopes, TokenError};
use belfry_domain::{Timestamp, UserId};
use serde_json::{Map, Number, Value};

use super::settings::{InvalidJwtSettings, JwtSettings};

/// What a token must claim, once its signature is known to be good.
#[derive(Debug)]
pub(super) struct ClaimRules {
    issuer: Option<String>,
    audiences: Vec<String>,
    leeway: Duration,
    user_claim: String,
    scope_claim: String,
}

/// The last instant that RFC 3339 can write. A token "without end" ends here.
const END: Timestamp = Timestamp::from_unix_millis(253_402_300_799_999);

impl ClaimRules {
    pub(super) fn of(settings: &JwtSettings) -> Result<Self, InvalidJwtSettings> {
        if settings.user_claim.is_empty() || settings.scope_claim.is_empty() {
            return Err(InvalidJwtSettings::NamelessClaim);
        }
        Ok(Self {
            issuer: settings.issuer.clone(),
            audiences: settings.audiences.clone(),
            leeway: settings.leeway,
            user_claim: settings.user_claim.clone(),
            scope_claim: settings.scope_claim.clone(),
        })
    }

    /// Reads the claims, if they hold now.
    pub(super) fn read(
        &self,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Claims, TokenError> {
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        let user = self.user(claims)?;
        let expires_at = self.expiry(claims)?;
        if expires_at <= now {
            return Err(TokenError::Expired);
        }
        self.check_start(claims, now)?;
        self.check_issue(claims, now)?;
        Ok(Claims { user, scopes: self.scopes(claims), issued_at: issued_at(claims), expires_at })
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        match &self.issuer {
            Some(issuer) if claims.get("iss").and_then(Value::as_str) != Some(issuer) => {
                Err(TokenError::Invalid("it is of another issuer"))
            }
            _ => Ok(()),
        }
    }

    /// `aud` is one audience or an array of them (RFC 7519, 4.1.3).
    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let ours = |one: &Value| {
            one.as_str().is_some_and(|one| self.audiences.iter().any(|our| our == one))
        };
        let for_us = match claims.get("aud") {
            _ if self.audiences.is_empty() => true,
            Some(Value::Array(all)) => all.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        };
        for_us.then_some(()).ok_or(TokenError::Invalid("it is for another audience"))
    }

    fn user(&self, claims: &Map<String, Value>) -> Result<UserId, TokenError> {
        let user = match find(claims, &self.user_claim) {
            Some(Value::String(text)) => UserId::parse(text),
            Some(Value::Number(number)) if !number.is_f64() => UserId::parse(&number.to_string()),
            _ => return Err(TokenError::Invalid("it names no user")),
        };
        user.map_err(|_| TokenError::Invalid("the user it names cannot be one"))
    }

    fn expiry(&self, claims: &Map<String, Value>) -> Result<Timestamp, TokenError> {
        match claims.get("exp") {
            Some(Value::Number(seconds)) => Ok(instant(seconds).plus(self.leeway).min(END)),
            _ => Err(TokenError::Invalid("it has no expiry")),
        }
    }

    fn check_start(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<(), TokenError> {
        match claims.get("nbf") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Number(start)) if instant(start) <= now.plus(self.leeway) => Ok(()),
            Some(Value::Number(_)) => Err(TokenError::NotYetValid),
            Some(_) => Err(TokenError::Invalid("its start is not a number")),
        }
    }

    /// RFC 7519 leaves open what a time of issue is good for. One that lies ahead means a clock that is
    /// wrong, and then the other times of the token cannot be relied on either.
    fn check_issue(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<(), TokenError> {
        match claims.get("iat") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Number(issued)) if instant(issued) <= now.plus(self.leeway) => Ok(()),
            Some(Value::Number(_)) => Err(TokenError::Invalid("it was issued in the future")),
            Some(_) => Err(TokenError::Invalid("its time of issue is not a number")),
        }
    }

    /// A claim of any other form gives no scopes: it cannot have been meant to.
    fn scopes(&self, claims: &Map<String, Value>) -> Scopes {
        match find(claims, &self.scope_claim) {
            Some(Value::String(text)) => Scopes::parse(text),
            Some(Value::Array(all)) => {
                // A text with a space in it is none: joined to the others it would be two.
                let words: Vec<_> = all
                    .iter()
                    .filter_map(Value::as_str)
                    .filter(|word| !word.contains(char::is_whitespace))
                    .collect();
                Scopes::parse(&words.join(" "))
            }
            _ => Scopes::default(),
        }
    }
}

/// The claim of that name; else, the name being a path, what lies at its end. In this order, as
/// collision-resistant names have dots (`https://example.org/user`; RFC 7519, 4.2).
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |inner, name| inner.get(name))
    })
}

/// When the token was issued (RFC 7519, 4.1.6), if it says so.
fn issued_at(claims: &Map<String, Value>) -> Option<Timestamp> {
    match claims.get("iat") {
        Some(Value::Number(seconds)) => Some(instant(seconds)),
        _ => None,
    }
}

/// A `NumericDate` (RFC 7519, 2): seconds since 1970, possibly with a fraction, possibly absurd.
fn instant(seconds: &Number) -> Timestamp {
    if let Some(whole) = seconds.as_i64() {
        return Timestamp::from_unix_seconds(whole);
    }
    let millis = seconds.as_f64().unwrap_or(f64::MAX) * 1_000.0;
    #[expect(clippy::cast_possible_truncation, reason = "a cast of floats saturates")]
    Timestamp::from_unix_millis(millis as i64)
}

#[cfg(test)]
mod tests {
    use belfry_application::testing::{at, user};
    use serde_json::json;

    use super::super::signing::SECRET;
    use super::super::{JwtKey, Secret};
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn settings() -> JwtSettings {
        let key = JwtKey::Secret(Secret::new(*SECRET).unwrap());
        JwtSettings { leeway: Duration::from_secs(30), ..JwtSettings::new([key]) }
    }

    fn read(settings: &JwtSettings, claims: Value) -> Result<Claims, TokenError> {
        let Value::Object(mut claims) = claims else { panic!("claims are an object") };
        claims.entry("sub").or_insert(json!("ada"));
        claims.entry("exp").or_insert(json!(NOW + 60));
        claims.retain(|_, value| *value != json!("absent"));
        let now = Timestamp::from_unix_seconds(NOW);
        ClaimRules::of(settings).unwrap().read(&claims, now)
    }

    fn holds(claims: Value) -> Claims {
        let shown = claims.to_string();
        read(&settings(), claims).unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    fn invalid(settings: &JwtSettings, claims: Value) -> &'static str {
        let shown = claims.to_string();
        match read(settings, claims) {
            Err(TokenError::Invalid(reason)) => reason,
            other => panic!("{shown}: {other:?}"),
        }
    }

    #[test]
    fn the_user_is_a_string_or_a_whole_number() {
        assert_eq!(holds(json!({})).user, user("ada"));
        assert_eq!(holds(json!({ "sub": 42 })).user, user("42"));
        assert_eq!(holds(json!({ "sub": u64::MAX })).user, user("18446744073709551615"));
        for sub in
            [json!("absent"), json!(null), json!(true), json!(4.5), json!(["ada"]), json!({})]
        {
            assert_eq!(invalid(&settings(), json!({ "sub": sub })), "it names no user");
        }
        for sub in ["", " ", "a b", "ada\n", "a\u{0}", &"u".repeat(10_240)] {
            assert_eq!(
                invalid(&settings(), json!({ "sub": sub })),
                "the user it names cannot be one"
            );
        }
    }

    #[test]
    fn a_claim_is_found_by_its_name_and_by_its_path() {
        let of = |name: &str| JwtSettings { user_claim: name.to_owned(), ..settings() };
        for (name, claims) in [
            ("https://example.org/user", json!({ "https://example.org/user": "bob" })),
            ("ext.user.id", json!({ "ext": { "user": { "id": "bob" } } })),
            ("ext.id", json!({ "ext.id": "bob", "ext": { "id": "eve" } })),
        ] {
            assert_eq!(read(&of(name), claims).unwrap().user, user("bob"), "{name}");
        }
        for name in ["ext.user.id", "sub.id", ".", "..", "sub."] {
            assert_eq!(invalid(&of(name), json!({})), "it names no user", "{name}");
        }
        assert!(ClaimRules::of(&of("")).is_err());
    }

    #[test]
    fn a_token_ends_at_its_expiry_and_the_leeway() {
        assert_eq!(holds(json!({ "exp": NOW + 60 })).expires_at, at((NOW + 90) * 1_000));
        assert_eq!(holds(json!({ "exp": NOW - 29 })).expires_at, at((NOW + 1) * 1_000));
        for exp in [json!(NOW - 30), json!(NOW - 31), json!(0), json!(-1), json!(-1e300)] {
            let ended = read(&settings(), json!({ "exp": exp }));
            assert!(matches!(ended, Err(TokenError::Expired)), "{exp}");
        }
        let fraction = holds(json!({ "exp": 1_800_000_000.5 })).expires_at;
        assert_eq!(fraction, at(NOW * 1_000 + 30_500));
    }

    #[test]
    fn an_absurd_expiry_is_the_end_of_time() {
        for exp in [json!(i64::MAX), json!(u64::MAX), json!(1e300), json!(1e18)] {
            assert_eq!(holds(json!({ "exp": exp })).expires_at, END, "{exp}");
        }
    }

    #[test]
    fn a_token_without_an_expiry_is_none() {
        for exp in [json!("absent"), json!(null), json!("1800000060"), json!([])] {
            assert_eq!(invalid(&settings(), json!({ "exp": exp })), "it has no expiry");
        }
    }

    #[test]
    fn a_token_does_not_hold_before_its_start() {
        for nbf in [json!(NOW), json!(NOW + 30), json!(0), json!(-1e300), json!(null)] {
            holds(json!({ "nbf": nbf }));
        }
        for nbf in [json!(NOW + 31), json!(u64::MAX), json!(1e300)] {
            let early = read(&settings(), json!({ "nbf": nbf }));
            assert!(matches!(early, Err(TokenError::NotYetValid)), "{nbf}");
        }
        assert_eq!(invalid(&settings(), json!({ "nbf": "now" })), "its start is not a number");
    }

    #[test]
    fn a_token_that_was_issued_in_the_future_is_none() {
        for iat in [json!(NOW), json!(NOW + 30), json!(0), json!(-1e300), json!(null)] {
            holds(json!({ "iat": iat }));
        }
        for iat in [json!(NOW + 31), json!(u64::MAX), json!(1e300)] {
            assert_eq!(invalid(&settings(), json!({ "iat": iat })), "it was issued in the future");
        }
        let reason = invalid(&settings(), json!({ "iat": "now" }));
        assert_eq!(reason, "its time of issue is not a number");
    }

    #[test]
    fn the_issuer_is_the_expected_one_where_one_is_expected() {
        let ours = JwtSettings { issuer: Some("https://id.example.org".to_owned()), ..settings() };
        assert!(read(&ours, json!({ "iss": "https://id.example.org" })).is_ok());
        for iss in [
            json!("absent"),
            json!("https://id.example.org/"),
            json!(["https://id.example.org"]),
            json!(null),
        ] {
            assert_eq!(invalid(&ours, json!({ "iss": iss })), "it is of another issuer");
        }
        holds(json!({ "iss": "anybody" }));
    }

    #[test]
    fn the_audience_has_one_of_ours_where_we_have_any() {
        let ours =
            JwtSettings { audiences: vec!["belfry".to_owned(), "bell".to_owned()], ..settings() };
        for aud in [json!("belfry"), json!("bell"), json!(["x", "bell"])] {
            assert!(read(&ours, json!({ "aud": aud })).is_ok(), "{aud}");
        }
        for aud in [
            json!("absent"),
            json!("Belfry"),
            json!([]),
            json!([["belfry"]]),
            json!({ "belfry": true }),
            json!(null),
        ] {
            assert_eq!(invalid(&ours, json!({ "aud": aud })), "it is for another audience");
        }
        holds(json!({ "aud": "somebody else" }));
        holds(json!({ "aud": ["a", "b"] }));
    }

    #[test]
    fn scopes_come_as_words_or_as_an_array() {
        let writes = |scope: Value| holds(json!({ "scope": scope })).scopes.contains(Scopes::WRITE);
        assert!(writes(json!("openid notifications:write")));
        assert!(writes(json!(["openid", "notifications:write"])));
        for scope in [
            json!("absent"),
            json!(null),
            json!(""),
            json!([]),
            json!([["notifications:write"]]),
            json!(["not notifications:write at all"]),
            json!({ "notifications:write": true }),
            json!("notifications:writer"),
        ] {
            assert!(!writes(scope.clone()), "{scope}");
        }
        let keycloak = JwtSettings { scope_claim: "realm_access.roles".to_owned(), ..settings() };
        let claims = json!({ "realm_access": { "roles": ["notifications:write"] } });
        let claims = read(&keycloak, claims).unwrap();
        assert!(claims.scopes.contains(Scopes::WRITE));
    }
}
