//! Builds the Deployment of a role.

use std::path::Path;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{ContainerPort, EnvVar, HTTPGetAction, PodTemplateSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use pulse_core::defaults;

use super::pod::{self, Pod, SecretFile};
use crate::connections;
use crate::crd::{ApiSpec, AuthSpec, PodTemplate, PulseIngest, Resources, Revision, TasksSpec, UserLimitsSpec};
use crate::names::{self, CONNECTIONS, REVISION, Role, SECRETS};

/// Time that an API needs to terminate in addition to its drain.
const API_GRACE_SECONDS: u32 = 5;
/// Time that a worker needs to terminate in addition to its drain timeout.
const WORKER_GRACE_SECONDS: u32 = 15;
const PROGRESS_DEADLINE_SECONDS: i32 = 600;

pub(super) fn deployment(
    cr: &PulseIngest,
    role: Role,
    revision: &Revision,
    secrets: Option<&String>,
    dev_reload: Option<&Path>,
) -> Deployment {
    let instance = cr.name_any();
    let component = role.component();
    let (template, resources) = pod_settings(cr, role);
    let mut metadata = names::metadata(cr, names::child(cr, component), component);
    let revision_text = serde_json::to_string(revision).unwrap_or_default();
    metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision_text);
    let mut pod = Pod::new(cr, component, &revision.image, vec![component.to_owned()]);
    pod.env = env(cr, role, revision);
    pod.dev_reload = dev_reload;
    pod.template = Some(template);
    pod.resources = Some(resources);
    pod.ports = ports(role);
    pod.probes = Some((probe("/livez", 10, 3), probe("/readyz", 2, 2)));
    let grace_seconds = grace_seconds(cr, role);
    pod.grace_seconds = Some(i64::from(grace_seconds));
    pod.files.extend(SecretFile::public_key(cr).filter(|_| role == Role::Api));
    pod.files.extend(SecretFile::database_ca(cr));
    pod.files.extend(SecretFile::redis_ca(cr));
    // With a budget, the next step of a rollout waits until what the last one stopped has ended: see `connections.rs`.
    let min_ready = cr.spec.database.max_connections_total.map(|_| grace_seconds.cast_signed());
    let mut pod_metadata = pod::metadata(cr, component, Some(template));
    let annotations = pod_metadata.annotations.get_or_insert_default();
    annotations.insert(CONNECTIONS.to_owned(), connections::per_pod(&cr.spec, role).to_string());
    annotations.extend(secrets.map(|digest| (SECRETS.to_owned(), digest.clone())));
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            selector: names::label_selector(&instance, component),
            strategy: Some(strategy()),
            min_ready_seconds: min_ready,
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS + min_ready.unwrap_or(0)),
            revision_history_limit: Some(3),
            // Owned by the operator, so that a pause by another client does not last.
            paused: Some(false),
            template: PodTemplateSpec { metadata: Some(pod_metadata), spec: Some(pod.spec()) },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod_settings(cr: &PulseIngest, role: Role) -> (&PodTemplate, &Resources) {
    match role {
        Role::Api => (&cr.spec.api.pod_template, &cr.spec.api.resources),
        Role::Worker => (&cr.spec.workers.pod_template, &cr.spec.workers.resources),
        Role::Scheduler => (&cr.spec.scheduler.pod_template, &cr.spec.scheduler.resources),
    }
}

/// Returns the termination grace period: the drain that the role's variables set, and a reserve.
fn grace_seconds(cr: &PulseIngest, role: Role) -> u32 {
    match role {
        Role::Api => defaults::API_DRAIN_DELAY_SECONDS + defaults::API_DRAIN_TIMEOUT_SECONDS + API_GRACE_SECONDS,
        Role::Worker => cr.spec.workers.drain_timeout_seconds + WORKER_GRACE_SECONDS,
        Role::Scheduler => 30,
    }
}

/// Never fewer pods than wanted. Of the schedulers, old and new, one is active. `connections.rs` relies on the surge.
fn strategy() -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".into()),
        rolling_update: Some(RollingUpdateDeployment {
            max_unavailable: Some(IntOrString::Int(0)),
            max_surge: Some(IntOrString::String("25%".into())),
        }),
    }
}

