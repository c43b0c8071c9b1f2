use serde_json::json;

use super::*;

/// A schema with one field of each kind.
fn schema() -> Value {
    json!({ "type": "object", "properties": {
        "spec": { "type": "object", "required": ["name"], "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 40, "pattern": "^[a-z]*$" },
            "count": { "type": "integer", "minimum": 1, "maximum": 9, "default": 2, "format": "int32" },
            "mode": { "type": "string", "enum": ["A", "B"], "nullable": true },
            "list": { "type": "array", "maxItems": 3, "x-kubernetes-list-type": "atomic", "items": {
                "type": "object", "properties": { "key": { "type": "string" } },
            } },
            "group": { "type": "object", "default": { "in": { "a": 1 } }, "properties": {
                "in": { "type": "object", "properties": { "a": { "type": "integer" } } },
            } },
            "map": { "type": "object", "maxProperties": 4, "additionalProperties": { "type": "string" } },
        }, "x-kubernetes-validations": [{ "rule": "self.count > 0", "message": "positive" }] },
        "status": { "type": "object", "properties": { "state": { "type": "string", "enum": ["On"] } } },
    } })
}

/// The schema with the value at a pointer replaced; null removes it.
fn changed(pointer: &str, value: Value) -> Value {
    let mut schema = schema();
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = schema.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    if value.is_null() {
        parent.remove(name).expect("exists");
    } else {
        parent.insert(name.to_owned(), value);
    }
    schema
}

#[test]
fn additions_are_compatible() {
    let spec = "/properties/spec";
    let field = "/properties/spec/properties";
    let additions = [
        (format!("{field}/new"), json!({ "type": "string" })),
        (format!("{field}/new"), json!({ "type": "object", "required": ["a"], "properties": { "a": {} } })),
        ("/properties/status/properties/new".into(), json!({ "type": "integer" })),
        (format!("{field}/name/minLength"), json!(0)),
        (format!("{field}/name/minLength"), json!(null)),
        (format!("{field}/name/description"), json!("Another text.")),
        (format!("{field}/count/maximum"), json!(10)),
        (format!("{field}/count/maximum"), json!(null)),
        (format!("{field}/count/nullable"), json!(true)),
        (format!("{field}/mode/enum"), json!(["A", "C", "B"])),
        (format!("{field}/mode/enum"), json!(null)),
        (format!("{field}/group/default"), json!({ "in": { "a": 1, "b": 2 }, "new": 0 })),
        (format!("{field}/group/properties/new"), json!({ "type": "integer" })),
        (format!("{field}/list/items/properties/new"), json!({ "type": "string" })),
        (format!("{field}/map/maxProperties"), json!(5)),
        (format!("{spec}/required"), json!(null)),
        (format!("{spec}/required"), json!(["name", "count"])),
        (format!("{spec}/x-kubernetes-validations"), json!(null)),
        (format!("{spec}/x-kubernetes-validations"), json!([{ "rule": "self.count > 0", "message": "another text" }])),
    ];
    for (pointer, value) in additions {
        assert_eq!(breaking_changes(&schema(), &changed(&pointer, value.clone())), [], "{pointer} = {value}");
    }
}

