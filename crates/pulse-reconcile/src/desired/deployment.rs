//! Builds the Deployment of a role.

use std::path::Path;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{ContainerPort, EnvVar, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_core::ResourceExt;
use pulse_core::defaults;
use pulse_crd::names::{self, REVISION, Role};
use pulse_crd::{
    ApiSpec, AuthSpec, ProbeTimes, Probes, PulseIngest, RetentionSpec, Revision, Rollout, TasksSpec, UserLimitsSpec,
};

use super::decisions;
use super::grace::{grace_seconds, worker_drain_seconds};
use super::pod::{Pod, PodProbes};
use super::secrets::{self, SecretFiles};
use super::service::client_port;
use crate::connections;

const PROGRESS_DEADLINE_SECONDS: i32 = 600;

/// # Errors
/// What is wrong with the pod template.
pub(super) fn deployment(
    cr: &PulseIngest,
    role: Role,
    revision: &Revision,
    secrets: Option<&String>,
    dev_reload: Option<&Path>,
) -> Result<Deployment, String> {
    let component = role.component();
    let mut metadata = names::metadata(cr, names::child(cr, component), component);
    let revision_text = serde_json::to_string(revision).unwrap_or_default();
    metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision_text);
    let mut pod = Pod::new(cr, component, &revision.image, vec![component.to_owned()]);
    pod.files = SecretFiles::of_role(cr, role);
    pod.env = env(cr, role, revision, &pod.files);
    pod.secrets = secrets;
    pod.dev_reload = dev_reload;
    pod.ports = ports(role);
    pod.probes = probes(cr, role);
    let grace_seconds = grace_seconds(cr, role);
    pod.grace_seconds = Some(grace_seconds);
    pod.connections = Some(connections::per_pod(&cr.spec, role));
    pod.config = (role == Role::Console).then(|| decisions::mount(cr));
    // With a budget, the next step of a rollout waits until what the last one stopped has ended: see `connections.rs`.
    let min_ready = cr.spec.database.max_connections_total.map(|_| grace_seconds.cast_signed());
    Ok(Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            selector: names::label_selector(&cr.name_any(), component),
            strategy: Some(strategy(cr, role)),
            min_ready_seconds: min_ready,
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS + min_ready.unwrap_or(0)),
            revision_history_limit: Some(3),
            // Owned by the operator, so that a pause by another client does not last.
            paused: Some(false),
            template: pod.build()?,
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    })
}

/// Of the schedulers, old and new, one is active. `connections.rs` relies on the default.
fn strategy(cr: &PulseIngest, role: Role) -> DeploymentStrategy {
    let Rollout { max_unavailable, max_surge } = match role {
        Role::Api => cr.spec.api.rollout.clone(),
        Role::Worker => cr.spec.workers.rollout.clone(),
        Role::Scheduler | Role::Console => Rollout::default(),
    };
    DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_unavailable: Some(max_unavailable),
            max_surge: Some(max_surge),
        }),
    }
}

/// Returns the environment variables of the role's flags.
fn env(cr: &PulseIngest, role: Role, revision: &Revision, files: &[SecretFiles]) -> Vec<EnvVar> {
    let mut env = vec![
        secrets::value("PULSE_INSTANCE", names::instance_id(cr)),
        secrets::value("PULSE_LOG_FORMAT", "json"),
        secrets::secret("PULSE_DATABASE_URL", &revision.database_url_secret_ref),
        secrets::secret("PULSE_REDIS_URL", &cr.spec.redis.url_secret_ref),
        // Set for every role, so that `podTemplate.env` cannot exceed `database.maxConnectionsTotal` unseen.
        secrets::value("PULSE_DATABASE_MAX_CONNECTIONS", connections::pool(&cr.spec, role).to_string()),
    ];
    env.extend(secrets::variables(cr, files));
    let TasksSpec { timeout_seconds, retry } = &cr.spec.tasks;
    match role {
        Role::Api => {
            env.push(secrets::value("PULSE_AUTO_PROVISION", cr.spec.auth.provisions_users().to_string()));
            env.extend(auth(cr));
            let ApiSpec { limits, cors_allow_origins: origins, docs, .. } = &cr.spec.api;
            // Only what differs from the flag's default, so that an upgrade of the operator restarts no pod.
            env.extend((*docs != defaults::DOCS).then(|| secrets::value("PULSE_DOCS", docs.to_string())));
            env.extend((!origins.is_empty()).then(|| secrets::value("PULSE_CORS_ALLOW_ORIGIN", origins.join(","))));
            env.extend([
                secrets::value("PULSE_MAX_BODY_BYTES", limits.max_body_bytes.to_string()),
                secrets::value("PULSE_MAX_EVENT_BYTES", limits.max_event_bytes.to_string()),
                secrets::value("PULSE_MAX_EVENT_DEPTH", limits.max_event_depth.to_string()),
                secrets::value("PULSE_MAX_BATCH", limits.max_batch.to_string()),
                secrets::value("PULSE_MAX_IN_FLIGHT", limits.max_in_flight.to_string()),
                secrets::value("PULSE_MAX_ATTEMPTS", retry.max_attempts.to_string()),
                // Set here, so that `podTemplate.env` cannot make the drain longer than the grace period.
                secrets::value("PULSE_DRAIN_DELAY", format!("{}s", cr.spec.api.drain_delay_seconds)),
            ]);
            env.extend(user_limits(&cr.spec.api.user_limits));
        }
        Role::Worker => env.extend([
            secrets::value("PULSE_CONCURRENCY", cr.spec.workers.concurrency.to_string()),
            secrets::value("PULSE_DRAIN_TIMEOUT", format!("{}s", worker_drain_seconds(&cr.spec.workers))),
            secrets::value("PULSE_TASK_TIMEOUT", format!("{timeout_seconds}s")),
            secrets::value("PULSE_RETRY_BASE", retry.base_seconds.to_string()),
            secrets::value("PULSE_RETRY_CAP", format!("{}s", retry.cap_seconds)),
            secrets::value("PULSE_RETRY_JITTER", retry.jitter_percent.to_string()),
        ]),
        Role::Console => {
            env.extend(auth(cr));
            env.extend(cr.spec.console.read_only.then(|| secrets::value("PULSE_READ_ONLY", "true")));
            env.push(secrets::value("PULSE_DECISIONS_FILE", decisions::path()));
        }
        Role::Scheduler => env.extend(retention(&cr.spec.retention)),
    }
    env
}

