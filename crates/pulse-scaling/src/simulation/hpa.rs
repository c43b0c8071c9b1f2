//! The part of Kubernetes' HorizontalPodAutoscaler that KEDA uses: one external metric with a target per pod, and the
//! default behavior as documented. `tests/hpa.rs` compares it with the controller of Kubernetes.

/// Default of `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;
/// Default stabilization window for scaling down, in seconds.
const DOWN_WINDOW_S: u32 = 300;
/// Default scaling policies: per period in seconds, the larger of so many percent and so many pods is added; all may be
/// removed.
const PERIOD_S: u32 = 15;
const UP_PERCENT: f64 = 100.0;
const UP_PODS: i64 = 4;

/// A HorizontalPodAutoscaler with its defaults.
#[derive(Debug, Clone)]
pub struct Hpa {
    min: u32,
    max: u32,
    target: f64,
    recommendations: Vec<(u32, u32)>,
    changes: Vec<(u32, i64)>,
}

impl Hpa {
    /// Between `min` and `max` pods, with `target` of the metric per pod.
    pub fn new(min: u32, max: u32, target: f64) -> Self {
        Self { min, max, target, recommendations: Vec::new(), changes: Vec::new() }
    }

    /// Decides at `now` (in seconds) from the sum of the metric.
    pub fn sync(&mut self, now: u32, current: u32, metric: f64) -> u32 {
        let desired = if current == 0 {
            return 0;
        } else if current > self.max {
            self.max
        } else if current < self.min {
            self.min
        } else {
            let recommended = self.recommended(current, metric);
            let stabilized = self.stabilized(now, current, recommended);
            self.limited(now, current, stabilized)
        };
        if desired != current {
            self.changes.push((now, i64::from(desired) - i64::from(current)));
            self.changes.retain(|(at, _)| now - at < 2 * PERIOD_S);
        }
        desired
    }

    /// Number of pods for the metric: the replica calculator of Kubernetes.
    pub fn recommended(&self, current: u32, metric: f64) -> u32 {
        let ratio = metric / (self.target * f64::from(current));
        let is_tolerated = (1.0 - TOLERANCE..=1.0 + TOLERANCE).contains(&ratio);
        if is_tolerated { current } else { (metric / self.target).ceil() as u32 }
    }

    /// The highest recommendation of the window bounds scaling down.
    fn stabilized(&mut self, now: u32, current: u32, recommended: u32) -> u32 {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
        let recent = self.recommendations.iter().filter(|(at, _)| now - at < DOWN_WINDOW_S);
        let highest = recent.map(|(_, count)| *count).chain([recommended]).max().unwrap_or(recommended);
        self.recommendations.retain(|(at, _)| now - at < DOWN_WINDOW_S);
        self.recommendations.push((now, recommended));
        // Scaling up has no window.
        current.max(recommended).min(highest)
    }

    fn limited(&self, now: u32, current: u32, desired: u32) -> u32 {
        let bounded = desired.clamp(self.min, self.max);
        if bounded <= current {
            return bounded;
        }
        let recent = self.changes.iter().filter(|(at, _)| now - at < PERIOD_S);
        let start = i64::from(current) - recent.map(|(_, change)| change).sum::<i64>();
        let percent = (start as f64 * (1.0 + UP_PERCENT / 100.0)).ceil() as i64;
        let most = percent.max(start + UP_PODS).max(i64::from(current));
        bounded.min(u32::try_from(most).unwrap_or(u32::MAX))
    }
}
