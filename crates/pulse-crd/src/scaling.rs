//! The scaling rules of the spec, as `pulse-scaling` takes them.

use pulse_scaling as rules;

use crate::{AutoscalingPause, Behavior, ScalingRules, Target};

impl From<Target> for rules::Target {
    fn from(target: Target) -> Self {
        let Target { backlog_per_worker, drain_seconds, max_age_seconds } = target;
        Self { backlog_per_worker, drain_seconds, max_age_seconds }
    }
}

impl From<Behavior> for rules::Behavior {
    fn from(behavior: Behavior) -> Self {
        let Behavior { tolerance_percent, scale_up, scale_down } = behavior;
        Self { tolerance_percent, scale_up: scale_up.into(), scale_down: scale_down.into() }
    }
}

impl From<ScalingRules> for rules::ScalingRules {
    fn from(rules: ScalingRules) -> Self {
        let ScalingRules { stabilization_window_seconds, percent, workers, period_seconds } = rules;
        Self { stabilization_window_seconds, percent, workers, period_seconds }
    }
}

impl From<AutoscalingPause> for rules::Pause {
    fn from(pause: AutoscalingPause) -> Self {
        match pause {
            AutoscalingPause::None => Self::None,
            AutoscalingPause::All => Self::All,
            AutoscalingPause::ScaleUp => Self::ScaleUp,
            AutoscalingPause::ScaleDown => Self::ScaleDown,
        }
    }
}
