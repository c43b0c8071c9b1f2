//! Tokens with valid signatures: what their headers and claims may say.

use jsonwebtoken::{Algorithm, EncodingKey, encode};
use pulse_http::{Scope, Scopes};
use serde_json::{Value, json};

use crate::issuer::{AUDIENCE, ISSUER, Issuer, claims, key_files, now, part, verifier, verify};

/// A token with exactly this header, signed by the key of ES256.
fn with_header(issuer: &Issuer, header: &str) -> anyhow::Result<String> {
    use base64::Engine;
    let header = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(header);
    let message = format!("{header}.{}", part(&claims(&json!({}))));
    let key = issuer.signing_key(Algorithm::ES256)?;
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::ES256)?;
    Ok(format!("{message}.{signature}"))
}

#[tokio::test]
async fn headers_of_tokens_are_those_of_access_tokens() -> anyhow::Result<()> {
    let issuer = Issuer::new()?;
    let verifier = verifier(key_files(&[&issuer.path("ec.pub")]))?;
    for (header, good) in [
        (r#"{"alg":"ES256"}"#, true),
        (r#"{"alg":"ES256","typ":"JWT"}"#, true),
        (r#"{"alg":"ES256","typ":"jwt"}"#, true),
        (r#"{"alg":"ES256","typ":"at+jwt"}"#, true),
        (r#"{"alg":"ES256","typ":"application/at+jwt"}"#, true),
        (r#"{"alg":"ES256","kid":"any"}"#, true),
        (r#"{"alg":"ES256","jku":"https://evil.example/jwks","x5u":"https://evil.example"}"#, true),
        (r#"{"alg":"ES256","typ":"logout+jwt"}"#, false),
        (r#"{"alg":"ES256","typ":"dpop+jwt"}"#, false),
        (r#"{"alg":"ES256","typ":"secevent+jwt"}"#, false),
        (r#"{"alg":"ES256","typ":""}"#, false),
        (r#"{"alg":"ES256","crit":["exp2"],"exp2":1}"#, false),
        (r#"{"alg":"ES256","crit":[]}"#, false),
        (r#"{"alg":"ES256","crit":["b64"],"b64":false}"#, false),
        (r#"{"alg":"ES256","alg":"none"}"#, false),
        (r#"{"alg":"es256"}"#, false),
        (r#"{"alg":"none"}"#, false),
        (r#"{"alg":"HS256"}"#, false),
        (r#"{"alg":"RS256"}"#, false),
        (r#"{"alg":"ES384"}"#, false),
        (r#"{"alg":null}"#, false),
        (r#"{"typ":"JWT"}"#, false),
        ("{}", false),
        ("[]", false),
        (r#""ES256""#, false),
    ] {
        let verified = verify(&verifier, &with_header(&issuer, header)?).await;
        assert_eq!(verified.is_ok(), good, "{header}: {verified:?}");
        assert!(good || verified == Err("invalid_token".into()), "{header}: {verified:?}");
    }
    Ok(())
}

#[tokio::test]
async fn claims_of_tokens_are_for_this_audience_and_time() -> anyhow::Result<()> {
    let issuer = Issuer::new()?;
    let verifier = verifier(key_files(&[&issuer.path("ec.pub")]))?;
    let (hour, year) = (3600, 366 * 86_400);
    for (change, good) in [
        (json!({}), true),
        (json!({ "aud": [AUDIENCE, "other"] }), true),
        (json!({ "iat": now(), "nbf": now() }), true),
        (json!({ "exp": now() as f64 + 60.5 }), true),
        (json!({ "exp": now() - 20 }), true),
        (json!({ "aud": "some-spa" }), false),
        (json!({ "aud": ["some-spa"] }), false),
        (json!({ "aud": {} }), false),
        (json!({ "aud": null }), false),
        (json!({ "iss": "https://evil.example" }), false),
        (json!({ "iss": format!("{ISSUER}/") }), false),
        (json!({ "iss": null }), false),
        (json!({ "exp": now() - hour }), false),
        (json!({ "exp": (now() + hour).to_string() }), false),
        (json!({ "exp": -1 }), false),
        (json!({ "exp": null }), false),
        (json!({ "exp": now() + 11 * year }), false),
        (json!({ "exp": 253_402_300_799_u64 }), false),
        (json!({ "exp": u64::MAX }), false),
        (json!({ "nbf": now() + hour }), false),
        (json!({ "iat": now() + 10 * year }), false),
        (json!({ "iat": "now" }), false),
        (json!({ "sub": "" }), false),
        (json!({ "sub": null }), false),
        (json!({ "sub": 7 }), false),
        (json!({ "scope": null }), false),
        (json!({ "scp": null }), false),
        (json!({ "scope": ["events:read"] }), false),
    ] {
        let verified = verify(&verifier, &issuer.token(Algorithm::ES256, &change)?).await;
        assert_eq!(verified.is_ok(), good, "{change}: {verified:?}");
    }
    Ok(())
}

#[tokio::test]
async fn scopes_of_tokens_are_those_of_scope_and_scp_and_none_by_default() -> anyhow::Result<()> {
    let issuer = Issuer::new()?;
    let verifier = verifier(key_files(&[&issuer.path("ec.pub")]))?;
    let scopes = |scopes: &[Scope]| -> Scopes { scopes.iter().copied().collect() };
    for (change, expected) in [
        (json!({}), scopes(&[])),
        (json!({ "scope": "events:write events:read" }), scopes(&[Scope::EventsWrite, Scope::EventsRead])),
        (json!({ "scp": ["events:read"] }), scopes(&[Scope::EventsRead])),
        (json!({ "scp": "events:read" }), scopes(&[Scope::EventsRead])),
        (json!({ "scope": "EVENTS:READ events:*" }), scopes(&[])),
    ] {
        let verified = verify(&verifier, &issuer.token(Algorithm::ES256, &change)?).await;
        assert_eq!(verified.map(|claims| claims.scopes), Ok(expected), "{change}");
    }
    Ok(())
}

#[tokio::test]
async fn key_that_a_token_names_is_the_only_one_that_verifies_it() -> anyhow::Result<()> {
    let (first, second) = (rcgen::KeyPair::generate()?, rcgen::KeyPair::generate()?);
    let issuer = Issuer::new()?;
    let jwks = crate::jwks_server::key_set(&[("first", &first), ("second", &second)]);
    let path = issuer.write("jwks.json", jwks.to_string())?;
    let verifier = verifier(key_files(&[&path]))?;
    for (kid, key, good) in [
        (Some("first"), &first, true),
        (Some("second"), &second, true),
        (None, &second, true),
        (Some("first"), &second, false),
        (Some("third"), &second, false),
        (Some("../../etc/passwd"), &second, false),
    ] {
        let header = jsonwebtoken::Header { kid: kid.map(Into::into), ..jsonwebtoken::Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes())?;
        let token = encode(&header, &claims(&Value::Null), &key)?;
        assert_eq!(verify(&verifier, &token).await.is_ok(), good, "{kid:?}");
    }
    Ok(())
}
