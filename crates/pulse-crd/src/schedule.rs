//! A time with another minimum number of workers.
#![expect(unreachable_pub, reason = "the derive for CEL rules generates types inside functions")]

use kube_derive::KubeSchema;
use serde::{Deserialize, Serialize};

/// Minimum number of workers from each start to the next end.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    crates(kube_core = "::kube_core"),
    validation = (
        "[self.start, self.end].all(time, time.matches('^[0-9A-Za-z*,/#-]+( [0-9A-Za-z*,/#-]+){4}$'))",
        "start and end must be cron expressions of five fields: minute, hour, day of the month, month and day of the week, \
         such as '0 8 * * 1-5'"
    )
)]
pub struct ScheduleSpec {
    /// Start of the time, as a cron expression of five fields: minute, hour, day of the month, month and day of the week.
    #[schemars(length(max = 128))]
    pub start: String,
    /// End of the time, as a cron expression of five fields.
    #[schemars(length(max = 128))]
    pub end: String,
    /// Time zone of both, by its name in the IANA database, such as `Europe/Berlin`. Defaults to `UTC`.
    #[serde(default = "utc")]
    #[schemars(length(max = 64), pattern("^[A-Za-z][A-Za-z0-9_+/-]*$"))]
    pub time_zone: String,
    /// Minimum number of workers during this time. The highest of all minima applies.
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: u32,
}

fn utc() -> String {
    "UTC".into()
}
