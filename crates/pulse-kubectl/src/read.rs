//! Reads what the user may see: `get` of the object, and lists. Writes nothing.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt};
use pulse_crd::PulseIngest;
use pulse_crd::names;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::{Plugin, PluginError};

/// Maximum number of names suggested for one that does not exist.
const MAX_SUGGESTIONS: usize = 5;
/// Minimum Jaro-Winkler similarity of a suggested name.
const MIN_SIMILARITY: f64 = 0.7;
/// Maximum number of Events read: a namespace may have many.
const EVENTS_LIMIT: u32 = 500;

/// A part of a report, or the error of reading it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Section<T> {
    /// The part was read.
    Read(T),
    /// The part cannot be read.
    Unavailable {
        /// The missing permission, or the error of the API server.
        error: String,
    },
}

impl<T> Section<T> {
    /// Converts the part if it was read.
    pub(crate) fn map<U>(&self, make: impl FnOnce(&T) -> U) -> Section<U> {
        match self {
            Self::Read(value) => Section::Read(make(value)),
            Self::Unavailable { error } => Section::Unavailable { error: error.clone() },
        }
    }
}

/// Everything that a status report is made from.
pub(crate) struct StatusInput {
    pub(crate) object: PulseIngest,
    /// Events of the object itself.
    pub(crate) events: Section<Vec<Event>>,
    /// Warning Events of the namespace, up to [`EVENTS_LIMIT`].
    pub(crate) warnings: Section<Vec<Event>>,
    /// The pods of the object.
    pub(crate) pods: Section<Vec<Pod>>,
}

impl Plugin {
    pub(crate) async fn read_status(&self, name: &str) -> Result<StatusInput, PluginError> {
        let object = self.object(name).await?;
        let about = format!("involvedObject.kind=PulseIngest,involvedObject.name={name}");
        let about = ListParams::default().fields(&about);
        let warnings = ListParams::default().fields("type=Warning").limit(EVENTS_LIMIT);
        let owned = created_for(name);
        let (events, warnings, pods) = tokio::join!(self.list(&about), self.list(&warnings), self.list(&owned));
        Ok(StatusInput { object, events, warnings, pods })
    }

    /// The object itself.
    pub(crate) async fn object(&self, name: &str) -> Result<PulseIngest, PluginError> {
        let api = self.all::<PulseIngest>();
        match api.get(name).await {
            Ok(object) => Ok(object),
            Err(kube::Error::Api(status)) if status.is_not_found() && status.details.is_some() => {
                let there = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
                let there: Vec<String> = there.iter().map(ResourceExt::name_any).collect();
                let similar = suggestions(name, there);
                Err(PluginError::NoSuchObject { name: name.to_owned(), namespace: self.namespace.clone(), similar })
            }
            Err(error) => Err(self.api_error::<PulseIngest>("get", &error)),
        }
    }

    /// All objects of the namespace, or of the cluster.
    pub(crate) async fn objects(&self, everywhere: bool) -> Result<Vec<PulseIngest>, PluginError> {
        let api = if everywhere { Api::all(self.client.clone()) } else { self.all::<PulseIngest>() };
        match api.list(&ListParams::default()).await {
            Ok(list) => Ok(list.items),
            Err(error) if everywhere => match self.api_error::<PulseIngest>("list", &error) {
                PluginError::Forbidden(_) => {
                    Err(PluginError::Forbidden("list pulseingests.pulseboard.dev in every namespace".into()))
                }
                other => Err(other),
            },
            Err(error) => Err(self.api_error::<PulseIngest>("list", &error)),
        }
    }

    /// Lists objects of one kind. An error, such as a missing permission, becomes part of the result.
    pub(crate) async fn list<K>(&self, which: &ListParams) -> Section<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        match self.all::<K>().list(which).await {
            Ok(list) => Section::Read(list.items),
            Err(error) => Section::Unavailable { error: self.api_error::<K>("list", &error).to_string() },
        }
    }

    pub(crate) fn all<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Explains a failed call to the user.
    pub(crate) fn api_error<K: Resource<DynamicType = ()>>(&self, verb: &str, error: &kube::Error) -> PluginError {
        match error {
            kube::Error::Api(status) if status.is_forbidden() => {
                let (group, plural) = (K::group(&()), K::plural(&()));
                let resource = if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") };
                PluginError::Forbidden(format!("{verb} {resource} in namespace {}", self.namespace))
            }
            kube::Error::Api(status) if status.code == 401 => PluginError::Unauthorized(status.message.clone()),
            // The path does not exist: unlike for a missing object, the response has no details.
            kube::Error::Api(status) if status.code == 404 && status.details.is_none() => PluginError::NotInstalled,
            kube::Error::Api(status) => PluginError::Api(format!("{} ({})", status.message, status.code)),
            other => PluginError::Unreachable(chain(other)),
        }
    }
}

/// Selects the objects that the operator created for a PulseIngest.
pub(crate) fn created_for(name: &str) -> ListParams {
    ListParams::default().labels(&format!("{},app.kubernetes.io/instance={name}", names::MANAGED))
}

/// The error with its causes, without repetitions.
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

/// The most similar names, best first.
fn suggestions(name: &str, mut there: Vec<String>) -> Vec<String> {
    let similarity = |other: &String| strsim::jaro_winkler(name, other);
    there.retain(|other| similarity(other) > MIN_SIMILARITY);
    there.sort_by(|left, right| similarity(right).total_cmp(&similarity(left)));
    there.truncate(MAX_SUGGESTIONS);
    there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_start_with_the_most_similar_name() {
        let there = ["orders", "main", "mail"].map(str::to_owned).to_vec();
        assert_eq!(suggestions("mian", there), ["main", "mail"]);
        assert_eq!(suggestions("zzz", vec!["main".into()]), [""; 0]);
    }
}
