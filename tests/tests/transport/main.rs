//! TLS and HTTP/2 of the listeners.

mod certificates;
mod client;
mod conformance;
mod frames;
mod http2;
mod smuggling;
mod tls;
