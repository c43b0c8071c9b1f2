//! What there is, as far as the person may see it. I/O: `get` of the object, and lists; nothing is written.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Plugin, PluginError};
use crate::apply::api_message;
use crate::crd::PulseIngest;
use crate::names;

/// So many names are offered for one that does not exist.
const NEAR: usize = 5;
/// Above this, two names have more in common than not.
const ALIKE: f64 = 0.7;
/// Events are many; the newest page is enough for a person.
const EVENTS: u32 = 500;

/// A part of an answer, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Section<T> {
    /// It was read.
    Read(T),
    /// It was not: which right is missing, or what went wrong.
    Unread {
        /// A sentence.
        unread: String,
    },
}

impl<T> Section<T> {
    /// Makes something else of what was read.
    pub(super) fn map<U>(&self, make: impl FnOnce(&T) -> U) -> Section<U> {
        match self {
            Self::Read(value) => Section::Read(make(value)),
            Self::Unread { unread } => Section::Unread { unread: unread.clone() },
        }
    }
}

/// What a status is told from.
pub(super) struct Seen {
    pub(super) object: PulseIngest,
    /// About the object itself.
    pub(super) events: Section<Vec<Event>>,
    /// Warnings of the whole namespace, or its first page.
    pub(super) warnings: Section<Vec<Event>>,
    /// The pods of the object.
    pub(super) pods: Section<Vec<Pod>>,
}

impl Plugin {
    pub(super) async fn see(&self, name: &str) -> Result<Seen, PluginError> {
        let object = self.object(name).await?;
        let about = format!("involvedObject.kind=PulseIngest,involvedObject.name={name}");
        let about = ListParams::default().fields(&about);
        let warnings = ListParams::default().fields("type=Warning").limit(EVENTS);
        let owned = owned(name);
        let (events, warnings, pods) = tokio::join!(self.list(&about), self.list(&warnings), self.list(&owned));
        Ok(Seen { object, events, warnings, pods })
    }

    /// The object itself.
    pub(super) async fn object(&self, name: &str) -> Result<PulseIngest, PluginError> {
        let api = self.all::<PulseIngest>();
        match api.get(name).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) if status.is_not_found() && status.details.is_some() => {
                let there = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
                let there: Vec<String> = there.iter().map(ResourceExt::name_any).collect();
                let near = nearest(name, there);
                Err(PluginError::NoSuchObject { name: name.to_owned(), namespace: self.namespace.clone(), near })
            }
            Err(error) => Err(self.told::<PulseIngest>("get", &error)),
        }
    }

    /// All objects: of the namespace, or of the cluster.
    pub(super) async fn objects(&self, everywhere: bool) -> Result<Vec<PulseIngest>, PluginError> {
        let api = if everywhere { Api::all(self.client.clone()) } else { self.all::<PulseIngest>() };
        match api.list(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            Err(error) if everywhere => match self.told::<PulseIngest>("list", &error) {
                PluginError::Forbidden(_) => {
                    Err(PluginError::Forbidden("list pulseingests.pulseboard.dev in every namespace".into()))
                }
                other => Err(other),
            },
            Err(error) => Err(self.told::<PulseIngest>("list", &error)),
        }
    }

    /// One part, which may be forbidden.
    pub(super) async fn list<K>(&self, which: &ListParams) -> Section<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        match self.all::<K>().list(which).await {
            Ok(list) => Section::Read(list.items),
            Err(error) => Section::Unread { unread: self.told::<K>("list", &error).to_string() },
        }
    }

    pub(super) fn all<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What a failed call means to a person.
    pub(super) fn told<K: Resource<DynamicType = ()>>(&self, verb: &str, error: &kube::Error) -> PluginError {
        match error {
            kube::Error::Api(status) if status.is_forbidden() => {
                let (group, plural) = (K::group(&()), K::plural(&()));
                let resource = if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") };
                PluginError::Forbidden(format!("{verb} {resource} in namespace {}", self.namespace))
            }
            kube::Error::Api(status) if status.code == 401 => PluginError::Unauthorized(status.message.clone()),
            // A path that is not there, and not an object: nothing is named.
            kube::Error::Api(status) if status.code == 404 && status.details.is_none() => PluginError::NotInstalled,
            kube::Error::Api(_) => PluginError::Api(api_message(error)),
            other => PluginError::Unreachable(chain(other)),
        }
    }
}

/// Selects what the operator made for an object.
pub(super) fn owned(name: &str) -> ListParams {
    ListParams::default().labels(&format!("{},app.kubernetes.io/instance={name}", names::MANAGED))
}

/// With every cause that says something new.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The names that were most likely meant.
fn nearest(name: &str, mut there: Vec<String>) -> Vec<String> {
    let likeness = |other: &String| strsim::jaro_winkler(name, other);
    there.retain(|other| likeness(other) > ALIKE);
    there.sort_by(|left, right| likeness(right).total_cmp(&likeness(left)));
    there.truncate(NEAR);
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_were_most_likely_meant_come_first() {
        let there = ["orders", "main", "mail"].map(str::to_owned).to_vec();
        assert_eq!(nearest("mian", there), ["main", "mail"]);
        assert_eq!(nearest("zzz", vec!["main".into()]), [""; 0]);
    }
}
