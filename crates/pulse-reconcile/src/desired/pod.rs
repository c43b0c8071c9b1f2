//! Builds the pods of all roles and Jobs. Without a pod template, they comply with the restricted Pod Security Standard.
//!
//! Lists are merged by name. The operator's items win, because the product does not work without them; everything else
//! is the user's.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, LocalObjectReference, PodSecurityContext, PodSpec, PodTemplateSpec,
    Probe, ResourceRequirements, SeccompProfile, SecurityContext, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube_core::ResourceExt;
use pulse_crd::names;
use pulse_crd::{PodTemplate, PulseIngest, Quantities, Resources};

use super::secrets::{SecretFiles, value};
use super::settings::pod_settings;
use super::template::Parts;
use super::volumes::{self, with_additional};

/// Name of the product's container in every pod.
pub const CONTAINER: &str = "pulse";
/// Development only: variable with the path at which newer builds are placed.
pub const DEV_RELOAD: &str = "PULSE_DEV_RELOAD";

/// Liveness, readiness and startup probe of a role.
#[derive(Default)]
pub(super) struct PodProbes {
    pub(super) liveness: Option<Probe>,
    pub(super) readiness: Option<Probe>,
    pub(super) startup: Option<Probe>,
}

/// Settings in which the pods differ.
pub(super) struct Pod<'a> {
    cr: &'a PulseIngest,
    component: &'a str,
    image: &'a str,
    args: Vec<String>,
    template: &'a PodTemplate,
    resources: &'a Resources,
    pub(super) env: Vec<EnvVar>,
    pub(super) ports: Vec<ContainerPort>,
    pub(super) probes: PodProbes,
    pub(super) grace_seconds: Option<u32>,
    pub(super) files: Vec<SecretFiles>,
    /// A ConfigMap that is mounted.
    pub(super) config: Option<(Volume, VolumeMount)>,
    /// Maximum number of connections to PostgreSQL.
    pub(super) connections: Option<u32>,
    /// Digest of the Secrets of which a change replaces the pod.
    pub(super) secrets: Option<&'a String>,
    /// Development only: path at which newer builds are placed.
    pub(super) dev_reload: Option<&'a Path>,
    /// Runs to completion: the pod is not restarted.
    pub(super) is_job: bool,
}

impl<'a> Pod<'a> {
    pub(super) fn new(cr: &'a PulseIngest, component: &'a str, image: &'a str, args: Vec<String>) -> Self {
        let (template, resources) = pod_settings(cr, component);
        Self {
            cr,
            component,
            image,
            args,
            template,
            resources,
            env: Vec::new(),
            ports: Vec::new(),
            probes: PodProbes::default(),
            grace_seconds: None,
            files: Vec::new(),
            config: None,
            connections: None,
            secrets: None,
            dev_reload: None,
            is_job: false,
        }
    }

    /// # Errors
    /// What is wrong with the pod template.
    pub(super) fn build(self) -> Result<PodTemplateSpec, String> {
        let parts = Parts::read(self.template)?;
        Ok(PodTemplateSpec { metadata: Some(self.metadata()), spec: Some(self.spec(parts)) })
    }

    /// The common labels and annotations of the spec, then those of the template, then those of the operator. The later
    /// ones win.
    fn metadata(&self) -> ObjectMeta {
        let mut labels = self.cr.spec.common_labels.clone();
        labels.extend(self.template.labels.clone());
        labels.extend(names::own_labels(&self.cr.name_any(), self.component));
        let mut annotations = names::common_annotations(self.cr).unwrap_or_default();
        annotations.extend(self.template.annotations.clone());
        let connections = self.connections.map(|connections| (names::CONNECTIONS.to_owned(), connections.to_string()));
        annotations.extend(connections);
        annotations.extend(self.secrets.map(|digest| (names::SECRETS.to_owned(), digest.clone())));
        ObjectMeta { labels: Some(labels), annotations: some(annotations), ..ObjectMeta::default() }
    }

