//! How many connections a process can hold: each takes a file descriptor and memory.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors for everything else: the probe port, PostgreSQL, Redis, log, libraries.
const RESERVED_DESCRIPTORS: u64 = 256;
/// Memory of a connection between two requests whose last head was large, in bytes.
const CONNECTION_BYTES: u64 = 32 * 1024;
/// The part of the container's memory for connections.
const CONNECTION_SHARE: u64 = 4;

/// Raises the soft limit of file descriptors to the hard limit. Container runtimes leave it at 1,024, for programs that use
/// select(2).
pub(crate) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "cannot raise the limit of file descriptors");
    }
}

/// Returns the maximum number of connections: `wanted`, or fewer if the process' file descriptors or the container's memory
/// are not enough for it.
pub(crate) fn connection_limit(wanted: usize) -> usize {
    let allowed = allowed(getrlimit(Resource::Nofile).current, crate::memory_limit());
    if allowed < wanted {
        tracing::info!(wanted, allowed, "fewer connections, as file descriptors or memory are limited");
    }
    wanted.min(allowed)
}

/// `None` is no limit.
fn allowed(descriptors: Option<u64>, memory: Option<u64>) -> usize {
    let by_descriptors = descriptors.map(|limit| limit.saturating_sub(RESERVED_DESCRIPTORS).max(limit / 2));
    let by_memory = memory.map(|limit| limit / CONNECTION_SHARE / CONNECTION_BYTES);
    let allowed = by_descriptors.into_iter().chain(by_memory).min();
    allowed.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_into_descriptors_and_memory() {
        assert_eq!(allowed(None, None), usize::MAX);
        assert_eq!(allowed(Some(1024), None), 768);
        assert_eq!(allowed(Some(300), None), 150);
        assert_eq!(allowed(Some(1 << 20), Some(512 << 20)), 4096);
        assert_eq!(allowed(Some(0), Some(0)), 1);
    }
}
