// Schema fragments that the derive cannot express. Bounds are those of the Kubernetes API conventions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use schemars::{Schema, SchemaGenerator, json_schema};

/// `metav1.Condition`, a list keyed by `type`, with the bounds of `k8s.io/apimachinery` (`pkg/apis/meta/v1/types.go`).
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What is true of this object, as metav1.Condition: Ready, and while it is so Reconciling or Stalled.",
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "description": "Name of the condition, in CamelCase.", "maxLength": 316, "pattern": "^[A-Za-z][A-Za-z0-9]*$"},
                "status": {"type": "string", "description": "Whether it holds.", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "metadata.generation that this condition was computed from."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When `status` last changed."},
                "reason": {"type": "string", "description": "Stable constant in CamelCase: why.", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z][A-Za-z0-9]*$"},
                "message": {"type": "string", "description": "For people: what happened and what to do next.", "maxLength": 4096}
            }
        }
    })
}

/// A time of the API server's form (RFC 3339, UTC).
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// Free parameters: an object whose values may be anything JSON can say.
pub(crate) fn parameters(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "x-kubernetes-preserve-unknown-fields": true
    })
}

/// References to Secrets by the name of a parameter, 16 at most.
pub(crate) fn secret_parameters(generator: &mut SchemaGenerator) -> Schema {
    let reference = generator.subschema_for::<crate::taskserv::SecretReference>();
    json_schema!({"type": "object", "maxProperties": 16, "additionalProperties": reference})
}

/// Names of Servers in groups: 8 groups of 32.
pub(crate) fn peers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": {
            "type": "array", "minItems": 1, "maxItems": 32, "x-kubernetes-list-type": "set",
            "items": {"type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
        }
    })
}

/// Labels with their values, 16 at most.
pub(crate) fn match_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63}
    })
}

/// Short strings by name, 64 at most.
pub(crate) fn outputs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 2048}
    })
}

/// A field that is not set is absent. The derive makes each `Option` nullable, and to CEL a null is a value:
/// `has(self.size)` would be true for `size: null`, and "exactly one of" satisfied by nothing.
pub(crate) fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(forbid_null);
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(items)) => forbid_null(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(forbid_null),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        forbid_null(values);
    }
}

/// The API server gives a new object a status whose `observedGeneration` is 0. Without one kstatus, and with it every
/// tool that waits, takes an object that nobody has looked at yet for done.
pub(crate) fn begin_with_a_status(schema: &mut JSONSchemaProps) {
    let status = schema.properties.as_mut().and_then(|properties| properties.get_mut("status"));
    if let Some(status) = status {
        status.default = Some(JSON(serde_json::json!({})));
    }
}
