//! The semantics of NetworkPolicy, as its reference defines them: which endpoint may open a connection to which.
//!
//! Connections from a pod's own node are always allowed and not part of this. The policies are those of one namespace.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};

/// A pod, or an address outside of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) pod: Option<PodFacts>,
}

/// What selectors see of a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodFacts {
    pub(crate) namespace: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Names of its TCP ports.
    pub(crate) ports: BTreeMap<String, u16>,
}

/// A destination port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Port {
    Tcp(u16),
    Udp(u16),
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Ingress,
    Egress,
}

/// One rule of either direction.
struct Rule<'a> {
    peers: &'a [NetworkPolicyPeer],
    ports: &'a [NetworkPolicyPort],
}

/// The policies of a namespace.
pub(crate) struct Policies {
    pub(crate) namespace: String,
    pub(crate) policies: Vec<NetworkPolicy>,
}

impl Policies {
    /// Returns true if both ends allow a connection.
    pub(crate) fn allow(&self, from: &Endpoint, to: &Endpoint, port: Port) -> anyhow::Result<bool> {
        Ok(self.permit(Direction::Egress, from, to, to, port)?
            && self.permit(Direction::Ingress, to, from, to, port)?)
    }

    /// Returns true if no policy isolates `subject` in this direction, or a rule of one of those that do allows `peer`.
    fn permit(
        &self,
        direction: Direction,
        subject: &Endpoint,
        peer: &Endpoint,
        target: &Endpoint,
        port: Port,
    ) -> anyhow::Result<bool> {
        let Some(pod) = subject.pod.as_ref().filter(|pod| pod.namespace == self.namespace) else { return Ok(true) };
        let mut isolated = false;
        for policy in &self.policies {
            let spec = policy.spec.as_ref().context("the policy has no spec")?;
            if !selects(spec.pod_selector.as_ref(), &pod.labels)? || !applies(policy, direction) {
                continue;
            }
            isolated = true;
            for rule in rules(policy, direction) {
                let mut peers = rule.peers.iter().map(|allowed| self.is_peer(allowed, peer));
                let is_peer = rule.peers.is_empty() || peers.try_fold(false, |any, is| is.map(|is| any || is))?;
                if is_peer && (rule.ports.is_empty() || rule.ports.iter().any(|allowed| is_port(allowed, target, port)))
                {
                    return Ok(true);
                }
            }
        }
        Ok(!isolated)
    }

    fn is_peer(&self, allowed: &NetworkPolicyPeer, peer: &Endpoint) -> anyhow::Result<bool> {
        if let Some(block) = &allowed.ip_block {
            return in_block(block, peer.address);
        }
        let Some(pod) = &peer.pod else { return Ok(false) };
        let in_namespace = match &allowed.namespace_selector {
            None => pod.namespace == self.namespace,
            // The only label that every namespace has.
            selector => selects(
                selector.as_ref(),
                &BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), pod.namespace.clone())]),
            )?,
        };
        Ok(in_namespace && selects(allowed.pod_selector.as_ref(), &pod.labels)?)
    }
}

/// Whether a policy isolates in this direction: by its types, which default to ingress, and egress if it has such rules.
fn applies(policy: &NetworkPolicy, direction: Direction) -> bool {
    let Some(spec) = &policy.spec else { return false };
    let name = if direction == Direction::Ingress { "Ingress" } else { "Egress" };
    match &spec.policy_types {
        Some(types) => types.iter().any(|type_| type_ == name),
        None => direction == Direction::Ingress || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

fn rules(policy: &NetworkPolicy, direction: Direction) -> Vec<Rule<'_>> {
    let Some(spec) = &policy.spec else { return Vec::new() };
    match direction {
        Direction::Ingress => {
            let rules = spec.ingress.iter().flatten();
            rules.map(|rule| Rule { peers: slice(&rule.from), ports: slice(&rule.ports) }).collect()
        }
        Direction::Egress => {
            let rules = spec.egress.iter().flatten();
            rules.map(|rule| Rule { peers: slice(&rule.to), ports: slice(&rule.ports) }).collect()
        }
    }
}

fn slice<T>(list: &Option<Vec<T>>) -> &[T] {
    list.as_deref().unwrap_or_default()
}

/// A selector that is not set, or is empty, selects everything.
fn selects(selector: Option<&LabelSelector>, labels: &BTreeMap<String, String>) -> anyhow::Result<bool> {
    let selector: Selector = selector.cloned().unwrap_or_default().try_into()?;
    Ok(selector.matches(labels))
}

fn in_block(block: &IPBlock, address: IpAddr) -> anyhow::Result<bool> {
    let contains = |cidr: &String| anyhow::Ok(cidr.parse::<IpNet>()?.contains(&address));
    let mut excepted = false;
    for except in block.except.iter().flatten() {
        excepted |= contains(except)?;
    }
    Ok(contains(&block.cidr)? && !excepted)
}

fn is_port(allowed: &NetworkPolicyPort, target: &Endpoint, port: Port) -> bool {
    let (protocol, number) = match port {
        Port::Tcp(number) => ("TCP", number),
        Port::Udp(number) => ("UDP", number),
    };
    if allowed.protocol.as_deref().unwrap_or("TCP") != protocol {
        return false;
    }
    match &allowed.port {
        None => true,
        Some(IntOrString::Int(first)) => (*first..=allowed.end_port.unwrap_or(*first)).contains(&i32::from(number)),
        Some(IntOrString::String(name)) => target.pod.as_ref().is_some_and(|pod| pod.ports.get(name) == Some(&number)),
    }
}
