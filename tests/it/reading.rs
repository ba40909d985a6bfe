//! `ctx.storage` as a reader sees it: values, conditions, pages, groups.

use krilin::model::error::Code;
use serde_json::{Value, json};

use crate::{
    kit::{Kit, app},
    storage::everything,
};

#[tokio::test]
async fn where_compares_combines_and_negates() {
    let manifest = app(
        "notes",
        "1.0.0",
        &json!([{"name": "notes", "schema": {
            "n": "integer", "title": {"type": "string", "search": true}, "tags": "string[]", "extra": "json",
            "any_day": "date"
        }}]),
    );
    let (kit, user) = Kit::with(&manifest).await;
    let pass = kit.open(user, &"notes".parse().unwrap()).await;
    let rows = json!([
        {"n": 1, "title": "Alpha bravo", "tags": ["x", "y"], "extra": {"k": {"deep": 1}}, "any_day": "2026-01-01"},
        {"n": 2, "title": "alphabet", "tags": ["y"], "extra": [1, 2]},
        {"n": 3, "title": "100% sure_thing", "tags": []},
        {"n": null, "title": null}
    ]);
    let made = pass.call("insert_many", json!(["notes", rows])).await;
    assert_eq!((made["count"].clone(), made["ids"].as_array().unwrap().len()), (json!(4), 4));
    let cases = [
        (json!({}), vec![1, 2, 3, 0]),
        (json!({"n": 2}), vec![2]),
        (json!({"n": null}), vec![0]),
        (json!({"n": {"ne": 2}}), vec![1, 3, 0]),
        (json!({"n": {"gt": 1, "lte": 3}}), vec![2, 3]),
        (json!({"n": {"in": [1, 3, 99]}}), vec![1, 3]),
        (json!({"n": {"in": []}}), vec![]),
        (json!({"title": {"like": "alpha%"}}), vec![2]),
        (json!({"title": {"like": "%\\%%"}}), vec![3]),
        (json!({"title": {"contains": "e_t"}}), vec![3]),
        (json!({"n": {"is_null": false}}), vec![1, 2, 3]),
        (json!({"tags": {"contains": "y"}}), vec![1, 2]),
        (json!({"tags": {"contains": ["x", "y"]}}), vec![1]),
        (json!({"extra": {"contains": {"k": {"deep": 1}}}}), vec![1]),
        (json!({"any_day": {"lt": "2026-01-02"}}), vec![1]),
        (json!({"any": [{"n": 1}, {"n": 3}]}), vec![1, 3]),
        (json!({"any": []}), vec![]),
        (json!({"all": [{"n": {"gte": 1}}, {"tags": {"contains": "y"}}]}), vec![1, 2]),
        (json!({"not": {"n": {"gte": 2}}}), vec![1, 0]),
        (json!({"not": {"any": [{"n": 1}, {"not": {"n": 2}}]}}), vec![2]),
        (json!({"id": "no-such-id"}), vec![]),
        (json!({"id": {"in": ["no-such-id"]}}), vec![]),
    ];
    for (condition, expected) in cases {
        let rows = pass.rows("notes", json!({"where": condition, "order_by": {"n": "asc"}})).await;
        let found: Vec<i64> = rows.iter().map(|row| row["n"].as_i64().unwrap_or(0)).collect();
        assert_eq!(found, expected, "{condition}");
        assert_eq!(pass.call("count", json!(["notes", condition])).await, expected.len(), "{condition}");
    }
    let found = pass.rows("notes", json!({"search": "bravo", "select": ["n", "title"]})).await;
    assert_eq!(found, [json!({"n": 1, "title": "Alpha bravo"})]);
    for wrong in [
        json!({"n": {"gt": null}}),
        json!({"n": {"near": 3}}),
        json!({"title": {"like": "ends \\"}}),
        json!({"extra": {"gt": 1}}),
        json!({"any": {"n": 1}}),
        json!({"n": {"in": [null]}}),
        json!(["n"]),
    ] {
        assert_eq!(pass.refused("query", json!(["notes", {"where": wrong}])).await.0, Code::ValidationFailed);
    }
}

