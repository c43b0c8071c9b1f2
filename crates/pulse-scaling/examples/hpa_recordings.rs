//! Prints recordings for `hpa-replay`, in JSON: the number of pods and the metric at each sync of the modelled
//! HorizontalPodAutoscaler. `scripts/hpa-recordings` adds what that of Kubernetes decides.
#![expect(clippy::print_stdout, reason = "a command-line program")]

use pulse_scaling::simulation::{Autoscaler, Hpa, Plant, Trace, builtin, run};
use serde::Serialize;

const SYNC_S: u32 = 15;
/// Syncs of each recording.
const SYNCS: usize = 240;

#[derive(Serialize)]
struct Recording {
    min: u32,
    max: u32,
    target: u32,
    syncs: Vec<(u32, u64)>,
}

struct Recorder<'r> {
    hpa: Hpa,
    metric: fn(&Plant<'_>) -> u64,
    recording: &'r std::cell::RefCell<Recording>,
}

impl Autoscaler for Recorder<'_> {
    fn decide(&mut self, plant: &Plant<'_>, current: u32) -> u32 {
        if !plant.now().is_multiple_of(SYNC_S) {
            return current;
        }
        let metric = (self.metric)(plant);
        self.recording.borrow_mut().syncs.push((current, metric));
        self.hpa.sync(plant.now(), current, metric as f64)
    }
}

fn record(trace: &Trace, target: u32, metric: fn(&Plant<'_>) -> u64) -> Recording {
    let (min, max) = (trace.min.max(1), trace.max);
    let recording = std::cell::RefCell::new(Recording { min, max, target, syncs: Vec::new() });
    let trace = Trace { workers: Some(min), ..trace.clone() };
    let recorder = |_: &Plant<'_>| -> Box<dyn Autoscaler> {
        Box::new(Recorder { hpa: Hpa::new(min, max, f64::from(target)), metric, recording: &recording })
    };
    run(&trace, 1, recorder, |_, _| {});
    let mut recording = recording.into_inner();
    recording.syncs.truncate(SYNCS);
    recording
}

fn main() -> anyhow::Result<()> {
    let traces = builtin();
    let mut recordings = Vec::new();
    for trace in &traces {
        recordings.push(record(trace, 5, |plant| plant.waiting()));
        recordings.push(record(trace, 13, |plant| plant.in_flight()));
        recordings.push(record(trace, 100, |plant| plant.waiting() + plant.in_flight()));
    }
    println!("{}", serde_json::to_string(&recordings)?);
    Ok(())
}
