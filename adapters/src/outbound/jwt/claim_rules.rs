use std::time::Duration;

use belfry_application::ports::{Claims, Scopes, TokenError};
use belfry_domain::{Timestamp, UserId};
use serde_json::{Map, Number, Value};

use super::error::InvalidJwtSettings;
use super::key_set::SignedContent;
use super::settings::JwtSettings;
use crate::wire::Integer;

/// The checks of a token's claims, after its signature has been verified.
#[derive(Debug)]
pub(super) struct ClaimRules {
    issuer: Option<String>,
    audiences: Vec<String>,
    leeway: Duration,
    max_lifetime: Option<Duration>,
    user_claims: Vec<String>,
    lifetime_without_exp: Option<Duration>,
    scope_claim: String,
}

/// The latest time that RFC 3339 can represent. A later expiry is capped to it.
const MAX_EXPIRY: Timestamp = Timestamp::from_unix_millis(253_402_300_799_999);

impl ClaimRules {
    pub(super) fn new(settings: &JwtSettings) -> Result<Self, InvalidJwtSettings> {
        let no_user_claim =
            settings.user_claims.is_empty() || settings.user_claims.iter().any(String::is_empty);
        if no_user_claim || settings.scope_claim.is_empty() {
            return Err(InvalidJwtSettings::EmptyClaimName);
        }
        Ok(Self {
            issuer: settings.issuer.clone(),
            audiences: settings.audiences.clone(),
            leeway: settings.leeway,
            max_lifetime: settings.max_lifetime,
            user_claims: settings.user_claims.clone(),
            lifetime_without_exp: settings.lifetime_without_exp,
            scope_claim: settings.scope_claim.clone(),
        })
    }

    /// The typed claims, if they are valid at `now`.
    pub(super) fn check(
        &self,
        SignedContent { claims, key }: &SignedContent,
        now: Timestamp,
    ) -> Result<Claims, TokenError> {
        self.check_issuer(claims)?;
        self.check_audience(claims)?;
        let user = self.user(claims)?;
        let expires_at = self.limited_expiry(claims, now)?;
        if expires_at <= now {
            return Err(TokenError::Expired);
        }
        self.check_not_before(claims, now)?;
        self.check_issued_at(claims, now)?;
        let (scopes, issued_at) = (self.scopes(claims), issued_at(claims));
        Ok(Claims { user, scopes, issued_at, expires_at, key: *key })
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        match &self.issuer {
            Some(issuer) if claims.get("iss").and_then(Value::as_str) != Some(issuer) => {
                Err(TokenError::Invalid("wrong issuer"))
            }
            _ => Ok(()),
        }
    }