#[tokio::test]
async fn pages_follow_each_other_through_ties_and_nulls() {
    let manifest = app(
        "notes",
        "1.0.0",
        &json!([{"name": "notes", "schema": {
            "a": "integer", "b": "datetime", "c": "decimal"
        }}]),
    );
    let (kit, user) = Kit::with(&manifest).await;
    let pass = kit.open(user, &"notes".parse().unwrap()).await;
    let rows: Vec<Value> = (0..60)
        .map(|n| {
            let a = if n % 4 == 0 { Value::Null } else { json!(n % 3) };
            let b =
                if n % 5 == 0 { Value::Null } else { json!(format!("2026-01-0{}T00:00:00.{:03}Z", 1 + n % 2, n % 7)) };
            json!({"a": a, "b": b, "c": format!("{}.5", n % 2)})
        })
        .collect();
    pass.call("insert_many", json!(["notes", rows])).await;
    for order in [
        json!({}),
        json!({"a": "asc"}),
        json!({"a": "desc", "b": "asc"}),
        json!({"b": "desc", "c": "desc", "a": "asc"}),
    ] {
        let whole = pass.rows("notes", json!({"order_by": order})).await;
        let mut paged = Vec::new();
        let mut after = Value::Null;
        loop {
            let page = pass.call("query", json!(["notes", {"order_by": order, "limit": 7, "after": after}])).await;
            paged.extend(page["rows"].as_array().unwrap().clone());
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
        }
        assert_eq!(paged, whole, "{order}");
        assert_eq!(paged.len(), 60);
    }
    let page = pass.call("query", json!(["notes", {"order_by": {"a": "asc"}, "limit": 1}])).await;
    for wrong in [json!(page["next"]), json!("zz"), json!(5), json!("7b7d")] {
        let order = json!({"b": "asc"});
        let refused = pass.refused("query", json!(["notes", {"order_by": order, "after": wrong}])).await;
        assert_eq!(refused.0, Code::ValidationFailed);
    }
}

#[tokio::test]
async fn rows_come_back_alike_however_they_were_written_and_as_postgres_would_write_them() {
    let (kit, user) = Kit::with(&everything()).await;
    let pass = kit.open(user, &"all-types".parse().unwrap()).await;
    let rows = [
        json!({"a_string": "\u{1}\t\u{7f}\u{2028}", "a_number": 5, "a_decimal": "0.50", "a_time": "00:00:01",
            "a_json": "\"text\"", "a_strings": [], "a_integers": [], "stamp": "0001-01-01T00:00:00.000Z"}),
        json!({"a_number": -1.5e-9, "a_integer": -9_007_199_254_740_992_i64, "a_date": "0001-01-01", "a_boolean": true,
            "a_json": [], "a_strings": ["null", "{,}", "\"\\"], "stamp": "9999-12-31T23:59:59.999Z"}),
        json!({"a_number": 1.797e308, "a_date": "9999-12-31", "a_json": {"z": {"a": 1.50}, "b": "\\"}, "a_time": "23:59"}),
        json!({"a_json": null, "tags": null, "a_number": 1_234_567_890_123_456_789_i64}),
    ];
    let mut single = Vec::new();
    for row in &rows {
        let written = pass.call("insert", json!(["things", row])).await;
        for (name, value) in row.as_object().unwrap() {
            let same =
                if value.is_number() { written[name].as_f64() == value.as_f64() } else { written[name] == *value };
            assert!(same, "{name}: {value} became {}", written[name]);
        }
        single.push(written);
    }
    pass.call("insert_many", json!(["things", rows])).await;
    pass.commit().await;

    let pass = kit.reading(user, &"all-types".parse().unwrap()).await;
    let stored = pass.rows("things", json!({"order_by": {"id": "asc"}})).await;
    assert_eq!(stored[..4], single);
    for (one, other) in stored[..4].iter().zip(&stored[4..]) {
        let given = |row: &Value| {
            let members = row.as_object().unwrap().iter().filter(|(name, _)| !["id", "made"].contains(&name.as_str()));
            members.map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>()
        };
        assert_eq!(given(one), given(other));
    }
    let mut transaction = pass.0.end().unwrap().transaction;
    let theirs: Vec<String> = sqlx::query_scalar(BY_POSTGRES).fetch_all(&mut *transaction).await.unwrap();
    for (ours, theirs) in stored.iter().zip(&theirs) {
        let theirs: Value = serde_json::from_str(theirs).unwrap();
        for (name, value) in theirs.as_object().unwrap() {
            assert_eq!(&ours[name], value, "{name}");
        }
    }
    assert_eq!(theirs.len(), 8);
}

