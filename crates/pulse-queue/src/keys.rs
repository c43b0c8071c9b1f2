//! The keys in Redis.
//!
//! The keys of one instance share a hash tag, `pulse:{<instance>}:…`, so that they are in one slot of a Redis Cluster.

/// The consumer group that all workers of an instance belong to.
pub(crate) const GROUP: &str = "workers";

/// The keys of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The stream of task ids.
    pub(crate) tasks: String,
    /// The hash of the published gauges.
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
    fn keys_of_one_instance_share_a_hash_tag() {
        let keys = Keys::new("shop/main");
        assert_eq!(
            (keys.tasks.as_str(), keys.gauges.as_str()),
            ("pulse:{shop/main}:tasks", "pulse:{shop/main}:gauges")
        );
    }
}
