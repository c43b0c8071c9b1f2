//! Builds the pods of all roles and Jobs, which comply with the restricted Pod Security Standard.

use std::path::Path;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, KeyToPath,
    LocalObjectReference, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector,
    SecretVolumeSource, SecurityContext, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::crd::{PodTemplate, PulseIngest, Quantities, Resources, SecretKey, Unsatisfiable};
use crate::names;

/// Name of the container of every pod.
pub(crate) const CONTAINER: &str = "pulse";
/// Development only: variable with the path at which newer builds are placed.
pub(crate) const DEV_RELOAD: &str = "PULSE_DEV_RELOAD";
/// User and group id of the image's unprivileged user.
const USER: i64 = 65532;

/// A Secret key that is mounted as a file, and the variable with its path.
#[derive(Clone, Copy)]
pub(super) struct SecretFile<'a> {
    variable: &'static str,
    /// Name of the volume, and of its directory below `/etc/pulse`.
    volume: &'static str,
    file: &'static str,
    key: &'a SecretKey,
}

impl<'a> SecretFile<'a> {
    /// The public key of tokens.
    pub(super) fn public_key(cr: &'a PulseIngest) -> Option<Self> {
        let key = cr.spec.auth.public_key_secret_ref.as_ref()?;
        Some(Self { variable: "PULSE_JWT_PUBLIC_KEY_FILE", volume: "auth", file: "public.pem", key })
    }

    /// The CA of PostgreSQL.
    pub(super) fn database_ca(cr: &'a PulseIngest) -> Option<Self> {
        let key = cr.spec.database.ca_secret_ref.as_ref()?;
        Some(Self { variable: "PULSE_DATABASE_CA_FILE", volume: "database-ca", file: "ca.crt", key })
    }

    /// The CA of Redis.
    pub(super) fn redis_ca(cr: &'a PulseIngest) -> Option<Self> {
        let key = cr.spec.redis.ca_secret_ref.as_ref()?;
        Some(Self { variable: "PULSE_REDIS_CA_FILE", volume: "redis-ca", file: "ca.crt", key })
    }

    /// Returns the variable with the path of the file.
    pub(super) fn variable(self) -> EnvVar {
        value(self.variable, format!("{}/{}", self.directory(), self.file))
    }

    fn directory(self) -> String {
        format!("/etc/pulse/{}", self.volume)
    }

    /// Mounts this key only, not the other keys of the Secret.
    fn volume(self) -> Volume {
        let SecretKey { name, key } = self.key.clone();
        let items = vec![KeyToPath { key, path: self.file.into(), mode: None }];
        let source =
            SecretVolumeSource { secret_name: Some(name), items: Some(items), ..SecretVolumeSource::default() };
        Volume { name: self.volume.into(), secret: Some(source), ..Volume::default() }
    }

    fn mount(self) -> VolumeMount {
        let (name, mount_path) = (self.volume.into(), self.directory());
        VolumeMount { name, mount_path, read_only: Some(true), ..VolumeMount::default() }
    }
}

/// Returns the labels and annotations of a component's pods: the common ones of the spec, then those of the template,
/// then those of the operator. The later ones win.
pub(super) fn metadata(cr: &PulseIngest, component: &str, template: Option<&PodTemplate>) -> ObjectMeta {
    let mut labels = cr.spec.common_labels.clone();
    let mut annotations = names::common_annotations(cr).unwrap_or_default();
    if let Some(template) = template {
        labels.extend(template.labels.clone());
        annotations.extend(template.annotations.clone());
    }
    labels.extend(names::own_labels(&cr.name_any(), component));
    ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        ..ObjectMeta::default()
    }
}

/// Settings in which the pods differ.
pub(super) struct Pod<'a> {
    cr: &'a PulseIngest,
    component: &'a str,
    image: &'a str,
    args: Vec<String>,
    pub(super) env: Vec<EnvVar>,
    pub(super) template: Option<&'a PodTemplate>,
    pub(super) resources: Option<&'a Resources>,
    pub(super) ports: Vec<ContainerPort>,
    /// Liveness and readiness probe.
    pub(super) probes: Option<(Probe, Probe)>,
    pub(super) grace_seconds: Option<i64>,
    pub(super) files: Vec<SecretFile<'a>>,
    /// Development only: path at which newer builds are placed.
    pub(super) dev_reload: Option<&'a Path>,
    /// Runs to completion: the pod is not restarted.
    pub(super) is_job: bool,
}

impl<'a> Pod<'a> {
    pub(super) fn new(cr: &'a PulseIngest, component: &'a str, image: &'a str, args: Vec<String>) -> Self {
        Self {
            cr,
            component,
            image,
            args,
            env: Vec::new(),
            template: None,
            resources: None,
            ports: Vec::new(),
            probes: None,
            grace_seconds: None,
            files: Vec::new(),
            dev_reload: None,
            is_job: false,
        }
    }

