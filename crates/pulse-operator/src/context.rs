//! What all reconciles share: clients, caches, settings, and the memory of every object.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::events::Recorder;
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use pulse_crd::PulseIngest;
use pulse_crd::names;
use pulse_reconcile::memory::Memory;
use pulse_reconcile::seen::Settings;
use pulse_reconcile::served::Served;

use crate::caches::Caches;
use crate::job_rejections::EventBudget;
use crate::metrics::OperatorMetrics;
use crate::rollout_queue::RolloutQueue;
use crate::scaling::{Key, Samplers};
use crate::watches::Trigger;

/// The memory of every object that was reconciled.
type Objects = HashMap<Key, Arc<Memory>>;

/// Shared by all reconciles.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) recorder: Recorder,
    /// Namespace and name of the Lease: the same for all replicas of this operator, and for no other operator.
    pub(crate) identity: String,
    pub(crate) settings: Arc<Settings>,
    pub(crate) served: tokio::sync::watch::Receiver<Arc<Served>>,
    pub(crate) pull_secrets: Vec<String>,
    pub(crate) metrics: OperatorMetrics,
    pub(crate) samplers: Samplers,
    pub(crate) rollout_queue: RolloutQueue<Key>,
    pub(crate) event_budget: EventBudget,
    /// Has objects reconciled.
    pub(crate) trigger: Trigger,
    pub(crate) objects: Mutex<Objects>,
}

impl Context {
    /// The memory of an object. That of an earlier object of the same name is dropped.
    pub(crate) fn memory(&self, key: Key) -> Arc<Memory> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = objects.get(&key) {
            return memory.clone();
        }
        self.drop_memory(&mut objects, &key.namespace, &key.name);
        objects.entry(key).or_default().clone()
    }

    /// Keeps the memory for the next reconcile, unless the object was deleted meanwhile.
    pub(crate) fn remember(&self, key: Key, memory: Memory) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.entry(key).and_modify(|before| *before = Arc::new(memory));
    }

    /// Number of objects that were reconciled and still exist.
    pub(crate) fn reconciled(&self) -> usize {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Drops the memory, the samples, the rollout and the metrics of a deleted object.
    pub(crate) fn forget(&self, namespace: &str, name: &str) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        self.drop_memory(&mut objects, namespace, name);
        self.metrics.forget(namespace, name);
    }

    /// Ends the samples and the rollout of an object that another operator reconciles.
    pub(crate) fn disown(&self, key: &Key) {
        self.samplers.remove(key);
        self.metrics.forget(&key.namespace, &key.name);
        self.wake(self.rollout_queue.observe(key, false, false));
    }

    /// Records whether an object is rolling out, or still waits for it, and lets the next ones begin.
    pub(crate) fn observe_rollout(&self, key: &Key, is_rolling: bool, is_waiting: bool) {
        self.wake(self.rollout_queue.observe(key, is_rolling, is_waiting));
    }

    fn wake(&self, waiting: Vec<Key>) {
        for Key { namespace, name, uid: _ } in waiting {
            // Fails only at shutdown, when the receiver is dropped.
            let _ = self.trigger.send(ObjectRef::new(&name).within(&namespace));
        }
    }

    fn drop_memory(&self, objects: &mut Objects, namespace: &str, name: &str) {
        for (key, _) in objects.extract_if(|key, _| key.namespace == namespace && key.name == name) {
            self.samplers.remove(&key);
        }
        self.wake(self.rollout_queue.forget(|key| key.namespace == namespace && key.name == name));
    }
}

/// Identifies an object.
pub(crate) fn key(cr: &PulseIngest) -> Key {
    Key { namespace: names::namespace(cr), name: cr.name_any(), uid: cr.uid().unwrap_or_default() }
}