#[test]
fn incompatible_changes_are_named_with_their_path() {
    let spec = "/properties/spec";
    let field = "/properties/spec/properties";
    let breaking = [
        (format!("{field}/name"), json!(null), "spec.name: the field is removed"),
        ("/properties/status".into(), json!(null), "status: the field is removed"),
        (format!("{field}/list/items/properties/key"), json!(null), "spec.list[].key: the field is removed"),
        (format!("{field}/count/type"), json!("string"), "spec.count: the type was \"integer\", is \"string\""),
        (format!("{field}/map/additionalProperties/type"), json!("integer"), "spec.map[]: the type was"),
        (format!("{field}/name/minLength"), json!(2), "spec.name: minLength was 1, is 2"),
        (format!("{field}/name/maxLength"), json!(39), "spec.name: maxLength was 40, is 39"),
        (format!("{field}/count/minimum"), json!(2), "spec.count: minimum was 1, is 2"),
        (format!("{field}/count/maximum"), json!(8), "spec.count: maximum was 9, is 8"),
        (format!("{field}/mode/maxLength"), json!(8), "spec.mode: maxLength was null, is 8"),
        (format!("{field}/list/maxItems"), json!(2), "spec.list: maxItems was 3, is 2"),
        (format!("{field}/map/minProperties"), json!(1), "spec.map: minProperties was null, is 1"),
        (format!("{field}/mode/enum"), json!(["A"]), "spec.mode: the value \"B\" is removed"),
        (format!("{field}/name/enum"), json!(["A"]), "spec.name: only [\"A\"] are allowed now"),
        (
            "/properties/status/properties/state/enum".into(),
            json!(["On", "Off"]),
            "status.state: the value \"Off\" is new",
        ),
        (format!("{field}/mode/nullable"), json!(null), "spec.mode: null is no longer allowed"),
        (format!("{field}/count/default"), json!(3), "spec.count (default): was 2, is 3"),
        (format!("{field}/count/default"), json!(null), "spec.count (default): was 2, is null"),
        (format!("{field}/group/default"), json!({ "in": { "a": 2 } }), "spec.group (default): was"),
        (format!("{field}/group/default"), json!({}), "spec.group (default): was"),
        (format!("{field}/group/properties/in"), json!(null), "spec.group.in: the field is removed"),
        (format!("{field}/mode/default"), json!("A"), "spec.mode (default): was null"),
        (format!("{field}/name/pattern"), json!("^[a-y]*$"), "spec.name (pattern): was"),
        (format!("{field}/count/format"), json!("int64"), "spec.count (format): was"),
        (format!("{field}/list/x-kubernetes-list-type"), json!("set"), "spec.list (x-kubernetes-list-type): was"),
        (format!("{spec}/required"), json!(["name", "mode"]), "spec.mode: the field is now required"),
        (
            format!("{spec}/x-kubernetes-validations"),
            json!([{ "rule": "self.count > 0" }, { "rule": "self.count > 1" }]),
            "spec: the rule \"self.count > 1\" is new",
        ),
        ("/x-kubernetes-validations".into(), json!([{ "rule": "false" }]), "object: the rule \"false\" is new"),
    ];
    for (pointer, value, expected) in breaking {
        let found = breaking_changes(&schema(), &changed(&pointer, value.clone()));
        assert_eq!(found.len(), 1, "{pointer} = {value}: {found:?}");
        assert!(found[0].to_string().starts_with(expected), "{}, not {expected}", found[0]);
    }
}

#[test]
fn identity_of_the_resource_cannot_change() {
    let crd = json!({ "spec": {
        "group": "a.dev", "scope": "Namespaced",
        "names": { "kind": "Thing", "plural": "things", "singular": "thing", "shortNames": ["th"] },
        "versions": [{
            "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema() },
            "selectableFields": [{ "jsonPath": ".spec.name" }],
            "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.count" } },
        }],
    } });
    let changed = |pointer: &str, value: Value| {
        let mut crd = crd.clone();
        *crd.pointer_mut(pointer).expect("exists") = value;
        crd
    };
    let more_versions = json!([crd["spec"]["versions"][0], { "name": "v2", "served": true }]);
    for (pointer, value) in [
        ("/spec/names/shortNames", json!(["th", "t"])),
        ("/spec/versions", more_versions),
        ("/spec", crd["spec"].clone()),
    ] {
        assert_eq!(breaking_changes_of_crd(&crd, &changed(pointer, value)), [], "{pointer}");
    }
    let version = "/spec/versions/0";
    let breaking = [
        ("/spec/scope".to_owned(), json!("Cluster"), "definition.scope: was \"Namespaced\", is \"Cluster\""),
        ("/spec/names/plural".into(), json!("thing"), "definition.names.plural"),
        ("/spec/names/shortNames".into(), json!([]), "definition.names.shortNames: \"th\" is removed"),
        (format!("{version}/served"), json!(false), "definition.versions: v1 is no longer served"),
        (format!("{version}/selectableFields"), json!([]), "definition.selectableFields: {\"jsonPath\""),
        (format!("{version}/subresources/scale/specReplicasPath"), json!(".spec.n"), "definition.subresources"),
        (format!("{version}/schema/openAPIV3Schema/properties/status"), json!(null), "status: the field is removed"),
    ];
    for (pointer, value, expected) in breaking {
        let found = breaking_changes_of_crd(&crd, &changed(&pointer, value));
        assert!(found.len() == 1 && found[0].to_string().starts_with(expected), "{pointer}: {found:?}");
    }
}
