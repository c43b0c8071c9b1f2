//! The console of an instance.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pod::PodTemplate;
use super::resources::Resources;
use super::rollout::Probes;
use super::tls::ServerTlsSpec;

/// Console: pages in which administrators see what happens, and act. Its Service `<name>-console` has the port 5555.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsoleSpec {
    /// Enabled runs the console. If false, the operator deletes its objects. Defaults to false.
    pub enabled: bool,
    /// Replicas is the number of console pods. Defaults to 1.
    #[schemars(range(min = 1, max = 5))]
    pub replicas: u32,
    /// ReadOnly refuses every action of the console: its pages only show. Defaults to false.
    pub read_only: bool,
    /// TLS of the ports of the console, 5555 and 9090. If not set, they do not encrypt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTlsSpec>,
    /// CPU and memory requests and limits of the container of each console pod.
    pub resources: Resources,
    /// Times of the probes.
    pub probes: Probes,
    /// Additional settings of the console pods, in the format of a pod.
    pub pod_template: PodTemplate,
}

impl Default for ConsoleSpec {
    fn default() -> Self {
        Self {
            enabled: false,
            replicas: 1,
            read_only: false,
            tls: None,
            resources: Resources::default(),
            probes: Probes::default(),
            pod_template: PodTemplate::default(),
        }
    }
}
