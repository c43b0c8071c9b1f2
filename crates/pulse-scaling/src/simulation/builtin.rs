//! The traces of `docs/concepts/scaling.md`.

use std::f64::consts::TAU;

use super::trace::{Failures, NodeLoss, Service, Trace};

/// A worker with 16 slots completes 50 of these per second.
const FAST: Service = Service::Fixed { value: 0.32 };
const HOUR: u32 = 3600;

/// The traces, in the order of the table.
pub fn builtin() -> Vec<Trace> {
    let mut traces = fast();
    traces.extend(slow());
    traces.extend(unreliable());
    traces
}

fn fast() -> Vec<Trace> {
    let bursts = |t: f64| if t % 600.0 < 30.0 { 500.0 } else { 2.0 };
    let once = |t: f64| if t == 1800.0 { 30_000.0 } else { 0.0 };
    vec![
        Trace::new("spike, 20 to 800/s for 5 min", FAST, HOUR, step(20.0, 800.0, 600.0..900.0)),
        Trace::new("day, 10 to 390/s in 6 h", FAST, 6 * HOUR, |t| 200.0 - 190.0 * libm::cos(t / 21_600.0 * TAU)),
        Trace::new("ramp, 0 to 1200/s in 30 min", FAST, HOUR, |t| 1200.0 * (t / 1800.0).min(1.0)),
        Trace::new("bursts, 15,000 every 10 min", FAST, 2 * HOUR, bursts),
        Trace::new("flash crowd, 20 to 1000/s", FAST, HOUR, step(20.0, 1000.0, 600.0..1500.0)),
        Trace::new("sawtooth, 20 or 400/s for 3 min", FAST, 2 * HOUR, |t| if t % 360.0 < 180.0 { 20.0 } else { 400.0 }),
        Trace { min: 0, ..Trace::new("trickle, 1 in 100 s, from zero", FAST, 4 * HOUR, |_| 0.01) },
        Trace { min: 0, ..Trace::new("30,000 at once, from zero", FAST, HOUR, once) },
    ]
}

fn slow() -> Vec<Trace> {
    let mix = Service::Mix { parts: vec![(0.99, 0.2), (0.01, 120.0)] };
    let slower = Service::Change { before: 0.1, after: 30.0, at: 1800 };
    vec![
        Trace::new("30 s each, 6/s", Service::Fixed { value: 30.0 }, HOUR, |_| 6.0),
        Trace::new("300 s each, 1/s", Service::Fixed { value: 300.0 }, 2 * HOUR, |_| 1.0),
        Trace::new("0.1 s each, and 30 s after 30 min, 4/s", slower, HOUR, |_| 4.0),
        Trace::new("mix of 0.2 s and 1 % of 120 s, 20 to 200/s", mix, 2 * HOUR, step(20.0, 200.0, 1800.0..5400.0)),
    ]
}

fn unreliable() -> Vec<Trace> {
    let second = || Service::Exp { mean: 1.0 };
    vec![
        Trace {
            workers: Some(14),
            failures: vec![Failures { from: 600, to: 1200 }],
            max_attempts: 10,
            retry_cap_s: 600,
            ..Trace::new("all fail for 10 min, 5 s each, 40/s", Service::Fixed { value: 5.0 }, 5400, |_| 40.0)
        },
        Trace {
            workers: Some(16),
            node_losses: vec![NodeLoss { at: 1800, share: 0.33, replaced_after_s: 340 }],
            ..Trace::new("a third of the nodes lost, 1 s each, 200/s", second(), HOUR, |_| 200.0)
        },
        Trace {
            start_s: 60,
            ..Trace::new("workers start in 60 s, 1 s each, 20 to 300/s", second(), 2 * HOUR, |t| {
                160.0 - 140.0 * libm::cos(t / 2400.0 * TAU)
            })
        },
    ]
}

/// A rate that is `high` for some time, and else `low`.
fn step(low: f64, high: f64, when: std::ops::Range<f64>) -> impl Fn(f64) -> f64 {
    move |t| if when.contains(&t) { high } else { low }
}
