//! Chooses the pods to remove when workers are scaled down: those with the fewest tasks in flight.

use std::collections::{BTreeMap, BTreeSet};

/// Value of `controller.kubernetes.io/pod-deletion-cost` on a chosen pod. A pod without the annotation costs 0, and the
/// ReplicaSet removes the cheapest pods first.
pub const VICTIM_COST: i32 = -1000;

/// A worker pod that may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Name of the pod.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Current value of the annotation `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: Option<i32>,
}

/// A change of a pod's deletion cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostChange {
    /// Name of the pod.
    pub pod: String,
    /// The new cost; `None` removes the annotation.
    pub cost: Option<i32>,
}

/// Chooses `count` pods to remove: pods that are not ready first, then by tasks in flight, then by name.
///
/// Returns only the pods to patch: newly chosen ones, and ones that were chosen before and now stay. Costs other than
/// [`VICTIM_COST`] belong to other writers and are not removed.
pub fn choose_victims(pods: &[Candidate], in_flight: &BTreeMap<String, u64>, count: usize) -> Vec<CostChange> {
    let mut order: Vec<&Candidate> = pods.iter().collect();
    order.sort_by_key(|pod| {
        let tasks = in_flight.get(&pod.name).copied().unwrap_or(0);
        (pod.ready, tasks, &pod.name)
    });
    let chosen: BTreeSet<&str> = order.iter().take(count).map(|pod| pod.name.as_str()).collect();
    let change = |pod: &Candidate| {
        let is_marked = pod.deletion_cost == Some(VICTIM_COST);
        let cost = match chosen.contains(pod.name.as_str()) {
            true if !is_marked => Some(VICTIM_COST),
            false if is_marked => None,
            _ => return None,
        };
        Some(CostChange { pod: pod.name.clone(), cost })
    };
    pods.iter().filter_map(change).collect()
}

/// Sums tasks in flight by pod. Consumers are named `<pod name>.<boot id>`, so a restarted pod has several.
pub fn in_flight_by_pod<'a>(consumers: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    let mut pods = BTreeMap::new();
    for (consumer, tasks) in consumers {
        // Split from the right: a pod name may contain dots, a boot id does not.
        let pod = consumer.rsplit_once('.').map_or(consumer, |(pod, _)| pod);
        *pods.entry(pod.to_owned()).or_insert(0) += tasks;
    }
    pods
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool, deletion_cost: Option<i32>) -> Candidate {
        Candidate { name: name.into(), ready, deletion_cost }
    }

    fn mark(pod: &str, cost: Option<i32>) -> CostChange {
        CostChange { pod: pod.into(), cost }
    }

    #[test]
    fn victims_are_unready_pods_first_then_the_least_busy() {
        let pods = [pod("busy", true, None), pod("new", false, None), pod("idle", true, None), pod("half", true, None)];
        let in_flight = BTreeMap::from([("busy".into(), 16), ("half".into(), 4), ("new".into(), 30)]);
        let names = |count| -> Vec<String> {
            choose_victims(&pods, &in_flight, count).into_iter().map(|change| change.pod).collect()
        };
        assert_eq!(names(0), [""; 0]);
        assert_eq!(names(1), ["new"]);
        assert_eq!(names(2), ["new", "idle"]);
        assert_eq!(names(3), ["new", "idle", "half"]);
        assert_eq!(names(9), ["busy", "new", "idle", "half"]);
    }

    #[test]
    fn victims_patch_only_changed_pods() {
        let pods = [pod("a", true, Some(VICTIM_COST)), pod("b", true, Some(VICTIM_COST)), pod("c", true, None)];
        let in_flight = BTreeMap::from([("b".into(), 3)]);
        assert_eq!(choose_victims(&pods, &in_flight, 1), [mark("b", None)]);
        assert_eq!(choose_victims(&pods, &in_flight, 2), [mark("b", None), mark("c", Some(VICTIM_COST))]);
    }

    #[test]
    fn victims_keep_a_deletion_cost_of_another_writer() {
        let pods = [pod("a", true, Some(7)), pod("b", true, None)];
        assert_eq!(choose_victims(&pods, &BTreeMap::from([("a".into(), 1)]), 1), [mark("b", Some(VICTIM_COST))]);
    }

    #[test]
    fn consumers_are_summed_by_pod() {
        let consumers = [("shop.eu-worker-1.ab12", 3), ("shop.eu-worker-1.cd34", 2), ("reaper", 1)];
        let expected = BTreeMap::from([("shop.eu-worker-1".into(), 5), ("reaper".into(), 1)]);
        assert_eq!(in_flight_by_pod(consumers), expected);
    }
}
