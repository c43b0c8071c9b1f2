#![no_main]

use std::sync::LazyLock;

use http::HeaderValue;
use pulse_http::{AuthConfig, KeySource, Verifier};

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let key = KeySource::Hs256(b"another secret than that of the corpus".to_vec());
    Verifier::new(&AuthConfig { key, issuer: None, audience: None, leeway_seconds: 30 }).expect("a long secret")
});

// No input has a valid signature.
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(header) = HeaderValue::from_bytes(input) else { return };
    assert!(VERIFIER.verify(Some(&header)).is_err());
});
