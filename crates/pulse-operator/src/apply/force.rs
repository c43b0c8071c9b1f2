//! Applies an object over the fields of other managers, and finds out who they are.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use kube::core::response::StatusCause;
use pulse_crd::names::MANAGER;
use pulse_reconcile::error::ReconcileError;

use super::applier::Applier;
use super::object::{Kind, api_error, typed_json_of};

impl Applier<'_> {
    /// Applies an object over fields of other managers. With `names_rivals`, it is first tried without force, because
    /// the API server then names the managers and their fields.
    pub(super) async fn apply_over<K: Kind>(
        &self,
        desired: &K,
        names_rivals: bool,
    ) -> Result<(K, String), ReconcileError> {
        let (api, name, patch) = (self.api::<K>(), desired.name_any(), typed_json_of(desired));
        let mut rivals = String::new();
        if names_rivals {
            match api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(&patch)).await {
                Ok(applied) => return Ok((applied, rivals)),
                Err(kube::Error::Api(status)) if status.is_conflict() => {
                    let causes = status.details.as_ref().map(|details| details.causes.as_slice());
                    rivals = self::rivals(causes.unwrap_or_default());
                }
                Err(error) => return Err(api_error::<K>("apply", &name)(error)),
            }
        }
        let forced = PatchParams::apply(MANAGER).force();
        let applied = api.patch(&name, &forced, &Patch::Apply(&patch)).await;
        Ok((applied.map_err(api_error::<K>("apply", &name))?, rivals))
    }
}

/// The managers of the conflicts, each with its first field. Two are enough to find out who it is.
fn rivals(causes: &[StatusCause]) -> String {
    let conflicts = causes.iter().filter(|cause| cause.reason == "FieldManagerConflict");
    let texts = conflicts.map(|cause| format!("{}: {}", cause.message.replace("conflict with ", ""), cause.field));
    texts.take(2).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_are_named_with_their_fields() {
        let cause = |reason: &str, manager: &str| StatusCause {
            reason: reason.into(),
            message: format!("conflict with \"{manager}\" using apps/v1"),
            field: ".spec.paused".into(),
        };
        let causes = [cause("FieldManagerConflict", "vpa"), cause("Other", "x")];
        assert_eq!(rivals(&causes), "\"vpa\" using apps/v1: .spec.paused");
    }
}
