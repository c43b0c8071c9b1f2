//! Tokens: which are valid, which keys verify them, and how keys are replaced without refusing a request.

mod issuer;
mod jwks;
mod jwks_server;
mod keys;
mod load;
mod rotation;
mod signatures;
mod table;
