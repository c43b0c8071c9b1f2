//! One sample of the queue of an instance.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// One sample of the queue of an instance, with what the operator needs besides the rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What the rules need.
    pub queue: pulse_scaling::Sample,
    /// Number of tasks in flight, by worker pod.
    pub in_flight: BTreeMap<String, u64>,
    /// The error that makes a value absent. Gauges that no scheduler has published yet are absent without an error.
    pub error: Option<SampleError>,
}

impl Sample {
    /// A sample that failed: every value is unknown.
    pub fn failed(at: Timestamp, error: SampleError) -> Self {
        let queue = pulse_scaling::Sample { at, depth: None, gauges: None };
        Self { queue, in_flight: BTreeMap::new(), error: Some(error) }
    }
}

/// Why the queue could not be read; the reasons of the condition `QueueReachable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleError {
    /// The URL is not `redis://HOST…` or `rediss://HOST…`.
    UrlNotSupported,
    /// The operator is configured not to connect to the host.
    HostNotAllowed,
    /// The host name has no address.
    HostNotFound,
    /// No Redis answers: it refuses connections, hangs, cannot serve now, or is another program.
    ConnectionFailed,
    /// Redis rejects the user name or the password, or the user lacks a permission.
    AuthFailed,
    /// The certificate is not trusted, or the CA cannot be used.
    TlsFailed,
    /// A key has an unexpected type or value: another program wrote it.
    WrongType,
    /// The answer is longer than that of a queue.
    AnswerTooLong,
}

impl SampleError {
    /// The reason in conditions.
    pub fn reason(self) -> &'static str {
        match self {
            Self::UrlNotSupported => "UrlNotSupported",
            Self::HostNotAllowed => "HostNotAllowed",
            Self::HostNotFound => "HostNotFound",
            Self::ConnectionFailed => "ConnectionFailed",
            Self::AuthFailed => "AuthFailed",
            Self::TlsFailed => "TlsFailed",
            Self::WrongType => "WrongType",
            Self::AnswerTooLong => "AnswerTooLong",
        }
    }

    /// What is wrong and what to do, for the condition.
    pub fn advice(self) -> &'static str {
        match self {
            Self::UrlNotSupported => {
                "write the URL as redis://HOST:PORT/DB, or rediss:// for TLS, not as a unix socket"
            }
            Self::HostNotAllowed => {
                "the operator may not connect to one of these hosts, or to one that a Sentinel or a node of the Cluster \
                 names: ask its administrator to add all of them to --redis-allowed-host"
            }
            Self::HostNotFound => "the host has no address: correct it in the Secret",
            Self::ConnectionFailed => {
                "no Redis answers: start it, correct its Secret, or admit the operator's namespace in its NetworkPolicy"
            }
            Self::AuthFailed => "Redis refuses the user, the password or a command: correct the Secret or the ACL",
            Self::TlsFailed => "the certificate is not trusted: correct the CA, or the host in the Secret",
            Self::WrongType => {
                "a key of the instance has an unexpected type or value: delete it with `pulse queue purge`"
            }
            Self::AnswerTooLong => "the answer is longer than that of a queue: correct the Secret",
        }
    }
}
