//! Flags of the access log.

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use pulse_http::{AccessLog, LoggedAddress, LoggedRequests};

/// Which requests have a line in the log, and what is in it.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccessLogArgs {
    /// Requests that have a line in the log: none, those with a status of 400 or more, or all. It has the time, `sub` of the
    /// token, address, method, route, status, problem code, duration and request id
    #[arg(long, env = "PULSE_ACCESS_LOG", value_enum, default_value_t = Requests::Off)]
    access_log: Requests,
    /// How much of a client's address is in such a line: nothing, its network (/24 of IPv4, /48 of IPv6), or all
    #[arg(long, env = "PULSE_ACCESS_LOG_ADDRESS", value_enum, default_value_t = Address::Truncated)]
    access_log_address: Address,
    /// Networks of proxies whose X-Forwarded-For has the client's address, separated by commas, such as 10.0.0.0/8
    #[arg(long, env = "PULSE_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',')]
    trusted_proxies: Vec<IpNet>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Requests {
    Off,
    Errors,
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Address {
    Off,
    Truncated,
    Full,
}

impl AccessLogArgs {
    pub(crate) fn access_log(&self) -> AccessLog {
        AccessLog {
            requests: match self.access_log {
                Requests::Off => LoggedRequests::Off,
                Requests::Errors => LoggedRequests::Errors,
                Requests::All => LoggedRequests::All,
            },
            address: match self.access_log_address {
                Address::Off => LoggedAddress::Off,
                Address::Truncated => LoggedAddress::Truncated,
                Address::Full => LoggedAddress::Full,
            },
            trusted_proxies: self.trusted_proxies.clone(),
        }
    }
}