    pub(super) fn spec(self) -> PodSpec {
        let builds = self.dev_reload.and_then(Path::parent).map(build_volume);
        let volumes = self.files.iter().map(|file| (file.volume(), file.mount())).chain(builds);
        let (volumes, mounts): (Vec<Volume>, Vec<VolumeMount>) = volumes.unzip();
        let Self { cr, component, template, grace_seconds, is_job, .. } = self;
        let pull_secrets = cr.spec.image.pull_secrets.iter();
        let pull_secrets: Vec<LocalObjectReference> =
            pull_secrets.map(|secret| LocalObjectReference { name: secret.name.clone() }).collect();
        PodSpec {
            containers: vec![self.container(mounts)],
            service_account_name: Some(names::child(cr, component)),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some(if is_job { "Never" } else { "Always" }.into()),
            security_context: Some(restricted_pod()),
            termination_grace_period_seconds: grace_seconds,
            image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
            node_selector: template.map(|template| template.node_selector.clone()).filter(|labels| !labels.is_empty()),
            tolerations: template.map(tolerations).filter(|tolerations| !tolerations.is_empty()),
            topology_spread_constraints: template
                .map(|template| spread(cr, component, template))
                .filter(|constraints| !constraints.is_empty()),
            priority_class_name: template.and_then(|template| template.priority_class_name.clone()),
            volumes: (!volumes.is_empty()).then_some(volumes),
            ..PodSpec::default()
        }
    }

    fn container(self, mounts: Vec<VolumeMount>) -> Container {
        let Self { cr, image, args, env, template, resources, ports, probes, dev_reload, .. } = self;
        let (liveness, readiness) = probes.unzip();
        Container {
            name: CONTAINER.into(),
            image: Some(image.to_owned()),
            image_pull_policy: Some(cr.spec.image.pull_policy.as_str().to_owned()),
            args: Some(args),
            env: Some(with_additional(env, dev_reload, template)),
            ports: (!ports.is_empty()).then_some(ports),
            resources: resources.map(requirements),
            liveness_probe: liveness,
            readiness_probe: readiness,
            security_context: Some(restricted_container()),
            termination_message_policy: Some("FallbackToLogsOnError".into()),
            volume_mounts: (!mounts.is_empty()).then_some(mounts),
            ..Container::default()
        }
    }
}

/// Adds the variables of the template that the operator does not set itself.
fn with_additional(mut env: Vec<EnvVar>, dev_reload: Option<&Path>, template: Option<&PodTemplate>) -> Vec<EnvVar> {
    env.extend(dev_reload.map(|file| value(DEV_RELOAD, file.display().to_string())));
    let managed: Vec<String> = env.iter().map(|variable| variable.name.clone()).collect();
    let additional = template.into_iter().flat_map(|template| &template.env);
    let additional = additional.filter(|variable| !managed.contains(&variable.name));
    env.extend(additional.map(|variable| value(&variable.name, &variable.value)));
    env
}

/// Returns a variable with a literal value.
pub(super) fn value(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), ..EnvVar::default() }
}

/// Returns a variable with the value of a Secret key.
pub(super) fn secret(name: &str, key: &SecretKey) -> EnvVar {
    let SecretKey { name: secret, key } = key.clone();
    let selector = SecretKeySelector { name: secret, key, optional: None };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    EnvVar { name: name.into(), value_from: Some(source), ..EnvVar::default() }
}

fn restricted_pod() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn restricted_container() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
        ..SecurityContext::default()
    }
}

fn requirements(resources: &Resources) -> ResourceRequirements {
    let Resources { requests, limits } = resources;
    let amounts = |quantities: &Quantities| {
        let amounts = quantities.iter().map(|(name, amount)| (name.clone(), quantity(amount)));
        Some(amounts.collect::<std::collections::BTreeMap<_, _>>()).filter(|amounts| !amounts.is_empty())
    };
    ResourceRequirements { requests: amounts(requests), limits: amounts(limits), ..ResourceRequirements::default() }
}

fn quantity(amount: &IntOrString) -> Quantity {
    match amount {
        IntOrString::Int(number) => Quantity(number.to_string()),
        IntOrString::String(text) => Quantity(text.clone()),
    }
}

fn tolerations(template: &PodTemplate) -> Vec<Toleration> {
    let tolerations = template.tolerations.iter().map(|toleration| {
        let crate::crd::Toleration { key, operator, value, effect, toleration_seconds } = toleration.clone();
        Toleration { key, operator, value, effect, toleration_seconds }
    });
    tolerations.collect()
}

fn spread(cr: &PulseIngest, component: &str, template: &PodTemplate) -> Vec<TopologySpreadConstraint> {
    let constraints = template.topology_spread.iter().map(|spread| TopologySpreadConstraint {
        max_skew: spread.max_skew,
        topology_key: spread.topology_key.clone(),
        when_unsatisfiable: match spread.when_unsatisfiable {
            Unsatisfiable::DoNotSchedule => "DoNotSchedule".into(),
            Unsatisfiable::ScheduleAnyway => "ScheduleAnyway".into(),
        },
        label_selector: Some(names::label_selector(&cr.name_any(), component)),
        ..TopologySpreadConstraint::default()
    });
    constraints.collect()
}

/// Returns an empty volume for development builds. It survives a restart of the container.
fn build_volume(directory: &Path) -> (Volume, VolumeMount) {
    let name = "dev-bin";
    let empty = Some(EmptyDirVolumeSource::default());
    let volume = Volume { name: name.into(), empty_dir: empty, ..Volume::default() };
    let mount =
        VolumeMount { name: name.into(), mount_path: directory.display().to_string(), ..VolumeMount::default() };
    (volume, mount)
}
