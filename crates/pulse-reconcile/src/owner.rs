//! Which operator reconciles an object. Pure.
//!
//! The first one claims it in the status, with the resource version that it has seen, so that of two exactly one
//! succeeds. Only a person hands it over, with an annotation.

use kube_core::ResourceExt;
use pulse_crd::PulseIngest;
use pulse_crd::names::OPERATOR;

/// Who reconciles an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This operator.
    This,
    /// This operator, once it has recorded it.
    Unclaimed,
    /// Another operator.
    Other(String),
}

/// Returns who reconciles `cr`, for the operator with this identity.
pub fn owner(cr: &PulseIngest, identity: &str) -> Owner {
    let recorded = cr.status.as_ref().and_then(|status| status.operator.as_deref());
    let named = cr.annotations().get(OPERATOR).map(String::as_str).filter(|named| !named.is_empty());
    match named.or(recorded) {
        Some(other) if other != identity => Owner::Other(other.to_owned()),
        _ if recorded == Some(identity) => Owner::This,
        _ => Owner::Unclaimed,
    }
}

/// Returns the sentence with which this operator reports that it does nothing with `cr`.
pub fn explain(cr: &PulseIngest, other: &str, identity: &str) -> String {
    format!(
        "operator {identity} does nothing, because operator {other} reconciles this object: uninstall one of them, or \
         hand the object over with kubectl annotate --overwrite pulseingest {} {OPERATOR}={identity}",
        cr.name_any()
    )
}

#[cfg(test)]
mod tests {
    use pulse_crd::fixture::pulse_ingest;

    use super::*;

    #[test]
    fn annotation_of_a_person_goes_before_the_recorded_operator() {
        let owner_of = |named: Option<&str>, recorded: Option<&str>| {
            let mut cr = pulse_ingest(serde_json::json!({}));
            cr.annotations_mut().extend(named.map(|named| (OPERATOR.to_owned(), named.to_owned())));
            cr.status.get_or_insert_default().operator = recorded.map(str::to_owned);
            owner(&cr, "a/x")
        };
        let other = || Owner::Other("b/y".into());
        assert_eq!(owner_of(None, None), Owner::Unclaimed);
        assert_eq!(owner_of(None, Some("a/x")), Owner::This);
        assert_eq!(owner_of(None, Some("b/y")), other());
        assert_eq!(owner_of(Some("a/x"), Some("b/y")), Owner::Unclaimed, "handed over");
        assert_eq!(owner_of(Some("b/y"), Some("a/x")), other(), "handed over");
        assert_eq!(owner_of(Some("b/y"), None), other());
    }
}
