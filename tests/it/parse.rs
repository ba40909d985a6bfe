//! What comes into the sandbox as JSON is in it what `JSON.parse` would have made of it.

use krilin::sandbox::{Facts, Limits, Pool, Run};
use proptest::{collection, prelude::*, test_runner::TestRunner};
use serde_json::{Value, json, value::RawValue};

use crate::sandbox::{Scripted, pool};

/// Compares its input with what the engine's parser makes of the same text, down to prototypes and attributes.
const COMPARE: &str = r#"
  const shape = (value) => {
    if (typeof value === "number") return Object.is(value, -0) ? "-0" : String(value);
    if (typeof value !== "object" || value === null) return [typeof value, value];
    const own = Object.getOwnPropertyDescriptors(value);
    const proto = Object.getPrototypeOf(value);
    const kind = [Array.isArray(value), proto === Object.prototype, proto === Array.prototype, Object.isExtensible(value)];
    return [kind, Reflect.ownKeys(own).map((key) => [key, { ...own[key], value: shape(own[key].value) }])];
  };
  Object.defineProperty(Object.prototype, "trap", { set() { throw new Error("a setter ran"); } });
  export function main(ctx, input) {
    const [seen, meant] = [input.value, JSON.parse(input.text)].map((value) => JSON.stringify(shape(value)));
    return seen === meant ? "same" : `${seen} is not ${meant}`;
  }
"#;

async fn verdict(pool: &Pool, text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    let input = RawValue::from_string(format!(r#"{{"value":{text},"text":{quoted}}}"#)).unwrap();
    let (bundle, facts) = (krilin::model::bundle::Bundle::new("app.js", COMPARE), Facts::nobody());
    let (limits, now) = (Limits::default(), chrono::DateTime::UNIX_EPOCH);
    let run = Run { bundle: &bundle, entry: "main", input: &input, facts: &facts, limits, seed: 1, now };
    let pass = pool.run(run, &Scripted::default()).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    serde_json::from_str(pass.value.get()).unwrap()
}

#[tokio::test]
async fn json_of_every_kind_is_read_as_the_engine_reads_it() {
    let pool = pool(1);
    let deep = format!("{}1{}", "[".repeat(70), "]".repeat(70));
    let many: Vec<Value> = (0..3).map(|_| (0..90).map(|n| (format!("k{n}"), json!(n))).collect()).collect();
    let many = serde_json::to_string(&many).unwrap();
    let texts = [
        "null",
        "true",
        "[]",
        "{}",
        "[[],{}]",
        "0",
        "-0",
        "7",
        "-7",
        "999999999",
        "-999999999",
        "1000000000",
        "2147483648",
        "-2147483649",
        "9007199254740993",
        "1e3",
        "1E-7",
        "0.1",
        "-0.0",
        "1e999",
        "123456789012345678901",
        r#""""#,
        r#""plain""#,
        r#""\n\t\"\\\/""#,
        r#""\u0041\ud83d\ude00""#,
        r#""\ud800""#,
        r#""ü€😀""#,
        r#""a\\""#,
        r#"{"a":1,"a":2}"#,
        r#"{"__proto__":{"x":1},"constructor":2,"toString":3,"trap":4}"#,
        r#"{"2":"b","1":"a","x":0,"-1":1,"4294967295":2,"":3}"#,
        r#"{"a\u0062":1,"ab":2}"#,
        r#"{"tab\tkey":1}"#,
        r#"[{"a":1,"b":{"c":2}},{"a":3,"b":{"c":4}},{"b":{"d":5},"a":6},{"ab":7,"a":8}]"#,
        " [ 1 ,\n\t{ \"a\" : [ true , false , null ] , \"b\" : \"x\" } ]\r\n ",
        &deep,
        &many,
    ];
    for text in texts {
        assert_eq!(verdict(&pool, text).await, "same", "{text}");
    }
}

#[tokio::test]
async fn any_json_is_read_as_the_engine_reads_it() {
    let pool = pool(1);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z ]{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof!["[ab]{0,2}", "[0-9]{1,2}", any::<String>()];
    let values = leaf.prop_recursive(4, 60, 8, move |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            collection::vec((key.clone(), inner), 0..8).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    });
    let mut runner = TestRunner::deterministic();
    for _ in 0..300 {
        let value = values.new_tree(&mut runner).unwrap().current();
        let text = value.to_string();
        assert_eq!(verdict(&pool, &text).await, "same", "{text}");
    }
}
