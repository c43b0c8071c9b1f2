#![no_main]

use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};

use http::HeaderValue;
use pulse_http::{AuthConfig, KeySource, Scopes, Verifier};

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let keys = KeySource::Secret(b"another secret than that of the corpus".to_vec());
    let default_scopes = Scopes::default();
    let config = AuthConfig { keys, issuer: None, audience: None, leeway_seconds: 30, max_age: None, default_scopes };
    Verifier::start(&config).expect("a long secret")
});

// No input has a valid signature.
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(header) = HeaderValue::from_bytes(input) else { return };
    let verified = pin!(VERIFIER.verify(Some(&header))).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(verified, Poll::Ready(Err(_))));
});