    /// `aud` is one audience or an array of audiences (RFC 7519, 4.1.3).
    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), TokenError> {
        let is_ours = |one: &Value| {
            one.as_str().is_some_and(|one| self.audiences.iter().any(|our| our == one))
        };
        let is_accepted = match claims.get("aud") {
            _ if self.audiences.is_empty() => true,
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        is_accepted.then_some(()).ok_or(TokenError::Invalid("wrong audience"))
    }

    fn user(&self, claims: &Map<String, Value>) -> Result<UserId, TokenError> {
        let found = self.user_claims.iter().find_map(|name| {
            let value = find_claim(claims, name).filter(|value| !value.is_null())?;
            Some((name, value))
        });
        let Some((name, value)) = found else {
            let names = self.user_claims.join(" or ");
            return Err(TokenError::Claim(format!("has no claim {names}")));
        };
        let wrong_type = || {
            TokenError::Claim(format!("has a claim {name} that is neither a string nor an integer"))
        };
        let user = match value {
            Value::String(text) => UserId::parse_addressable(text),
            Value::Number(number) => match Integer::of(number) {
                Some(integer) => UserId::parse(&integer.to_string()),
                None => return Err(wrong_type()),
            },
            _ => return Err(wrong_type()),
        };
        user.map_err(|_| TokenError::Claim(format!("has a claim {name} that is no user id")))
    }

    /// `exp` plus the leeway. Without `exp`, the configured time from now.
    fn expiry(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, TokenError> {
        match (claims.get("exp"), self.lifetime_without_exp) {
            (Some(Value::Number(seconds)), _) => {
                Ok(numeric_date(seconds).plus(self.leeway).min(MAX_EXPIRY))
            }
            (None | Some(Value::Null), Some(lifetime)) => Ok(now.plus(lifetime).min(MAX_EXPIRY)),
            (None | Some(Value::Null), None) => {
                Err(TokenError::Claim("has no claim exp".to_owned()))
            }
            (Some(_), _) => Err(TokenError::Claim("has a claim exp that is no number".to_owned())),
        }
    }

    /// The expiry, limited to `max_lifetime` plus the leeway after the time of issue.
    fn limited_expiry(
        &self,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<Timestamp, TokenError> {
        let expires_at = self.expiry(claims, now)?;
        let Some(max_lifetime) = self.max_lifetime else { return Ok(expires_at) };
        let has_expiry = claims.get("exp").is_some_and(|exp| !exp.is_null());
        let latest_end = |start: Timestamp| start.plus(max_lifetime).plus(self.leeway);
        match issued_at(claims) {
            Some(issued_at) => Ok(expires_at.min(latest_end(issued_at))),
            None if has_expiry && expires_at <= latest_end(now) => Ok(expires_at),
            None if has_expiry => {
                Err(TokenError::Invalid("no iat, and exp is too late for auth.max_lifetime"))
            }
            // Without `exp`, each verification would move the expiry further into the future.
            None => Err(TokenError::Invalid("neither iat nor exp, but auth.max_lifetime is set")),
        }
    }

    fn check_not_before(
        &self,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        match claims.get("nbf") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Number(start)) if numeric_date(start) <= now.plus(self.leeway) => Ok(()),
            Some(Value::Number(_)) => Err(TokenError::NotYetValid),
            Some(_) => Err(TokenError::Invalid("nbf is not a number")),
        }
    }

    /// RFC 7519 does not define how to use `iat`. An `iat` in the future means that a clock is wrong, so
    /// the token's other times cannot be trusted either.
    fn check_issued_at(
        &self,
        claims: &Map<String, Value>,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        match claims.get("iat") {
            None | Some(Value::Null) => Ok(()),
            Some(Value::Number(issued)) if numeric_date(issued) <= now.plus(self.leeway) => Ok(()),
            Some(Value::Number(_)) => Err(TokenError::Invalid("iat is in the future")),
            Some(_) => Err(TokenError::Invalid("iat is not a number")),
        }
    }

    /// The scopes in a string or an array of strings. A claim of another type grants none.
    fn scopes(&self, claims: &Map<String, Value>) -> Scopes {
        match find_claim(claims, &self.scope_claim) {
            Some(Value::String(text)) => Scopes::parse(text),
            Some(Value::Array(all)) => {
                // A string with a space is not a scope. After the join it would become several scopes.
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

/// The claim with this full name, else the value at this dotted path. The full name comes first because
/// collision-resistant names contain dots (`https://example.org/user`; RFC 7519, 4.2).
fn find_claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (first, path) = name.split_once('.')?;
        path.split('.').try_fold(claims.get(first)?, |inner, name| inner.get(name))
    })
}

/// The time of issue (RFC 7519, 4.1.6).
fn issued_at(claims: &Map<String, Value>) -> Option<Timestamp> {
    match claims.get("iat") {
        Some(Value::Number(seconds)) => Some(numeric_date(seconds)),
        _ => None,
    }
}

/// A `NumericDate` (RFC 7519, 2): seconds since 1970, possibly with a fraction. Values out of range
/// saturate.
fn numeric_date(seconds: &Number) -> Timestamp {
    if let Some(whole) = seconds.as_i64() {
        return Timestamp::from_unix_seconds(whole);
    }
    let millis = seconds.as_f64().unwrap_or(f64::MAX) * 1_000.0;
    #[expect(clippy::cast_possible_truncation, reason = "a cast of floats saturates")]
    Timestamp::from_unix_millis(millis as i64)
}

#[cfg(test)]
mod tests {
    use belfry_application::ports::KeyFingerprint;
    use belfry_application::testing::{at, user};
    use serde_json::json;

    use super::super::secret::Secret;
    use super::super::settings::JwtKey;
    use super::super::signing::SECRET;
    use super::*;
    use crate::wire::integer::CASES;

    /// In seconds since 1970.
    const NOW: i64 = 1_800_000_000;

    fn settings() -> JwtSettings {
        let key = JwtKey::Secret(Secret::new(*SECRET).unwrap());
        JwtSettings { leeway: Duration::from_secs(30), ..JwtSettings::new([key]) }
    }

    /// Checks the claims at [`NOW`]. A missing `sub` or `exp` gets a valid default. A claim with the value
    /// "absent" is removed.
    fn check(settings: &JwtSettings, claims: Value) -> Result<Claims, TokenError> {
        let Value::Object(mut claims) = claims else { panic!("claims are an object") };
        claims.entry("sub").or_insert(json!("ada"));
        claims.entry("exp").or_insert(json!(NOW + 60));
        claims.retain(|_, value| *value != json!("absent"));
        let now = Timestamp::from_unix_seconds(NOW);
        let content = SignedContent { claims, key: KeyFingerprint::default() };
        ClaimRules::new(settings).unwrap().check(&content, now)
    }

    fn valid(claims: Value) -> Claims {
        let shown = claims.to_string();
        check(&settings(), claims).unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    fn invalid(settings: &JwtSettings, claims: Value) -> String {
        let shown = claims.to_string();
        match check(settings, claims) {
            Err(TokenError::Invalid(reason)) => reason.to_owned(),
            Err(TokenError::Claim(reason)) => reason,
            other => panic!("{shown}: {other:?}"),
        }
    }

    #[test]
    fn user_claim_must_be_a_string_or_an_integer() {
        assert_eq!(valid(json!({})).user, user("ada"));
        assert_eq!(valid(json!({ "sub": 42 })).user, user("42"));
        assert_eq!(valid(json!({ "sub": u64::MAX })).user, user("18446744073709551615"));
        // The longest `sub` of OpenID Connect Core, section 2.
        let longest = "u".repeat(255);
        assert_eq!(valid(json!({ "sub": longest })).user, user(&longest));
        for sub in [json!("absent"), json!(null)] {
            assert_eq!(invalid(&settings(), json!({ "sub": sub })), "has no claim sub");
        }
        for sub in [json!(true), json!(4.5), json!(["ada"]), json!({})] {
            assert_eq!(
                invalid(&settings(), json!({ "sub": sub })),
                "has a claim sub that is neither a string nor an integer"
            );
        }
        for sub in ["", " ", "a b", "ada\n", "a\u{0}", "..", &"u".repeat(256)] {
            let problem = invalid(&settings(), json!({ "sub": sub }));
            assert_eq!(problem, "has a claim sub that is no user id");
        }
    }

    #[test]
    fn integers_are_read_like_in_other_adapters() {
        for (json, integer) in CASES {
            // A token with a number that `serde_json` cannot read is rejected before its claims are checked.
            let Ok(value) = serde_json::from_str::<Value>(json) else { continue };
            if !value.is_string() {
                let claims = check(&settings(), json!({ "sub": value }));
                let expected = integer.map(|integer| integer.to_string());
                assert_eq!(claims.ok().map(|it| it.user.to_string()), expected, "{json}");
            }
        }
    }

    #[test]
    fn date_may_be_written_with_an_exponent_or_a_fraction() {
        for exp in ["1800000060", "1800000060.0", "18000000600e-1", "1.80000006E9"] {
            let exp: Value = serde_json::from_str(exp).unwrap();
            let expires_at =
                valid(json!({ "exp": exp, "nbf": exp.clone().as_f64().map(|it| it - 60.5) }))
                    .expires_at;
            assert_eq!(expires_at, at((NOW + 90) * 1_000), "{exp}");
        }
    }

    #[test]
    fn claim_is_found_by_its_full_name_and_by_its_path() {
        let with_claim =
            |name: &str| JwtSettings { user_claims: vec![name.to_owned()], ..settings() };
        for (name, claims) in [
            ("https://example.org/user", json!({ "https://example.org/user": "bob" })),
            ("ext.user.id", json!({ "ext": { "user": { "id": "bob" } } })),
            ("ext.id", json!({ "ext.id": "bob", "ext": { "id": "eve" } })),
        ] {
            assert_eq!(check(&with_claim(name), claims).unwrap().user, user("bob"), "{name}");
        }
        for name in ["ext.user.id", "sub.id", ".", "..", "sub."] {
            let problem = invalid(&with_claim(name), json!({}));
            assert_eq!(problem, format!("has no claim {name}"));
        }
        assert!(ClaimRules::new(&with_claim("")).is_err());
        let none = JwtSettings { user_claims: Vec::new(), ..settings() };
        assert!(ClaimRules::new(&none).is_err());
    }

    #[test]
    fn first_user_claim_in_the_token_counts() {
        let names = ["sub", "userId", "id"].map(str::to_owned).to_vec();
        let several = JwtSettings { user_claims: names, ..settings() };
        for claims in [
            json!({ "sub": "bob", "userId": "eve" }),
            json!({ "sub": "absent", "userId": "bob", "id": "eve" }),
            json!({ "sub": null, "id": "bob" }),
        ] {
            assert_eq!(check(&several, claims.clone()).unwrap().user, user("bob"), "{claims}");
        }
        // If the first claim in the token cannot be used, the next one is not tried.
        let problem = invalid(&several, json!({ "sub": {}, "userId": "eve" }));
        assert_eq!(problem, "has a claim sub that is neither a string nor an integer");
        let problem = invalid(&several, json!({ "sub": "absent" }));
        assert_eq!(problem, "has no claim sub or userId or id");
    }

    #[test]
    fn token_without_exp_is_valid_for_the_configured_time() {
        let lenient =
            JwtSettings { lifetime_without_exp: Some(Duration::from_mins(1)), ..settings() };
        for exp in [json!("absent"), json!(null)] {
            let claims = check(&lenient, json!({ "exp": exp })).unwrap();
            assert_eq!(claims.expires_at, at((NOW + 60) * 1_000));
        }
        let expired = check(&lenient, json!({ "exp": NOW - 31 }));
        assert!(matches!(expired, Err(TokenError::Expired)), "an exp takes precedence");
        let problem = invalid(&lenient, json!({ "exp": "1800000060" }));
        assert_eq!(problem, "has a claim exp that is no number");
    }

    #[test]
    fn token_expires_at_exp_plus_leeway() {
        assert_eq!(valid(json!({ "exp": NOW + 60 })).expires_at, at((NOW + 90) * 1_000));
        assert_eq!(valid(json!({ "exp": NOW - 29 })).expires_at, at((NOW + 1) * 1_000));
        for exp in [json!(NOW - 30), json!(NOW - 31), json!(0), json!(-1), json!(-1e300)] {
            let expired = check(&settings(), json!({ "exp": exp }));
            assert!(matches!(expired, Err(TokenError::Expired)), "{exp}");
        }
        let fraction = valid(json!({ "exp": 1_800_000_000.5 })).expires_at;
        assert_eq!(fraction, at(NOW * 1_000 + 30_500));
    }

    #[test]
    fn token_expires_at_most_max_lifetime_after_its_issue() {
        let one_hour = JwtSettings { max_lifetime: Some(Duration::from_hours(1)), ..settings() };
        let check = |claims| check(&one_hour, claims);
        for exp in [NOW + 3_600, 253_402_300_799, i64::MAX] {
            let claims = check(json!({ "iat": NOW - 600, "exp": exp })).unwrap();
            assert_eq!(claims.expires_at, at((NOW + 3_000 + 30) * 1_000), "{exp}");
            let old = check(json!({ "iat": NOW - 3_630, "exp": exp }));
            assert!(matches!(old, Err(TokenError::Expired)), "{exp}");
        }
        let short = check(json!({ "iat": NOW, "exp": NOW + 60 })).unwrap();
        assert_eq!(short.expires_at, at((NOW + 90) * 1_000));
        // Without the time of issue, the time until the expiry is limited.
        check(json!({ "exp": NOW + 3_600 })).unwrap();
        let long = invalid(&one_hour, json!({ "exp": NOW + 3_601 }));
        assert_eq!(long, "no iat, and exp is too late for auth.max_lifetime");
        let lifetime_without_exp = Some(Duration::from_mins(1));
        let max_lifetime = one_hour.max_lifetime;
        let without_exp = JwtSettings { max_lifetime, lifetime_without_exp, ..settings() };
        for claims in [json!({ "exp": null, "iat": null }), json!({ "exp": null })] {
            let endless = invalid(&without_exp, claims);
            assert_eq!(endless, "neither iat nor exp, but auth.max_lifetime is set");
        }
    }

    #[test]
    fn expiry_out_of_range_is_capped() {
        for exp in [json!(i64::MAX), json!(u64::MAX), json!(1e300), json!(1e18)] {
            assert_eq!(valid(json!({ "exp": exp })).expires_at, MAX_EXPIRY, "{exp}");
        }
    }

    #[test]
    fn token_without_a_numeric_expiry_is_rejected() {
        for exp in [json!("absent"), json!(null)] {
            assert_eq!(invalid(&settings(), json!({ "exp": exp })), "has no claim exp");
        }
        for exp in [json!("1800000060"), json!([])] {
            let problem = invalid(&settings(), json!({ "exp": exp }));
            assert_eq!(problem, "has a claim exp that is no number");
        }
    }

    #[test]
    fn token_is_rejected_before_nbf_minus_leeway() {
        for nbf in [json!(NOW), json!(NOW + 30), json!(0), json!(-1e300), json!(null)] {
            valid(json!({ "nbf": nbf }));
        }
        for nbf in [json!(NOW + 31), json!(u64::MAX), json!(1e300)] {
            let early = check(&settings(), json!({ "nbf": nbf }));
            assert!(matches!(early, Err(TokenError::NotYetValid)), "{nbf}");
        }
        assert_eq!(invalid(&settings(), json!({ "nbf": "now" })), "nbf is not a number");
    }

    #[test]
    fn token_issued_in_the_future_is_rejected() {
        for iat in [json!(NOW), json!(NOW + 30), json!(0), json!(-1e300), json!(null)] {
            valid(json!({ "iat": iat }));
        }
        for iat in [json!(NOW + 31), json!(u64::MAX), json!(1e300)] {
            assert_eq!(invalid(&settings(), json!({ "iat": iat })), "iat is in the future");
        }
        let reason = invalid(&settings(), json!({ "iat": "now" }));
        assert_eq!(reason, "iat is not a number");
    }

    #[test]
    fn issuer_must_match_where_configured() {
        let ours = JwtSettings { issuer: Some("https://id.example.org".to_owned()), ..settings() };
        assert!(check(&ours, json!({ "iss": "https://id.example.org" })).is_ok());
        for iss in [
            json!("absent"),
            json!("https://id.example.org/"),
            json!(["https://id.example.org"]),
            json!(null),
        ] {
            assert_eq!(invalid(&ours, json!({ "iss": iss })), "wrong issuer");
        }
        valid(json!({ "iss": "anybody" }));
    }

    #[test]
    fn audience_must_match_where_configured() {
        let ours =
            JwtSettings { audiences: vec!["belfry".to_owned(), "bell".to_owned()], ..settings() };
        for aud in [json!("belfry"), json!("bell"), json!(["x", "bell"])] {
            assert!(check(&ours, json!({ "aud": aud })).is_ok(), "{aud}");
        }
        for aud in [
            json!("absent"),
            json!("Belfry"),
            json!([]),
            json!([["belfry"]]),
            json!({ "belfry": true }),
            json!(null),
        ] {
            assert_eq!(invalid(&ours, json!({ "aud": aud })), "wrong audience");
        }
        valid(json!({ "aud": "somebody else" }));
        valid(json!({ "aud": ["a", "b"] }));
    }

    #[test]
    fn scopes_are_a_space_separated_string_or_an_array() {
        let writes = |scope: Value| valid(json!({ "scope": scope })).scopes.contains(Scopes::WRITE);
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
        let claims = check(&keycloak, claims).unwrap();
        assert!(claims.scopes.contains(Scopes::WRITE));
    }
}