fn auth(cr: &PulseIngest) -> Vec<EnvVar> {
    let AuthSpec { jwks, issuer, audience, default_scopes, max_token_age_seconds, .. } = &cr.spec.auth;
    let mut env = Vec::new();
    env.extend(jwks.as_ref().map(|jwks| secrets::value("PULSE_JWKS_URL", &jwks.url)));
    env.extend(issuer.as_ref().map(|issuer| secrets::value("PULSE_JWT_ISSUER", issuer)));
    env.extend(audience.as_ref().map(|audience| secrets::value("PULSE_JWT_AUDIENCE", audience)));
    env.extend(default_scopes.as_ref().map(|scopes| secrets::value("PULSE_DEFAULT_SCOPES", scopes.join(","))));
    env.extend(max_token_age_seconds.map(|seconds| secrets::value("PULSE_MAX_TOKEN_AGE", format!("{seconds}s"))));
    env
}

fn retention(retention: &RetentionSpec) -> impl Iterator<Item = EnvVar> {
    let archive = retention.archive_url.as_ref().map(|url| secrets::value("PULSE_ARCHIVE", url));
    let days = [
        ("PULSE_RETAIN_EVENTS", retention.event_days),
        ("PULSE_RETAIN_HISTORY", retention.history_days),
        ("PULSE_RETAIN_DEAD_TASKS", retention.dead_task_days),
    ];
    days.into_iter().filter_map(|(name, days)| Some(secrets::value(name, format!("{}d", days?)))).chain(archive)
}

/// The rates are those of the instance: the API processes share them.
fn user_limits(limits: &UserLimitsSpec) -> Vec<EnvVar> {
    let mut env = vec![
        secrets::value("PULSE_USER_REQUESTS_PER_SECOND", limits.requests_per_second.to_string()),
        secrets::value("PULSE_USER_EVENTS_PER_SECOND", limits.events_per_second.to_string()),
        secrets::value("PULSE_USER_BYTES_PER_SECOND", limits.bytes_per_second.to_string()),
        secrets::value("PULSE_USER_MAX_LISTS", limits.max_lists.to_string()),
        secrets::value("PULSE_MAX_NEW_USERS_PER_MINUTE", limits.max_new_users_per_minute.to_string()),
    ];
    env.extend(limits.max_in_flight.map(|limit| secrets::value("PULSE_USER_MAX_IN_FLIGHT", limit.to_string())));
    env
}

fn ports(role: Role) -> Vec<ContainerPort> {
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(number),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    };
    let mut ports = vec![port("admin", defaults::ADMIN_PORT)];
    ports.extend(client_port(role).map(|number| port("http", number)));
    ports
}

fn probes(cr: &PulseIngest, role: Role) -> PodProbes {
    let Probes { startup, liveness, readiness } = match role {
        Role::Api => &cr.spec.api.probes,
        Role::Worker => &cr.spec.workers.probes,
        Role::Scheduler => &cr.spec.scheduler.probes,
        Role::Console => &cr.spec.console.probes,
    };
    let scheme = role.tls(&cr.spec).map(|_| "HTTPS");
    PodProbes {
        liveness: Some(probe("/livez", scheme, (10, 3), liveness.unwrap_or_default())),
        readiness: Some(probe("/readyz", scheme, (2, 2), readiness.unwrap_or_default())),
        startup: startup.map(|times| probe("/livez", scheme, (2, 30), times)),
    }
}

/// Returns a probe with the given times, where they are set. The kubelet verifies no certificate.
fn probe(path: &str, scheme: Option<&str>, (period_seconds, failures): (i32, i32), times: ProbeTimes) -> Probe {
    let ProbeTimes { initial_delay_seconds, period_seconds: period, timeout_seconds, failure_threshold } = times;
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            scheme: scheme.map(str::to_owned),
            port: IntOrString::String("admin".into()),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds: initial_delay_seconds.map(i32::from),
        period_seconds: Some(period.map_or(period_seconds, i32::from)),
        timeout_seconds: Some(timeout_seconds.map_or(3, i32::from)),
        failure_threshold: Some(failure_threshold.map_or(failures, i32::from)),
        ..Probe::default()
    }
}
