//! One log line for each request, for those who have to know who did what.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, StatusCode};
use ipnet::IpNet;

use crate::serving::Peer;

/// Maximum number of proxies in `X-Forwarded-For` that are looked at.
const MAX_PROXIES: usize = 32;

/// Which requests have a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoggedRequests {
    /// None.
    #[default]
    Off,
    /// Those with a status of 400 or more.
    Errors,
    /// All.
    All,
}

/// How much of a client's address is in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoggedAddress {
    /// Nothing.
    Off,
    /// The network: /24 of IPv4, /48 of IPv6.
    #[default]
    Truncated,
    /// All.
    Full,
}

/// What the access log has.
#[derive(Debug, Clone, Default)]
pub struct AccessLog {
    /// Which requests have a line.
    pub requests: LoggedRequests,
    /// How much of a client's address is in it.
    pub address: LoggedAddress,
    /// Proxies whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<IpNet>,
}

/// The `sub` of a request's token, set where the token is verified.
#[derive(Clone, Default)]
pub struct RequestSubject(Arc<OnceLock<String>>);

impl RequestSubject {
    /// Notes the subject of a verified token for the line of its request.
    pub fn note(parts: &Parts, subject: &str) {
        if let Some(Self(noted)) = parts.extensions.get() {
            let _ = noted.set(subject.to_owned());
        }
    }
}

/// What is known of a request before it is answered.
pub(crate) struct Entry {
    subject: RequestSubject,
    client: Option<IpAddr>,
}

impl AccessLog {
    /// Begins a line, or `None` if no request has one.
    pub(crate) fn begin(&self, request: &mut Request) -> Option<Entry> {
        if self.requests == LoggedRequests::Off {
            return None;
        }
        let subject = RequestSubject::default();
        request.extensions_mut().insert(subject.clone());
        Some(Entry { subject, client: self.client(request.extensions(), request.headers()) })
    }

    /// Writes the line.
    pub(crate) fn end(
        &self,
        entry: Entry,
        (request_id, method, route): (&str, &Method, &str),
        (status, code, duration): (StatusCode, Option<&'static str>, Duration),
    ) {
        if self.requests == LoggedRequests::Errors && !(status.is_client_error() || status.is_server_error()) {
            return;
        }
        tracing::info!(
            target: "access",
            request_id,
            subject = entry.subject.0.get(),
            client = entry.client.map(tracing::field::display),
            method = method.as_str(),
            route,
            status = status.as_u16(),
            code,
            duration_ms = duration.as_secs_f64() * 1000.0,
            "request"
        );
    }

    /// The address of the client, as far as it is logged: the last one in `X-Forwarded-For` that is no trusted proxy, if
    /// the peer is one.
    fn client(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        let &Peer(mut client) = extensions.get()?;
        let is_trusted = |address: &IpAddr| self.trusted_proxies.iter().any(|network| network.contains(address));
        let forwarded = headers.get_all("x-forwarded-for").iter().rev().filter_map(|value| value.to_str().ok());
        let addresses = forwarded.flat_map(|value| value.rsplit(',').map(|address| address.trim().parse::<IpAddr>()));
        for address in addresses.take(MAX_PROXIES) {
            let (true, Ok(address)) = (is_trusted(&client), address) else { break };
            client = address.to_canonical();
        }
        match self.address {
            LoggedAddress::Off => None,
            LoggedAddress::Truncated => Some(truncated(client)),
            LoggedAddress::Full => Some(client),
        }
    }
}

fn truncated(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: LoggedAddress, peer: &str, forwarded: &[&str]) -> Option<String> {
        let trusted_proxies = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().expect("a network")).into();
        let log = AccessLog { requests: LoggedRequests::All, address, trusted_proxies };
        let (mut extensions, mut headers) = (Extensions::new(), HeaderMap::new());
        extensions.insert(Peer(peer.parse().expect("an address")));
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().expect("a value"));
        }
        log.client(&extensions, &headers).map(|address| address.to_string())
    }

    #[test]
    fn client_is_the_last_address_that_is_no_trusted_proxy() {
        for (peer, forwarded, expected) in [
            ("192.0.2.7", &["203.0.113.9"][..], "192.0.2.7"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("fd00::1", &["2001:db8:1:2::9"], "2001:db8:1:2::9"),
        ] {
            assert_eq!(client(LoggedAddress::Full, peer, forwarded).as_deref(), Some(expected), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn address_is_truncated_or_left_out() {
        assert_eq!(client(LoggedAddress::Truncated, "192.0.2.7", &[]).as_deref(), Some("192.0.2.0"));
        assert_eq!(client(LoggedAddress::Truncated, "2001:db8:1:2::9", &[]).as_deref(), Some("2001:db8:1::"));
        assert_eq!(client(LoggedAddress::Off, "192.0.2.7", &[]), None);
    }
}
