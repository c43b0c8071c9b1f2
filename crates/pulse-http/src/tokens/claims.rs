//! What a verified token says, and whether that makes sense.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::problem::Problem;
use crate::problem_code::ProblemCode;
use crate::tokens::scope::{Scope, Scopes};

/// Maximum time from now to the `exp` of a token: ten years. A later one is a mistake of the issuer.
pub const MAX_LIFETIME: Duration = Duration::from_hours(10 * 8766);

/// The claims of a verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The `sub` claim, 1 to 255 characters.
    pub subject: String,
    /// Scopes of the token.
    pub scopes: Scopes,
    /// The `exp` claim, in seconds since 1970.
    pub expires_at: u64,
}

impl Claims {
    /// Requires the scope.
    ///
    /// # Errors
    /// 403 `insufficient_scope` if the token lacks it.
    pub fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(scope) {
            return Ok(());
        }
        let needed = scope.as_str();
        let detail = format!("the token lacks the scope `{needed}`: use a token with this scope");
        Err(Problem::new(ProblemCode::InsufficientScope, detail)
            .challenge(format!(r#"Bearer error="insufficient_scope", scope="{needed}""#)))
    }
}

/// Why the claims of a token with a valid signature are refused. Only the log says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClaimsError {
    #[error("`sub` is empty, longer than 255 characters, or has control characters")]
    Subject,
    #[error("`exp` is more than ten years ahead")]
    ExpiresTooLate,
    #[error("`iat` is in the future, negative, or after `exp`")]
    IssuedAt,
    #[error("the token has no `iat`, which --max-token-age needs")]
    NoIssuedAt,
    #[error("the token is older than --max-token-age")]
    TooOld,
}

/// What the configuration says about claims.
#[derive(Debug, Clone)]
pub(crate) struct ClaimRules {
    /// Scopes of a token without `scope` and `scp`.
    pub(crate) default_scopes: Scopes,
    pub(crate) max_age: Option<Duration>,
    pub(crate) leeway_seconds: u64,
}

/// The claims that are read here. A null is a wrong type for each of them, never an absent claim.
#[derive(Deserialize)]
pub(crate) struct RawClaims {
    sub: String,
    /// May have a fraction (RFC 7519, section 2).
    exp: f64,
    #[serde(default, deserialize_with = "present")]
    iat: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    scope: Option<String>,
    /// What Microsoft Entra ID (a text) and Okta (a list) call `scope`.
    #[serde(default, deserialize_with = "present")]
    scp: Option<Names>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    Text(String),
    List(Vec<String>),
}

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl RawClaims {
    /// Checks what the signature does not say. `now` is in seconds since 1970.
    pub(crate) fn check(self, rules: &ClaimRules, now: f64) -> Result<Claims, ClaimsError> {
        let length = self.sub.chars().count();
        if !(1..=255).contains(&length) || self.sub.chars().any(char::is_control) {
            return Err(ClaimsError::Subject);
        }
        self.check_times(rules, now)?;
        let scopes = self.scopes().unwrap_or_else(|| rules.default_scopes.clone());
        Ok(Claims { subject: self.sub, scopes, expires_at: self.exp as u64 })
    }

    fn check_times(&self, rules: &ClaimRules, now: f64) -> Result<(), ClaimsError> {
        let leeway = rules.leeway_seconds as f64;
        if self.exp > now + MAX_LIFETIME.as_secs_f64() {
            return Err(ClaimsError::ExpiresTooLate);
        }
        if self.iat.is_some_and(|issued| !(0.0..=(now + leeway).min(self.exp)).contains(&issued)) {
            return Err(ClaimsError::IssuedAt);
        }
        let Some(max_age) = rules.max_age else { return Ok(()) };
        let issued = self.iat.ok_or(ClaimsError::NoIssuedAt)?;
        if now - issued > max_age.as_secs_f64() + leeway { Err(ClaimsError::TooOld) } else { Ok(()) }
    }

    /// `None` if the token has neither `scope` nor `scp`; with both, it has the scopes of either.
    fn scopes(&self) -> Option<Scopes> {
        let scope = self.scope.iter().flat_map(|text| text.split(' '));
        let scp: Vec<&str> = match &self.scp {
            Some(Names::Text(text)) => text.split(' ').collect(),
            Some(Names::List(names)) => names.iter().map(String::as_str).collect(),
            None => Vec::new(),
        };
        (self.scope.is_some() || self.scp.is_some()).then(|| Scopes::named(scope.chain(scp)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: f64 = 1_800_000_000.0;

    fn check(change: Value, max_age: Option<Duration>) -> Result<Claims, String> {
        let mut claims = json!({ "sub": "ada", "exp": NOW + 60.0 });
        claims.as_object_mut().expect("an object").extend(change.as_object().cloned().unwrap_or_default());
        let rules =
            ClaimRules { default_scopes: [Scope::EventsRead].into_iter().collect(), max_age, leeway_seconds: 30 };
        let claims: RawClaims = serde_json::from_value(claims).map_err(|error| error.to_string())?;
        claims.check(&rules, NOW).map_err(|error| error.to_string())
    }

    #[test]
    fn scopes_are_read_from_scope_and_scp_and_a_null_is_refused() {
        use Scope::{Admin, EventsRead, EventsWrite};
        for (claims, expected) in [
            (json!({}), vec![EventsRead]),
            (json!({ "scope": "" }), vec![]),
            (json!({ "scope": "openid profile" }), vec![]),
            (json!({ "scope": "events:write admin" }), vec![EventsWrite, Admin]),
            (json!({ "scp": "events:write" }), vec![EventsWrite]),
            (json!({ "scp": ["events:read", "x"] }), vec![EventsRead]),
            (json!({ "scp": [] }), vec![]),
            (json!({ "scope": "events:write", "scp": ["admin"] }), vec![EventsWrite, Admin]),
        ] {
            let scopes = check(claims.clone(), None).map(|claims| claims.scopes);
            assert_eq!(scopes, Ok(expected.into_iter().collect()), "{claims}");
        }
        for claims in [
            json!({ "scope": null }),
            json!({ "scope": ["events:read"] }),
            json!({ "scp": null }),
            json!({ "scp": 1 }),
            json!({ "scp": [1] }),
        ] {
            assert!(check(claims.clone(), None).is_err(), "{claims}");
        }
    }

    #[test]
    fn times_of_a_token_are_sane() {
        let hour = Some(Duration::from_hours(1));
        for (claims, max_age, good) in [
            (json!({ "exp": NOW + 0.5 }), None, true),
            (json!({ "exp": NOW + 9.0 * 365.0 * 86_400.0 }), None, true),
            (json!({ "exp": NOW + 11.0 * 365.25 * 86_400.0 }), None, false),
            (json!({ "exp": u64::MAX }), None, false),
            (json!({ "iat": NOW }), None, true),
            (json!({ "iat": NOW + 29.0 }), None, true),
            (json!({ "iat": NOW + 31.0 }), None, false),
            (json!({ "iat": -1 }), None, false),
            (json!({ "iat": "1" }), None, false),
            (json!({ "iat": null }), None, false),
            (json!({ "iat": NOW + 10.0, "exp": NOW + 5.0 }), None, false),
            (json!({}), hour, false),
            (json!({ "iat": NOW - 3_600.0 }), hour, true),
            (json!({ "iat": NOW - 3_631.0 }), hour, false),
        ] {
            assert_eq!(check(claims.clone(), max_age).is_ok(), good, "{claims} {max_age:?}");
        }
    }

    #[test]
    fn subject_is_text_of_bounded_length() {
        assert!(check(json!({ "sub": "é".repeat(255) }), None).is_ok());
        for subject in [json!(""), json!("a".repeat(256)), json!("a\n"), json!("a\0"), json!(1), json!(null)] {
            assert!(check(json!({ "sub": subject }), None).is_err(), "{subject}");
        }
    }
}
