//! The modelled HorizontalPodAutoscaler decides like that of Kubernetes, whose controller has decided the recordings in
//! `hpa.json` (`scripts/hpa-recordings`).

use pulse_scaling::simulation::Hpa;
use serde::Deserialize;

/// Time between two syncs, in seconds.
const SYNC_S: u32 = 15;

#[derive(Deserialize)]
struct Recording {
    min: u32,
    max: u32,
    target: u32,
    /// The number of pods and the metric.
    syncs: Vec<(u32, u64)>,
    desired: Vec<u32>,
}

#[test]
fn hpa_model_decides_like_the_controller_of_kubernetes() {
    let recordings: Vec<Recording> = serde_json::from_str(include_str!("hpa.json")).expect("recordings");
    let (mut syncs, mut changes) = (0, 0);
    for (number, Recording { min, max, target, syncs: recorded, desired }) in recordings.iter().enumerate() {
        let mut hpa = Hpa::new(*min, *max, f64::from(*target));
        assert_eq!(recorded.len(), desired.len());
        for (index, ((current, metric), desired)) in recorded.iter().zip(desired).enumerate() {
            let decided = hpa.sync(index as u32 * SYNC_S, *current, *metric as f64);
            assert_eq!(decided, *desired, "recording {number}, sync {index}: {current} pods, metric {metric}");
            syncs += 1;
            changes += u32::from(decided != *current);
        }
    }
    assert!(syncs > 5000 && changes > 200, "{syncs} syncs, {changes} changes");
}
