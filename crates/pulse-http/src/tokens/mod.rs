//! Authentication by JSON Web Tokens.
//!
//! * `key.rs` checks a key, `key_set.rs` has the keys of one source, `key_files.rs` and `jwks.rs` keep them current.
//! * `used_keys.rs` lists them with the names of `fingerprint.rs`.
//! * `claims.rs` checks what a token says, `verifier.rs` does both.
//!
//! Each key has one algorithm, from the configuration or from the key itself. `alg` and `kid` of a token only choose among
//! these keys; `jku`, `x5u`, `x5c` and `jwk` are not read.

mod claims;
mod fetch;
mod fingerprint;
mod issue;
mod jwk;
mod jwks;
mod key;
mod key_files;
mod key_set;
mod loaded;
mod scope;
mod used_keys;
mod verifier;

pub use claims::{Claims, MAX_LIFETIME};
pub use issue::{IssueError, NewClaims, issue};
pub use jwks::{JwksConfig, jwks_url};
pub use key::KeyError;
pub use key_files::KeyFileError;
pub use scope::{Scope, Scopes};
pub use used_keys::{UsedKey, UsedKeys};
pub use verifier::{AuthConfig, KeySource, Verifier, VerifierError};
