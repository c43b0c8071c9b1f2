//! Traces that nothing is tuned on: drawn by seed.

use std::f64::consts::TAU;

use super::chance::Chance;
use super::trace::{Failures, NodeLoss, Service, Trace};

/// Seeds of the traces in `docs/concepts/scaling.md`. Choose others to tune a rule.
pub const RANDOM_SEEDS: std::ops::RangeInclusive<u64> = 1..=20;

/// A trace of two hours, with everything drawn from `seed`: the shape of the arrivals, the times of attempts, the time
/// that workers take to start, the target, and what fails. Its highest load needs at most 70 % of the slots.
pub fn random(seed: u64) -> Trace {
    let mut chance = Chance::new(0xda7a ^ (seed << 16));
    let service_s = service(&mut chance);
    let seconds = 7200;
    let slots = 16;
    let most = chance.magnitude(3.0, 28.0) * f64::from(slots) / mean(&service_s);
    let least = most * chance.between(0.02, 0.6);
    let shape = shape(&mut chance, least, most.min(1500.0));
    let mut trace = Trace::new(&format!("random {seed}"), service_s, seconds, shape.1);
    trace.min = if chance.unit() < 0.25 { 0 } else { 1 + (chance.unit() * 3.0) as u32 };
    trace.start_s = chance.magnitude(2.0, 45.0) as u32;
    trace.target_age_s = [30, 60, 60, 120, 300][(chance.unit() * 5.0) as usize];
    trace.name = format!("{seed}: {}, {}", shape.0, describe(&trace));
    if chance.unit() < 0.2 {
        let from = chance.between(1200.0, 4000.0) as u32;
        trace.failures = vec![Failures { from, to: from + chance.between(60.0, 600.0) as u32 }];
        trace.name += ", failures";
    }
    if chance.unit() < 0.2 {
        let at = chance.between(1200.0, 6000.0) as u32;
        trace.node_losses = vec![NodeLoss { at, share: chance.between(0.1, 0.5), replaced_after_s: 340 }];
        trace.name += ", node loss";
    }
    trace
}

fn service(chance: &mut Chance) -> Service {
    let mean = chance.magnitude(0.05, 120.0);
    match (chance.unit() * 3.0) as u32 {
        0 => Service::Fixed { value: mean },
        1 => Service::Exp { mean },
        _ => {
            let rare = chance.between(0.005, 0.1);
            Service::Mix { parts: vec![(1.0 - rare, mean), (rare, mean * chance.between(5.0, 30.0))] }
        }
    }
}

fn mean(service: &Service) -> f64 {
    match service {
        Service::Fixed { value } => *value,
        Service::Exp { mean } => *mean,
        Service::Mix { parts } => parts.iter().map(|(part, time)| part * time).sum(),
        Service::Change { after, .. } => *after,
    }
}

fn describe(trace: &Trace) -> String {
    let kind = match &trace.service_s {
        Service::Fixed { .. } => "fixed",
        Service::Exp { .. } => "exp",
        Service::Mix { .. } => "mix",
        Service::Change { .. } => "change",
    };
    let Trace { start_s, target_age_s, min, .. } = trace;
    format!("{kind} {:.2} s, start {start_s} s, target {target_age_s} s, min {min}", mean(&trace.service_s))
}

type Rate = Box<dyn Fn(f64) -> f64>;

/// A shape of arrivals per second between two rates, with its name.
fn shape(chance: &mut Chance, least: f64, most: f64) -> (&'static str, Rate) {
    let period = chance.magnitude(300.0, 3600.0);
    let start = chance.between(300.0, 3000.0);
    let end = start + chance.magnitude(120.0, 3600.0);
    let length = chance.magnitude(10.0, 120.0);
    match (chance.unit() * 6.0) as u32 {
        0 => ("constant", Box::new(move |_| most)),
        1 => ("step", Box::new(move |t| if (start..end).contains(&t) { most } else { least })),
        2 => ("wave", Box::new(move |t| (most + least) / 2.0 - (most - least) / 2.0 * libm::cos(t / period * TAU))),
        3 => ("ramp", Box::new(move |t| least + (most - least) * ((t - start) / (end - start)).clamp(0.0, 1.0))),
        4 => ("bursts", Box::new(move |t| if t % period < length { most } else { least })),
        _ => ("square", Box::new(move |t| if t % period < period / 2.0 { most } else { least })),
    }
}