/// Returns the environment variables of the role's flags.
fn env(cr: &PulseIngest, role: Role, revision: &Revision) -> Vec<EnvVar> {
    let mut env = vec![
        pod::value("PULSE_INSTANCE", names::instance_id(cr)),
        pod::value("PULSE_LOG_FORMAT", "json"),
        pod::secret("PULSE_DATABASE_URL", &revision.database_url_secret_ref),
        pod::secret("PULSE_REDIS_URL", &cr.spec.redis.url_secret_ref),
        // Set for every role, so that `podTemplate.env` cannot exceed `database.maxConnectionsTotal` unseen.
        pod::value("PULSE_DATABASE_MAX_CONNECTIONS", connections::pool(&cr.spec, role).to_string()),
    ];
    env.extend(SecretFile::database_ca(cr).map(SecretFile::variable));
    env.extend(SecretFile::redis_ca(cr).map(SecretFile::variable));
    let TasksSpec { timeout_seconds, retry } = &cr.spec.tasks;
    match role {
        Role::Api => {
            env.extend(auth(cr));
            let ApiSpec { limits, cors_allow_origins: origins, docs, .. } = &cr.spec.api;
            // Only what differs from the flag's default, so that an upgrade of the operator restarts no pod.
            env.extend((*docs != defaults::DOCS).then(|| pod::value("PULSE_DOCS", docs.to_string())));
            env.extend((!origins.is_empty()).then(|| pod::value("PULSE_CORS_ALLOW_ORIGIN", origins.join(","))));
            env.extend([
                pod::value("PULSE_MAX_BODY_BYTES", limits.max_body_bytes.to_string()),
                pod::value("PULSE_MAX_EVENT_BYTES", limits.max_event_bytes.to_string()),
                pod::value("PULSE_MAX_EVENT_DEPTH", limits.max_event_depth.to_string()),
                pod::value("PULSE_MAX_BATCH", limits.max_batch.to_string()),
                pod::value("PULSE_MAX_IN_FLIGHT", limits.max_in_flight.to_string()),
                pod::value("PULSE_MAX_ATTEMPTS", retry.max_attempts.to_string()),
                // Set here, so that `podTemplate.env` cannot make the drain longer than the grace period.
                pod::value("PULSE_DRAIN_DELAY", format!("{}s", defaults::API_DRAIN_DELAY_SECONDS)),
            ]);
            env.extend(user_limits(&cr.spec.api.user_limits));
        }
        Role::Worker => env.extend([
            pod::value("PULSE_CONCURRENCY", cr.spec.workers.concurrency.to_string()),
            pod::value("PULSE_DRAIN_TIMEOUT", format!("{}s", cr.spec.workers.drain_timeout_seconds)),
            pod::value("PULSE_TASK_TIMEOUT", format!("{timeout_seconds}s")),
            pod::value("PULSE_RETRY_BASE", retry.base_seconds.to_string()),
            pod::value("PULSE_RETRY_CAP", format!("{}s", retry.cap_seconds)),
            pod::value("PULSE_RETRY_JITTER", retry.jitter_percent.to_string()),
        ]),
        Role::Scheduler => {}
    }
    env
}

fn auth(cr: &PulseIngest) -> Vec<EnvVar> {
    let AuthSpec { jwt_secret_ref, public_key_secret_ref: _, issuer, audience, auto_provision } = &cr.spec.auth;
    let mut env = vec![pod::value("PULSE_AUTO_PROVISION", auto_provision.to_string())];
    env.extend(jwt_secret_ref.as_ref().map(|key| pod::secret("PULSE_JWT_SECRET", key)));
    env.extend(SecretFile::public_key(cr).map(SecretFile::variable));
    env.extend(issuer.as_ref().map(|issuer| pod::value("PULSE_JWT_ISSUER", issuer)));
    env.extend(audience.as_ref().map(|audience| pod::value("PULSE_JWT_AUDIENCE", audience)));
    env
}

/// The rates are those of the instance: the API processes share them.
fn user_limits(limits: &UserLimitsSpec) -> Vec<EnvVar> {
    let mut env = vec![
        pod::value("PULSE_USER_REQUESTS_PER_SECOND", limits.requests_per_second.to_string()),
        pod::value("PULSE_USER_EVENTS_PER_SECOND", limits.events_per_second.to_string()),
        pod::value("PULSE_USER_BYTES_PER_SECOND", limits.bytes_per_second.to_string()),
        pod::value("PULSE_USER_MAX_LISTS", limits.max_lists.to_string()),
        pod::value("PULSE_MAX_NEW_USERS_PER_MINUTE", limits.max_new_users_per_minute.to_string()),
    ];
    env.extend(limits.max_in_flight.map(|limit| pod::value("PULSE_USER_MAX_IN_FLIGHT", limit.to_string())));
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
    if role == Role::Api {
        ports.push(port("http", defaults::API_PORT));
    }
    ports
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("admin".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
