//! Tokens with invalid signatures, of the kinds in the test vectors of Project Wycheproof and in known attacks.

use anyhow::Context;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use crate::issuer::{Issuer, claims, key_files, part, verifier, verify};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
/// Order of P-256.
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7,
    0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
/// Order of the base point of Ed25519, little-endian.
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// Tokens that differ from this valid one in a part, with what was done.
fn damaged(token: &str) -> anyhow::Result<Vec<(String, String)>> {
    let (message, signature) = token.rsplit_once('.').context("a signature")?;
    let (header, payload) = message.split_once('.').context("a payload")?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(signature)?;
    let signed = |bytes: &[u8]| format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        signed(&bytes)
    };
    let other = part(&claims(&json!({ "sub": "mallory" })));
    let json = json!({ "payload": payload, "signatures": [{ "protected": header, "signature": signature }] });
    let rows = [
        ("no signature", format!("{message}.")),
        ("no last dot", message.to_owned()),
        ("first bit", flipped(0)),
        ("last bit", flipped(bytes.len() - 1)),
        ("cut", signed(&bytes[..bytes.len() - 1])),
        ("half", signed(&bytes[..bytes.len() / 2])),
        ("one byte more", signed(&[&bytes[..], &[0]].concat())),
        ("one byte before", signed(&[&[0], &bytes[..]].concat())),
        ("twice", signed(&[&bytes[..], &bytes[..]].concat())),
        ("zeros", signed(&vec![0; bytes.len()])),
        ("ones", signed(&vec![0xff; bytes.len()])),
        ("a fourth part", format!("{token}.{signature}")),
        ("an empty part", format!("{header}..{signature}")),
        ("padded", format!("{message}.{}", BASE64_URL_SAFE.encode([&bytes[..], &[0]].concat()))),
        ("other alphabet", format!("{message}.+/{}", &BASE64_STANDARD.encode(&bytes)[2..])),
        ("a blank", format!("{message}.{} {}", &signature[..4], &signature[4..])),
        ("other claims", format!("{header}.{other}.{signature}")),
        ("JSON serialization", json.to_string()),
    ];
    Ok(rows.map(|(name, token)| (name.to_owned(), token)).into())
}

/// Signatures that a careless verifier takes for any message, and other encodings of a valid one.
fn crafted(algorithm: Algorithm, message: &str, signature: &[u8]) -> Vec<(String, String)> {
    let zero_one = [&[0; 31][..], &[1]].concat();
    let raw: Vec<(&str, Vec<u8>)> = match algorithm {
        Algorithm::ES256 => {
            let order = P256_ORDER.to_vec();
            let integer = |bytes: &[u8]| [&[2, 33, 0][..], bytes].concat();
            let der = [integer(&signature[..32]), integer(&signature[32..])].concat();
            vec![
                ("r and s are 0", vec![0; 64]),
                ("r and s are the order", [order.clone(), order.clone()].concat()),
                ("r is 1, s is 0", [zero_one.clone(), vec![0; 32]].concat()),
                ("r is 0, s is 1", [vec![0; 32], zero_one.clone()].concat()),
                ("r is 1, s is the order", [zero_one, order].concat()),
                ("DER", [&[0x30, der.len() as u8][..], &der].concat()),
            ]
        }
        Algorithm::EdDSA => {
            let mut carry = 0;
            let sums = signature[32..].iter().zip(ED25519_ORDER).map(|(byte, order)| {
                carry += u16::from(*byte) + u16::from(order);
                let sum = carry as u8;
                carry >>= 8;
                sum
            });
            let larger: Vec<u8> = sums.collect();
            let identity = [&[1][..], &[0; 31]].concat();
            vec![
                ("S is larger than the order", [&signature[..32], &larger].concat()),
                ("R is the identity, S is 0", [identity, vec![0; 32]].concat()),
            ]
        }
        _ => vec![
            ("1", [&vec![0; signature.len() - 1][..], &[1]].concat()),
            ("only padding", [&[0, 1][..], &vec![0xff; signature.len() - 2]].concat()),
        ],
    };
    let token = |bytes: Vec<u8>| format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
    raw.into_iter().map(|(name, bytes)| (name.to_owned(), token(bytes))).collect()
}

/// Tokens that name another algorithm than that of their key.
fn confused(issuer: &Issuer) -> anyhow::Result<Vec<(String, String)>> {
    let mut rows = Vec::new();
    for public in ["rsa.pub", "ec.pub", "ed.pub"] {
        let pem = issuer.read(public)?;
        let der = pem_content(&pem)?;
        for (form, secret) in
            [("PEM", &pem[..]), ("PEM without line end", pem.trim_ascii_end()), ("DER", &der), ("nothing", b"")]
        {
            let key = EncodingKey::from_secret(secret);
            let token = encode(&Header::new(Algorithm::HS256), &claims(&json!({})), &key)?;
            rows.push((format!("HS256 with {form} of {public}"), token));
        }
    }
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS512] {
        rows.push((format!("{algorithm:?}"), issuer.token(algorithm, &json!({}))?));
    }
    let payload = part(&claims(&json!({})));
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256 ", "ES256K", "RSA1_5", "dir"] {
        let header = part(&json!({ "alg": alg }));
        rows.push((format!("alg {alg:?} without a signature"), format!("{header}.{payload}.")));
        rows.push((format!("alg {alg:?} with one"), format!("{header}.{payload}.AAAA")));
    }
    Ok(rows)
}

fn pem_content(pem: &[u8]) -> anyhow::Result<Vec<u8>> {
    let text = std::str::from_utf8(pem)?;
    let lines: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    Ok(BASE64_STANDARD.decode(lines)?)
}

#[tokio::test]
async fn tokens_with_invalid_signatures_are_refused() -> anyhow::Result<()> {
    let issuer = Issuer::new()?;
    let files = ["rsa.pub", "ec.pub", "ed.pub"].map(|name| issuer.path(name));
    let verifier = verifier(key_files(&[&files[0], &files[1], &files[2]]))?;
    let mut rows = confused(&issuer)?;
    for algorithm in ALGORITHMS {
        let token = issuer.token(algorithm, &json!({}))?;
        assert!(verify(&verifier, &token).await.is_ok(), "{algorithm:?}");
        let (message, signature) = token.rsplit_once('.').context("a signature")?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature)?;
        rows.extend(
            damaged(&token)?
                .into_iter()
                .chain(crafted(algorithm, message, &signature))
                .map(|(name, token)| (format!("{algorithm:?}: {name}"), token)),
        );
    }
    for text in ["", ".", "..", "...", "a", "a.b", "a.b.c", "e30.e30.", "e30.e30.e30", "{}.{}.{}"] {
        rows.push((format!("not a token: {text:?}"), text.to_owned()));
    }
    assert!(rows.len() > 100, "only {} rows", rows.len());
    for (name, token) in rows {
        let verified = verify(&verifier, &token).await;
        assert_eq!(verified.err().as_deref(), Some("invalid_token"), "{name}: {token}");
    }
    Ok(())
}
