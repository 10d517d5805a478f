//! Schemas that are refused, and the words for parameters that are.

use super::*;

const MANIFEST: &str = "apiVersion: extension.provisioning.dev/v1alpha1\nkind: Extension\nname: demo\nversion: 1.2.3\n";

fn manifest(lines: &str) -> Manifest {
    Manifest::from_yaml(&format!("{MANIFEST}{lines}")).unwrap()
}

fn read(schema: &Value) -> Result<ParameterSchema, SchemaError> {
    let manifest = manifest("secrets: [{name: password}]\n");
    ParameterSchema::new(&schema.to_string(), &manifest)
}

/// A schema with these properties and keywords.
fn schema(properties: &Value, more: &Value) -> Value {
    let mut schema =
        json!({"$schema": DRAFT, "type": "object", "additionalProperties": false, "properties": properties});
    let top = schema.as_object_mut().unwrap();
    top.extend(more.as_object().unwrap().clone());
    schema
}

fn demo() -> ParameterSchema {
    let port = json!({"type": "integer", "minimum": 1, "maximum": 65535});
    let properties = json!({
        "port": {"$ref": "#/$defs/port", "default": 80},
        "mode": {"enum": ["http", "tcp"], "default": "http"},
        "name": {"type": "string", "minLength": 2, "maxLength": 8, "pattern": "^[a-z]+$"},
        "ratio": {"type": "number", "exclusiveMinimum": 0, "multipleOf": 0.5},
        "host": {"type": "string", "format": "ipv4"},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": true, "maxItems": 3},
        "size": {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[0-9]+MB$"}]},
        "user": {"type": "string", "not": {"enum": ["root"]}},
        "sysctl": {"type": "object", "propertyNames": {"maxLength": 12}, "additionalProperties": {"type": "integer"}},
        "backends": {"type": "array", "items": {
            "type": "object", "additionalProperties": false, "required": ["name", "port"],
            "properties": {"name": {"type": "string"}, "port": {"$ref": "#/$defs/port"}}
        }},
        "group": {"type": "string"},
    });
    let either = json!([
        {"properties": {"group": false}},
        {"required": ["group"], "properties": {"backends": false}},
    ]);
    read(&schema(&properties, &json!({"$defs": {"port": port}, "anyOf": either}))).unwrap()
}

fn given(parameters: Value) -> BTreeMap<String, Value> {
    serde_json::from_value(parameters).unwrap()
}

fn said(parameters: Value) -> Vec<String> {
    demo().check(&given(parameters)).iter().map(ToString::to_string).collect()
}

#[test]
fn defaults_fill_what_is_not_given() {
    assert_eq!(demo().with_defaults(&given(json!({"port": 81}))), given(json!({"port": 81, "mode": "http"})));
    assert_eq!(said(json!({})), [""; 0]);
    assert_eq!(said(json!({"port": 443, "backends": [{"name": "a", "port": 1}], "size": "5MB"})), [""; 0]);
}

#[test]
fn what_is_wrong_is_said_with_the_value_and_what_is_allowed() {
    for (parameters, words) in [
        (json!({"port": "80"}), "port: \"80\" is not a whole number"),
        (json!({"port": 0}), "port: 0 is out of range; allowed is at least 1 and at most 65535"),
        (json!({"ratio": 0}), "ratio: 0 is out of range; allowed is more than 0"),
        (json!({"ratio": 0.7}), "ratio: 0.7 is not a multiple of 0.5"),
        (json!({"prot": 80}), "prot: there is no such parameter; did you mean 'port'?"),
        (
            json!({"zzz": 80}),
            "zzz: there is no such parameter; there are backends, group, host, mode, name, port, ratio, size, sysctl, \
             tags and more",
        ),
        (json!({"password": "x"}), "password: it is a secret: give it by secretParameters, as a reference to a Secret"),
        (json!({"mode": "htp"}), "mode: \"htp\" is not one of \"http\", \"tcp\"; did you mean 'http'?"),
        (json!({"name": "a"}), "name: \"a\" has 1 characters; allowed is at least 2 and at most 8"),
        (json!({"name": "A b"}), "name: \"A b\" does not match the pattern ^[a-z]+$"),
        (json!({"host": "1.2.3"}), "host: \"1.2.3\" is not of the format ipv4"),
        (json!({"tags": ["a", "a"]}), "tags: \"a\" is there twice; each entry is allowed once"),
        (json!({"tags": ["a", "b", "c", "d"]}), "tags: it has 4 entries; allowed is at most 3"),
        (json!({"tags": ["a", 1]}), "tags[1]: 1 is not text"),
        (json!({"user": "root"}), "user: \"root\" is not allowed, as whatever fits {\"enum\":[\"root\"]}"),
        (json!({"sysctl": {"vm.swap": true}}), "sysctl[\"vm.swap\"]: true is not a whole number"),
        (
            json!({"sysctl": {"a.long.name.of": 1}}),
            "sysctl: as a name, \"a.long.name.of\" has 14 characters; allowed is at most 12",
        ),
        (json!({"backends": [{"name": "a", "port": 1}, {"name": "b"}]}), "backends[1].port: it is missing"),
        (
            json!({"backends": [{"name": "a", "port": 1, "prot": 1}]}),
            "backends[0].prot: there is no such parameter; did you mean 'port'?",
        ),
        (
            json!({"size": "5GB"}),
            "size: it fits none of the 2 allowed forms: (1) \"5GB\" is not a whole number; (2) \"5GB\" does not match \
             the pattern ^[0-9]+MB$",
        ),
        (
            json!({"group": "web", "backends": []}),
            "it fits none of the 2 allowed forms: (1) group: it cannot be given here; (2) backends: it cannot be given \
             here",
        ),
        (
            json!({"user": "x".repeat(99), "name": "x".repeat(99)}),
            "name: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… has 99 characters; allowed is at \
             least 2 and at most 8",
        ),
    ] {
        assert_eq!(said(parameters), [words]);
    }
}

#[test]
fn problems_are_sorted_and_at_most_sixteen() {
    assert_eq!(
        said(json!({"tags": [1], "port": -1, "mode": 1})),
        [
            "mode: 1 is not one of \"http\", \"tcp\"",
            "port: -1 is out of range; allowed is at least 1 and at most 65535",
            "tags[0]: 1 is not text",
        ]
    );
    let unknown: BTreeMap<String, Value> = (10..40).map(|n| (format!("q{n}"), Value::Null)).collect();
    let problems = demo().check(&unknown);
    assert_eq!(problems.len(), MAX_PROBLEMS);
    assert_eq!(problems[15].path, "q25");
}

#[test]
fn schemas_that_break_a_rule_are_refused() {
    let plain = |properties: Value| schema(&properties, &json!({}));
    let with = |more: Value| schema(&json!({}), &more);
    let doubling: Map<String, Value> = (1..20)
        .map(|n| {
            let inner = json!({"$ref": format!("#/$defs/d{}", n - 1)});
            (format!("d{n}"), json!({"allOf": [inner, inner]}))
        })
        .chain([("d0".to_owned(), json!({}))])
        .collect();
    let chain: Map<String, Value> = (1..1000)
        .map(|n| (format!("d{n}"), json!({"$ref": format!("#/$defs/d{}", n - 1)})))
        .chain([("d0".to_owned(), json!({}))])
        .collect();
    for (schema, words) in [
        (json!([]), "it is not an object"),
        (json!({"type": "object", "properties": {}}), "$schema: it has to be"),
        (json!({"$schema": DRAFT, "type": "array", "properties": {}}), "type: it has to be \"object\""),
        (json!({"$schema": DRAFT, "type": "object"}), "properties: it is missing"),
        (plain(json!({"a": {"$ref": "https://example.com/x"}})), "properties.a.$ref: \"https://example.com/x\" is not"),
        (plain(json!({"a": {"$ref": "file:///etc/passwd"}})), "properties.a.$ref"),
        (plain(json!({"a": {"$ref": "#"}})), "properties.a.$ref"),
        (plain(json!({"a": {"$ref": "#/$defs/x%79"}})), "properties.a.$ref"),
        (plain(json!({"a": {"$ref": "#/$defs/x"}})), "properties.a.$ref: $defs has no \"x\""),
        (plain(json!({"a": {"$dynamicRef": "#x"}})), "properties.a.$dynamicRef: schemas of parameters do not have"),
        (with(json!({"$id": "https://example.com/"})), "$id: schemas of parameters do not have"),
        (plain(json!({"a": {"$defs": {}}})), "properties.a.$defs: it belongs at the top"),
        (
            with(json!({"$defs": {"x": {"items": {"$ref": "#/$defs/y"}}, "y": {"not": {"$ref": "#/$defs/x"}}}})),
            "holds itself by this reference",
        ),
        (with(json!({"$defs": doubling})), "more than 2048 schemas"),
        (with(json!({"$defs": chain})), "nested more than 32 deep"),
        (
            plain(json!({"a": {"minimun": 1}})),
            "properties.a.minimun: schemas of parameters do not have this keyword; did you mean 'minimum'?",
        ),
        (plain(json!({"a": {"minimum": "1"}})), "properties.a.minimum"),
        (plain(json!({"a": {"type": "integr"}})), "properties.a.type: \"integr\" is no type; there are"),
        (plain(json!({"a": {"type": "integr"}})), "did you mean 'integer'?"),
        (plain(json!({"a": {"pattern": "("}})), "properties.a.pattern"),
        (
            plain(json!({"a": {"pattern": "^(?=a)b"}})),
            "properties.a.pattern: \"^(?=a)b\" is no regular expression that can be",
        ),
        (plain(json!({"a": {"pattern": "(a{1000}){1000}"}})), "at most 256 KiB when compiled"),
        (
            plain(json!({"a": {"format": "telephone"}})),
            "the format 'telephone' is not known, so nothing would be checked",
        ),
        (plain(json!({"a": 1})), "properties.a: it is no schema"),
        (
            plain(json!({"a": {"type": "integer", "minimum": 1, "default": 0}})),
            "properties.a.default: 0 is out of range; allowed is at least 1",
        ),
        (
            with(
                json!({"$defs": {"x": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/x", "default": "b"}}}),
            ),
            "properties.a.default: \"b\" is not a whole number",
        ),
        (
            plain(json!({"a": {"items": {"type": "integer", "default": "x"}}})),
            "properties.a.items.default: \"x\" is not",
        ),
        (
            plain(json!({"password": {"type": "string"}})),
            "manifest.yaml: secrets[0].name: \"password\" is also a property",
        ),
    ] {
        let error = read(&schema).unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
    }
    assert!(read(&schema(&json!({"$ref": {"x-note": 1, "default": {"$ref": "any"}}}), &json!({}))).is_ok());
}

#[test]
fn size_and_nesting_of_the_text_are_bounded() {
    let demo = manifest("");
    let long = schema(&json!({}), &json!({"description": "x".repeat(MAX_SCHEMA_BYTES)})).to_string();
    assert!(matches!(ParameterSchema::new(&long, &demo), Err(SchemaError::TooLarge(_))));
    for deep in ["[".repeat(60_000), "{\"not\":".repeat(9_000)] {
        assert!(matches!(ParameterSchema::new(&deep, &demo), Err(SchemaError::Syntax(_))));
    }
    let mut nested = json!({});
    for _ in 0..40 {
        nested = json!({"not": nested});
    }
    let error = read(&schema(&json!({"a": nested}), &json!({}))).unwrap_err().to_string();
    assert!(error.contains("nested more than 32 deep"), "{error}");
}

#[test]
fn what_is_visited_twice_on_each_level_counts_so() {
    let nested = |levels: usize| {
        (0..levels).fold(json!({}), |inner, _| json!({"properties": {"a": inner}, "unevaluatedProperties": false}))
    };
    assert!(read(&schema(&json!({"a": nested(8)}), &json!({}))).is_ok());
    let error = read(&schema(&json!({"a": nested(12)}), &json!({}))).unwrap_err().to_string();
    assert!(error.contains("more than 2048 schemas within each other"), "{error}");
}

#[test]
fn a_large_value_below_a_choice_is_not_copied_for_each_of_its_errors() {
    let many: Vec<Value> = (0..1000).map(|_| json!({"minItems": 99_999})).collect();
    let nest = json!({"anyOf": [{"allOf": many}, {"type": "string"}]});
    let schema = read(&schema(&json!({"nest": nest, "egg": {}}), &json!({"required": ["egg"]}))).unwrap();
    let twigs = |count: usize| given(json!({"nest": vec![json!({"": 0}); count]}));
    let said = schema.check(&twigs(4000));
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0].to_string(), "egg: it is missing");
    assert!(
        said[1].to_string().contains("nest: it does not fit its schema, and there is too much of both to say where"),
        "{said:?}"
    );
    let with_names = json!({"nest": vec![json!({"": 0}); 4000], "x y": 1, "egg": 1});
    let said: Vec<String> =
        schema.check(&given(with_names)).iter().map(|problem| problem.below("spec.parameters")).collect();
    assert_eq!(said[0], "spec.parameters[\"x y\"]: there is no such parameter; there are egg, nest");
    assert!(said[1].starts_with("spec.parameters.nest: it does not fit its schema"), "{said:?}");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(schema.check(&twigs(2))[1].to_string().starts_with("nest: "));
    assert!(schema.check(&given(json!({"nest": "x", "egg": 1}))).is_empty());
}

#[test]
fn ports_of_probes_are_integer_properties_and_their_addresses_are_strings() {
    let probe = manifest("probes: [{name: tcp, type: Tcp, portParameter: port}]\n");
    let with = |properties: Value| {
        let defs = json!({"$defs": {"p": {"$ref": "#/$defs/q"}, "q": {"type": "integer"}}});
        ParameterSchema::new(&schema(&properties, &defs).to_string(), &probe).map_err(|error| error.to_string())
    };
    assert!(with(json!({"port": {"type": "integer"}})).is_ok());
    assert!(with(json!({"port": {"$ref": "#/$defs/p"}})).is_ok());
    assert_eq!(
        with(json!({"port": {"type": "string"}})).unwrap_err(),
        "manifest.yaml: probes[0].portParameter: the property \"port\" of schema.json has not the type \"integer\""
    );
    assert_eq!(
        with(json!({})).unwrap_err(),
        "manifest.yaml: probes[0].portParameter: \"port\" is no property of schema.json"
    );
    assert!(schema_of(None, &probe).unwrap_err().to_string().ends_with("the bundle has none"));
    let bound = manifest("probes: [{name: tcp, type: Tcp, port: 1, bindParameter: bind}]\n");
    let with = |properties: Value| ParameterSchema::new(&schema(&properties, &json!({})).to_string(), &bound);
    assert!(with(json!({"bind": {"type": "string"}})).is_ok());
    assert_eq!(
        with(json!({"bind": {"type": "array"}})).unwrap_err().to_string(),
        "manifest.yaml: probes[0].bindParameter: the property \"bind\" of schema.json has not the type \"string\""
    );
    assert_eq!(schema_of(None, &manifest("")).unwrap(), None);
}
