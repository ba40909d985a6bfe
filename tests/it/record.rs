//! Inputs and results against their schemas: flat maps, JSON Schema, defaults, and what a person is told.

use krilin::model::manifest::record::{self, FieldError, Role};
use serde_json::{Value, json};

fn errors(schema: &Value, role: Role, value: &Value) -> Vec<(String, String)> {
    let validator = record::compile(schema, role).unwrap();
    validator
        .validate(value, "the input")
        .into_iter()
        .map(|FieldError { pointer, message }| (pointer, message))
        .collect()
}

fn pair(pointer: &str, message: &str) -> (String, String) {
    (pointer.to_owned(), message.to_owned())
}

#[test]
fn a_flat_map_is_a_closed_record_going_in_and_an_open_one_coming_out() {
    let map = json!({"habit_id": "string", "weeks": "integer"});
    assert_eq!(errors(&map, Role::Input, &json!({"habit_id": "a", "weeks": 2})), []);
    assert_eq!(
        errors(&map, Role::Input, &json!({"habit_id": null, "wekks": 2})),
        [
            pair("", "the input needs `weeks`"),
            pair("/habit_id", "`habit_id` must be a text; this is null"),
            pair("/wekks", "`wekks` is not a key of the input (did you mean `weeks`?)"),
        ]
    );
    assert_eq!(errors(&map, Role::Output, &json!({"habit_id": null, "weeks": 2, "more": 1})), []);
    assert_eq!(errors(&map, Role::Output, &json!({"weeks": 2})), [pair("", "the input needs `habit_id`")]);
}

#[test]
fn all_errors_of_an_input_come_at_once_in_words() {
    let schema = json!({
        "type": "object",
        "required": ["name"],
        "additionalProperties": false,
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 5 },
            "rhythm": { "enum": ["daily", "weekly"] },
            "target": { "type": "integer", "minimum": 1, "maximum": 7 },
            "at": { "type": "string", "format": "time" },
            "day": { "type": "string", "format": "date" },
            "ids": { "type": "array", "items": { "type": "string" }, "maxItems": 2 }
        }
    });
    let input =
        json!({"name": "", "rhythm": "dayly", "target": 9, "at": "25:00", "day": "2026-02-30", "ids": ["a", 2, "c"]});
    let found = errors(&schema, Role::Input, &input);
    assert_eq!(
        found,
        [
            pair("/at", "`at` must be a time of day such as `20:30`; this is `25:00`"),
            pair("/day", "`day` must be a day such as `2026-11-22`; this is `2026-02-30`"),
            pair("/ids", "`ids` may have at most 2 items; this has 3"),
            pair("/ids/1", "item 2 of `ids` must be a text; this is the number `2`; put it in quotes"),
            pair("/name", "`name` must not be empty"),
            pair("/rhythm", "`rhythm` must be one of `daily`, `weekly`; this is `dayly` (did you mean `daily`?)"),
            pair("/target", "`target` must be at most 7; this is 9"),
        ]
    );
    assert_eq!(errors(&schema, Role::Input, &json!({"name": "x", "at": "20:30", "day": "2026-02-28"})), []);
    assert_eq!(errors(&schema, Role::Input, &json!([])), [pair("", "the input must be an object; this is a list")]);
}

#[test]
fn a_map_with_a_json_type_and_json_schema_keys_is_json_schema() {
    for (schema, value, fits) in [
        (json!({"type": "string"}), json!("text"), true),
        (json!({"type": "string"}), json!({"type": "text"}), false),
        (json!({"type": "text"}), json!({"type": "a record with a field `type`"}), true),
        (json!({"type": "string", "size": "integer"}), json!({"type": "big", "size": 3}), true),
        (json!({"type": "array", "items": {"id": "string"}}), json!([{"id": "a"}]), true),
        (json!({"type": "array", "items": {"id": "string"}}), json!([{"id": 1}]), false),
        (json!({"type": "object", "properties": {"place": {"x": "number"}}}), json!({"place": {"x": "far"}}), false),
        (json!({"enum": ["a", "b"]}), json!("b"), true),
        (json!({}), json!({"anything": [1, null]}), true),
        (json!(false), json!(1), false),
    ] {
        assert_eq!(errors(&schema, Role::Input, &value).is_empty(), fits, "{schema} {value}");
    }
}

#[test]
fn a_schema_cannot_reach_outside_itself_or_make_a_pattern_slow() {
    for (schema, pointer) in [
        (json!({"$ref": "https://example.org/x.json"}), "/$ref"),
        (json!({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}), "/properties/a/$ref"),
        (json!({"type": "string", "pattern": "(?=a)b"}), ""),
        (json!({"type": "string", "pattern": "(a)\\1"}), ""),
    ] {
        let error = record::compile(&schema, Role::Input).err().unwrap_or_else(|| panic!("{schema} compiles"));
        assert!(pointer.is_empty() || error.pointer == pointer, "{schema}: {error:?}");
    }
    let slow_elsewhere = json!({"type": "string", "pattern": "^(a+)+$"});
    assert_eq!(errors(&slow_elsewhere, Role::Input, &json!("a".repeat(50_000) + "!")).len(), 1);
}

#[test]
fn defaults_fill_what_is_missing_and_nothing_else() {
    let schema = json!({"type": "object", "properties": {"due_only": {"type": "boolean", "default": false}, "limit": {"default": 5}, "x": {}}});
    let mut input = json!({"limit": null});
    record::apply_defaults(&schema, &mut input);
    assert_eq!(input, json!({"limit": null, "due_only": false}));
    let mut list = json!([]);
    record::apply_defaults(&schema, &mut list);
    assert_eq!(list, json!([]));
}

#[test]
fn the_number_of_errors_is_bounded() {
    let schema = json!({"type": "array", "items": {"type": "integer"}});
    let found = errors(&schema, Role::Input, &json!(vec!["x"; 10_000]));
    assert_eq!(found.len(), record::FIELD_ERRORS_MAX);
}
