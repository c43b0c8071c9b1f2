//! Every key in Redis, built in one place.
//!
//! One hash tag per instance, `pulse:{<instance>}:…`, so that all of them live in one slot of a Redis Cluster.

/// The consumer group: all workers.
pub(crate) const GROUP: &str = "workers";

/// The keys of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The stream of task ids.
    pub(crate) tasks: String,
    /// The hash of what only PostgreSQL knows about the backlog.
    pub(crate) gauges: String,
}

impl Keys {
    pub(crate) fn new(instance: &str) -> Self {
        Self { tasks: format!("pulse:{{{instance}}}:tasks"), gauges: format!("pulse:{{{instance}}}:gauges") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_an_ingest_share_its_hash_tag() {
        let keys = Keys::new("shop/main");
        assert_eq!(
            (keys.tasks.as_str(), keys.gauges.as_str()),
            ("pulse:{shop/main}:tasks", "pulse:{shop/main}:gauges")
        );
    }
}
