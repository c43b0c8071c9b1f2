//! Which keys are accepted at start.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use pulse_http::KeySource;
use serde_json::{Value, json};

use crate::issuer::{Issuer, key_files, openssl, verifier};

fn number(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa(bits: usize, exponent: &[u8]) -> Value {
    json!({ "kty": "RSA", "n": number(&vec![0xff; bits / 8]), "e": number(exponent) })
}

/// Why the file is refused; empty if it is accepted.
fn refusal(issuer: &Issuer, content: &[u8]) -> anyhow::Result<String> {
    let path = issuer.write("key", content)?;
    let error = verifier(key_files(&[&path])).err();
    Ok(error.map(|error| error.to_string()).unwrap_or_default())
}

#[tokio::test]
async fn keys_in_pem_are_accepted_only_if_they_protect_and_verify() -> anyhow::Result<()> {
    let issuer = Issuer::new()?;
    for (name, kind) in [
        ("rsa-512", &["RSA", "-pkeyopt", "rsa_keygen_bits:512"][..]),
        ("rsa-1024", &["RSA", "-pkeyopt", "rsa_keygen_bits:1024"]),
        ("p-384", &["EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("secp256k1", &["EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"]),
        ("ed448", &["ED448"]),
        ("x25519", &["X25519"]),
    ] {
        issuer.generate(name, kind)?;
    }
    let (key, certificate) = (issuer.text_path("rsa.pem"), issuer.text_path("cert.pub"));
    openssl(&["req", "-x509", "-key", &key, "-subj", "/CN=a", "-out", &certificate])?;
    openssl(&["rsa", "-in", &key, "-RSAPublicKey_out", "-out", &issuer.text_path("pkcs1.pub")])?;
    for (name, expected) in [
        ("rsa.pub", ""),
        ("pkcs1.pub", ""),
        ("ec.pub", ""),
        ("ed.pub", ""),
        ("rsa-512.pub", "has 512 bits: use 2048 to 4096"),
        ("rsa-1024.pub", "has 1024 bits"),
        ("p-384.pub", "use RSA (RS256), P-256 (ES256) or Ed25519 (EdDSA)"),
        ("secp256k1.pub", "curve is not supported"),
        ("ed448.pub", "curve is not supported"),
        ("x25519.pub", "curve is not supported"),
        ("rsa.pem", "has a private key"),
        ("ec.pem", "has a private key"),
        ("ed.pem", "has a private key"),
        ("cert.pub", "openssl x509"),
    ] {
        let got = refusal(&issuer, &issuer.read(name)?)?;
        assert!(got.is_empty() == expected.is_empty() && got.contains(expected), "{name}: {got}");
    }
    let several = [issuer.read("rsa.pub")?, issuer.read("ec.pub")?].concat();
    assert_eq!(refusal(&issuer, &several)?, "");
    let with_private = [several, issuer.read("ed.pem")?].concat();
    assert!(refusal(&issuer, &with_private)?.contains("has a private key"), "one key of several");
    for (content, expected) in [
        ("", "there is no key in it"),
        ("not a key", "there is no key in it"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be parsed"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA", "there is no key in it"),
    ] {
        let got = refusal(&issuer, content.as_bytes())?;
        assert!(got.contains(expected), "{content:?}: {got}");
    }
    let large = refusal(&issuer, &vec![b' '; 300 * 1024])?;
    assert!(large.contains("larger than 256 KiB"), "{large}");
    let missing = verifier(key_files(&[&issuer.path("missing")])).err().map(|error| error.to_string());
    assert!(missing.as_ref().is_some_and(|error| error.contains("missing cannot be read")), "{missing:?}");
    Ok(())
}

#[tokio::test]
async fn json_web_keys_are_accepted_only_if_they_protect_and_verify() -> anyhow::Result<()> {
    let issuer = Issuer::new()?;
    let identity = [&[1][..], &[0; 31]].concat();
    let (long, even) = (rsa(2048, &[1, 0, 1]), rsa(2048, &[1, 0, 0]));
    let with = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    for (jwk, expected) in [
        (long.clone(), ""),
        (with(long.clone(), "alg", json!("RS256")), ""),
        (with(long.clone(), "use", json!("sig")), ""),
        (rsa(4096, &[1, 0, 1]), ""),
        (rsa(8192, &[1, 0, 1]), "has 8192 bits"),
        (rsa(1024, &[1, 0, 1]), "has 1024 bits"),
        (even, "is weak"),
        (rsa(2048, &[1]), "is weak"),
        (with(long.clone(), "d", json!("AQAB")), "has a private key"),
        (with(long.clone(), "use", json!("enc")), "there is no key in it"),
        (with(long.clone(), "alg", json!("PS256")), "there is no key in it"),
        (with(long, "n", json!("+/")), "`n` is not base64url"),
        (json!({ "kty": "RSA" }), "`n` is missing"),
        (json!({ "kty": "oct", "k": number(&[7; 32]) }), "has a private key"),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": number(&identity) }), "is weak"),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": number(&[0; 32]) }), "is weak"),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": number(&[0; 31]) }), "no key of Ed25519"),
        (json!({ "kty": "EC", "crv": "P-256", "x": number(&[1; 32]), "y": number(&[1; 32]) }), "no point of P-256"),
        (json!({ "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA" }), "there is no key in it"),
    ] {
        let got = refusal(&issuer, json!({ "keys": [jwk] }).to_string().as_bytes())?;
        assert!(got.is_empty() == expected.is_empty() && got.contains(expected), "{jwk}: {got}");
    }
    let many = refusal(&issuer, json!({ "keys": vec![rsa(2048, &[1, 0, 1]); 33] }).to_string().as_bytes())?;
    assert!(many.contains("more than 32 keys"), "{many}");
    Ok(())
}

#[tokio::test]
async fn shared_secrets_have_at_least_32_bytes_without_their_line_end() -> anyhow::Result<()> {
    let issuer = Issuer::new()?;
    let secret = "s".repeat(31);
    for (content, good) in [
        (format!("{secret}s"), true),
        (format!("{secret}s\n"), true),
        (format!("{secret}s\r\n"), true),
        (format!("{secret}\n"), false),
        (format!("{secret}\r\n"), false),
        (String::new(), false),
    ] {
        let path = issuer.write("secret", &content)?;
        assert_eq!(verifier(KeySource::SecretFiles(vec![path])).is_ok(), good, "{content:?}");
    }
    Ok(())
}