    fn spec(self, parts: Parts) -> PodSpec {
        let Parts { affinity, volumes, init_containers, sidecars, pod_security_context, security_context } = parts;
        let init_containers: Vec<Container> = init_containers.into_iter().filter(|it| it.name != CONTAINER).collect();
        let files = self.files.iter().map(|file| (file.volume(), file.mount())).chain(self.config.clone()).collect();
        let (volumes, mounts) = volumes::volumes(files, self.dev_reload, self.template, volumes);
        let Self { cr, component, template, grace_seconds, is_job, .. } = self;
        let pull_secrets = cr.spec.image.pull_secrets.iter();
        let pull_secrets = pull_secrets.map(|secret| LocalObjectReference { name: secret.name.clone() });
        let account = &template.service_account;
        let name_of = |container: &Container| container.name.clone();
        PodSpec {
            automount_service_account_token: Some(account.automount_token),
            service_account_name: Some(account.name.clone().unwrap_or_else(|| names::child(cr, component))),
            enable_service_links: Some(false),
            restart_policy: Some(if is_job { "Never" } else { "Always" }.into()),
            security_context: Some(merged(restricted_pod(), pod_security_context)),
            termination_grace_period_seconds: grace_seconds.map(i64::from),
            image_pull_secrets: some(pull_secrets.collect::<Vec<_>>()),
            node_selector: some(template.node_selector.clone()),
            tolerations: some(template.tolerations.clone()),
            affinity,
            topology_spread_constraints: some(spread(cr, component, template)),
            priority_class_name: template.priority_class_name.clone(),
            runtime_class_name: template.runtime_class_name.clone(),
            scheduler_name: template.scheduler_name.clone(),
            dns_policy: template.dns_policy.clone(),
            dns_config: template.dns_config.clone(),
            host_aliases: some(template.host_aliases.clone()),
            volumes: some(volumes),
            init_containers: some(init_containers),
            containers: with_additional(vec![self.container(mounts, security_context)], sidecars, name_of),
            ..PodSpec::default()
        }
    }

    fn container(self, mounts: Vec<VolumeMount>, security_context: Option<SecurityContext>) -> Container {
        let Self { cr, image, args, mut env, template, resources, ports, probes, dev_reload, .. } = self;
        let PodProbes { liveness, readiness, startup } = probes;
        env.extend(dev_reload.map(|file| value(DEV_RELOAD, file.display().to_string())));
        Container {
            name: CONTAINER.into(),
            image: Some(image.to_owned()),
            image_pull_policy: Some(cr.spec.image.pull_policy.as_str().to_owned()),
            args: Some(args),
            env: Some(with_additional(env, template.env.clone(), |variable| variable.name.clone())),
            env_from: some(template.env_from.clone()),
            ports: some(ports),
            resources: Some(requirements(resources)),
            liveness_probe: liveness,
            readiness_probe: readiness,
            startup_probe: startup,
            security_context: Some(merged(restricted_container(), security_context)),
            termination_message_policy: Some("FallbackToLogsOnError".into()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }
    }
}

/// Returns the collection unless it is empty.
fn some<T: Default + PartialEq>(items: T) -> Option<T> {
    (items != T::default()).then_some(items)
}

/// Sets the fields that the user has set.
fn merged<T: DeepMerge>(mut ours: T, users: Option<T>) -> T {
    if let Some(users) = users {
        ours.merge_from(users);
    }
    ours
}

/// User and group are those of the image: a cluster may prescribe others.
fn restricted_pod() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
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
    let amounts = |quantities: &Quantities| {
        let amounts = quantities.iter().map(|(name, amount)| (name.clone(), quantity(amount)));
        some(amounts.collect::<BTreeMap<_, _>>())
    };
    let Resources { requests, limits } = resources;
    ResourceRequirements { requests: amounts(requests), limits: amounts(limits), ..ResourceRequirements::default() }
}

fn quantity(amount: &IntOrString) -> Quantity {
    match amount {
        IntOrString::Int(number) => Quantity(number.to_string()),
        IntOrString::String(text) => Quantity(text.clone()),
    }
}

fn spread(cr: &PulseIngest, component: &str, template: &PodTemplate) -> Vec<TopologySpreadConstraint> {
    let mut constraints = template.topology_spread_constraints.clone();
    for constraint in &mut constraints {
        constraint.label_selector.get_or_insert_with(|| names::label_selector(&cr.name_any(), component));
    }
    constraints
}
