//! The keys in Redis.
//!
//! The keys of one instance share a hash tag, `pulse:{<instance>}:…`, so that they are in one slot of a Redis Cluster.

/// The consumer group that all workers of an instance belong to, on both streams.
pub(crate) const GROUP: &str = "workers";

/// The keys of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The stream of task ids.
    pub(crate) tasks: String,
    /// The stream of the further tasks of deep users.
    pub(crate) bulk: String,
    /// The hash of the number of entries of each user who has any, in both streams.
    pub(crate) backlog: String,
    /// The set of deep users.
    pub(crate) deep: String,
    /// The hash of the published gauges.
    pub(crate) gauges: String,
}

impl Keys {
    pub(crate) fn new(instance: &str) -> Self {
        let key = |name| format!("pulse:{{{instance}}}:{name}");
        Self {
            tasks: key("tasks"),
            bulk: key("bulk"),
            backlog: key("backlog"),
            deep: key("deep"),
            gauges: key("gauges"),
        }
    }

    /// The key of a stream.
    pub(crate) fn stream(&self, stream: Stream) -> &str {
        match stream {
            Stream::Tasks => &self.tasks,
            Stream::Bulk => &self.bulk,
        }
    }
}

/// One of the two streams of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The tasks of all users.
    Tasks,
    /// The further tasks of deep users.
    Bulk,
}

/// Both streams.
pub(crate) const STREAMS: [Stream; 2] = [Stream::Tasks, Stream::Bulk];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_one_instance_share_a_hash_tag() {
        let Keys { tasks, bulk, backlog, deep, gauges } = Keys::new("shop/main");
        for (key, name) in [(tasks, "tasks"), (bulk, "bulk"), (backlog, "backlog"), (deep, "deep"), (gauges, "gauges")]
        {
            assert_eq!(key, format!("pulse:{{shop/main}}:{name}"));
        }
    }
}