const BY_POSTGRES: &str = r#"
select row_to_json(r)::text
from (
    select id, a_string, a_text, a_integer, a_number, a_decimal::text, a_boolean, a_date, a_json, a_uuid, a_strings,
        a_integers, made, tags, version,
        case when extract(second from a_time) = 0 then left(a_time::text, 5) else a_time::text end as a_time,
        to_char(a_datetime at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as a_datetime,
        to_char(stamp at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as stamp,
        to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as created_at
    from "app_all-types_things" things
    order by things.id
) r"#;

#[tokio::test]
async fn a_page_begins_exactly_where_the_one_before_ended_whatever_is_selected() {
    let schema = json!({
        "t": "text", "i": "integer", "n": "number", "d": "decimal", "b": "boolean", "day": "date", "at": "time",
        "stamp": "datetime", "made": "uuid"
    });
    let (kit, user) = Kit::with(&app("notes", "1.0.0", &json!([{"name": "notes", "schema": schema}]))).await;
    let pass = kit.open(user, &"notes".parse().unwrap()).await;
    let rows: Vec<Value> = (0..20)
        .map(|n| match n {
            13 => json!({}),
            _ => json!({
                "t": format!("\"{}\\\n", n % 7), "i": (n % 5) * 1_000_000_000_000_i64, "n": f64::from(i32::try_from(n).unwrap()).exp() / 3.0 - 9.0,
                "d": format!("{}.{}0", n % 3, n), "b": n % 2 == 0, "day": format!("2026-02-{:02}", 1 + n % 9),
                "at": format!("20:30:{:02}", n % 4), "stamp": format!("2026-01-01T00:00:00.{n:03}Z"),
                "made": format!("0199b0a5-0000-7000-8000-0000000000{:02}", n % 6)
            }),
        })
        .collect();
    pass.call("insert_many", json!(["notes", rows])).await;
    for column in schema.as_object().unwrap().keys().map(String::as_str).chain(["created_at", "version", "id"]) {
        for (direction, select) in [("asc", json!(["id"])), ("desc", json!([column, "d"]))] {
            let query = json!({"order_by": {column: direction}, "select": select});
            let whole = pass.rows("notes", query.clone()).await;
            let (mut paged, mut after) = (Vec::new(), Value::Null);
            while paged.is_empty() || !after.is_null() {
                let mut query = query.clone();
                query["limit"] = json!(3);
                query["after"] = after;
                let page = pass.call("query", json!(["notes", query])).await;
                paged.extend(page["rows"].as_array().unwrap().clone());
                after = page["next"].clone();
                assert!(paged.len() <= 20, "{column} {direction}: {paged:?}");
            }
            assert_eq!(paged, whole, "{column} {direction}");
            assert_eq!(paged[0].as_object().unwrap().len(), if select[1] == "d" && column != "d" { 2 } else { 1 });
        }
    }
}

#[tokio::test]
async fn aggregates_group_by_column_and_by_the_users_days() {
    let manifest = app(
        "log",
        "1.0.0",
        &json!([{"name": "entries", "schema": {
            "kind": "string", "at": "datetime", "day": "date", "amount": "decimal", "n": "integer"
        }}]),
    );
    let kit = Kit::new().await;
    kit.publish(&manifest).await;
    let user = kit.user("Europe/Berlin").await;
    kit.install(user, &manifest).await;
    let pass = kit.open(user, &"log".parse().unwrap()).await;
    // Berlin's clocks go back on 25 October 2026: that day has 25 hours, from 22:00Z to 23:00Z.
    let rows = json!([
        {"kind": "a", "at": "2026-10-24T21:59:59Z", "day": "2026-10-24", "amount": "0.10", "n": 1},
        {"kind": "a", "at": "2026-10-24T22:00:00Z", "day": "2026-10-25", "amount": "0.20", "n": 2},
        {"kind": "b", "at": "2026-10-25T22:59:59.999Z", "day": "2026-10-25", "amount": "0.30", "n": 3},
        {"kind": "b", "at": "2026-10-25T23:00:00Z", "day": "2026-10-26", "amount": null, "n": null}
    ]);
    pass.call("insert_many", json!(["entries", rows])).await;
    let by_day =
        pass.call("aggregate", json!(["entries", {"group_by": [{"bucket": "day", "of": "at"}], "count": true}])).await;
    assert_eq!(
        by_day,
        json!([
            {"day": "2026-10-24", "count": 1}, {"day": "2026-10-25", "count": 2}, {"day": "2026-10-26", "count": 1}
        ])
    );
    let weeks = json!({"group_by": ["kind", {"bucket": "week", "of": "day"}], "count": true, "sum": ["amount", "n"]});
    assert_eq!(
        pass.call("aggregate", json!(["entries", weeks])).await,
        json!([
            {"kind": "a", "week": "2026-10-19", "count": 2, "sum_amount": "0.30", "sum_n": 3},
            {"kind": "b", "week": "2026-10-19", "count": 1, "sum_amount": "0.30", "sum_n": 3},
            {"kind": "b", "week": "2026-10-26", "count": 1, "sum_amount": null, "sum_n": null}
        ])
    );
    let whole = json!({"avg": ["n"], "min": ["at", "day"], "max": ["amount"], "where": {"kind": "a"}});
    assert_eq!(
        pass.call("aggregate", json!(["entries", whole])).await,
        json!([
            {"avg_n": 1.5, "min_at": "2026-10-24T21:59:59.000Z", "min_day": "2026-10-24", "max_amount": "0.20"}
        ])
    );
    let months = json!({"group_by": [{"bucket": "month", "of": "at"}]});
    assert_eq!(pass.call("aggregate", json!(["entries", months])).await, json!([{"month": "2026-10-01", "count": 4}]));
    for wrong in [
        json!({"sum": ["kind"]}),
        json!({"group_by": [{"bucket": "year", "of": "at"}]}),
        json!({"group_by": [{"bucket": "day", "of": "n"}]}),
        json!({"group_by": ["day", {"bucket": "day", "of": "at"}]}),
        json!({"group_by": ["knid"]}),
        json!({"count": false}),
    ] {
        assert_eq!(pass.refused("aggregate", json!(["entries", wrong])).await.0, Code::ValidationFailed, "{wrong}");
    }
}

#[tokio::test]
async fn weeks_begin_when_the_users_do() {
    let manifest = app("log", "1.0.0", &json!([{"name": "entries", "schema": {"day": "date"}}]));
    let (kit, user) = Kit::with(&manifest).await;
    sqlx::query("update users set week_start = 'sunday'").execute(&kit.world.pool).await.unwrap();
    let pass = kit.open(user, &"log".parse().unwrap()).await;
    let rows: Vec<Value> = ["2026-11-21", "2026-11-22", "2026-11-28"].iter().map(|day| json!({"day": day})).collect();
    pass.call("insert_many", json!(["entries", rows])).await;
    let weeks = json!({"group_by": [{"bucket": "week", "of": "day"}], "count": true});
    assert_eq!(
        pass.call("aggregate", json!(["entries", weeks])).await,
        json!([{"week": "2026-11-15", "count": 1}, {"week": "2026-11-22", "count": 2}])
    );
}
