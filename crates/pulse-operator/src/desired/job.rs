//! The Job that plans or carries out a migration: created once under a name made of all its inputs, never changed.

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::pod::{self, Pod, SecretFile};
use crate::crd::{PulseIngest, Revision};
use crate::names;

/// What a Job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Find out what would be done.
    Plan,
    /// Do it.
    Migrate,
}

impl JobKind {
    /// The middle of the Job's name.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Migrate => "migrate",
        }
    }
}

/// A Job that should run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRequest {
    /// `<cr>-<plan|migrate>-<hash of all inputs>`.
    pub name: String,
    /// What for.
    pub kind: JobKind,
    /// For which revision.
    pub revision: Revision,
    /// What the binary is told.
    pub args: Vec<String>,
}

/// The first and last exit code that no retry can change, see OPERATIONS.md.
pub(crate) const FINAL_EXIT_CODES: std::ops::RangeInclusive<i32> = 20..=25;
/// `pulse migrate` ends itself this long before the Job's deadline: afterwards its pod and its last line are gone.
const MARGIN_SECONDS: u32 = 30;

pub(super) fn job(cr: &PulseIngest, request: &JobRequest) -> Job {
    let JobRequest { name, kind: _, revision, args } = request;
    let deadline = cr.spec.migrations.active_deadline_seconds;
    let placement = cr.spec.scheduler.pod_template.placement();
    let mut pod = Pod::new(cr, names::MIGRATION, &revision.image, args.clone());
    pod.once = true;
    pod.resources = Some(&cr.spec.scheduler.resources);
    pod.more = Some(&placement);
    pod.env = vec![
        pod::value("PULSE_INSTANCE", names::instance_id(cr)),
        pod::value("PULSE_LOG_FORMAT", "json"),
        pod::value("PULSE_IMAGE", &revision.image),
        pod::value("PULSE_TIME_LIMIT", format!("{}s", deadline - MARGIN_SECONDS)),
        pod::value("PULSE_RESULT_FILE", "/dev/termination-log"),
        pod::secret("PULSE_DATABASE_URL", &revision.database_url_secret_ref),
    ];
    pod.env.extend(SecretFile::database_ca(cr).map(SecretFile::variable));
    pod.files.extend(SecretFile::database_ca(cr));
    Job {
        metadata: names::metadata(cr, name.clone(), names::MIGRATION),
        spec: Some(JobSpec {
            backoff_limit: Some(3),
            active_deadline_seconds: Some(i64::from(deadline)),
            pod_replacement_policy: Some("Failed".into()),
            pod_failure_policy: Some(failure_policy()),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(names::labels(&cr.name_any(), names::MIGRATION)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod.spec()),
            },
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

/// Evictions do not count; an exit code that no retry can change ends the Job.
fn failure_policy() -> PodFailurePolicy {
    let rule = |action: &str| PodFailurePolicyRule { action: action.into(), ..PodFailurePolicyRule::default() };
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".into(),
                    status: "True".into(),
                }]),
                ..rule("Ignore")
            },
            PodFailurePolicyRule {
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(pod::CONTAINER.into()),
                    operator: "In".into(),
                    values: FINAL_EXIT_CODES.collect(),
                }),
                ..rule("FailJob")
            },
        ],
    }
}
