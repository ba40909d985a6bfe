//! `ctx.storage`: every method, every type, every refusal.

use krilin::model::{error::Code, id::AppId, manifest::Manifest};
use serde_json::{Value, json};

use crate::kit::{Kit, app};

fn habits() -> Manifest {
    app(
        "habit-tracker",
        "1.0.0",
        &json!([
            {"name": "habits", "schema": {
                "name": {"type": "string", "nullable": false, "max_length": 80, "search": true},
                "frequency": {"type": "string", "nullable": false, "default": "daily", "enum": ["daily", "weekly"]},
                "target": {"type": "integer", "nullable": false, "default": 1, "min": 1, "max": 7},
                "active": {"type": "boolean", "nullable": false, "default": true},
                "archived_on": "date"
            }, "indexes": [{"columns": ["name"], "unique": true, "where": {"active": true}}], "max_rows": 500},
            {"name": "habit_logs", "schema": {
                "habit_id": {"type": "string", "nullable": false, "references": "habits.id", "on_delete": "cascade"},
                "day": {"type": "date", "nullable": false, "default": {"$today": true}},
                "note": {"type": "text", "max_length": 200},
                "mood": {"type": "integer", "min": 1, "max": 5}
            }, "indexes": [{"columns": ["habit_id", "day"], "unique": true}, {"columns": ["-day"]}]}
        ]),
    )
}

fn id() -> AppId {
    "habit-tracker".parse().unwrap()
}

#[tokio::test]
async fn an_inserted_row_comes_back_with_what_the_platform_adds() {
    let (kit, user) = Kit::with(&habits()).await;
    let pass = kit.open(user, &id()).await;
    let row = pass.call("insert", json!(["habits", {"name": "Read"}])).await;
    assert_eq!(row["name"], "Read");
    assert_eq!(row["frequency"], "daily");
    assert_eq!(row["created_at"], "2026-11-22T17:13:20.500Z");
    assert_eq!(row["version"], 1);
    assert_eq!(row["archived_on"], Value::Null);
    assert!(row.get("user_id").is_none());
    let log = pass.call("insert", json!(["habit_logs", {"habit_id": row["id"]}])).await;
    assert_eq!(log["day"], "2026-11-22");
    pass.commit().await;

    let pass = kit.reading(user, &id()).await;
    assert_eq!(pass.call("find_one", json!(["habits", {"id": row["id"]}])).await, row);
    assert_eq!(pass.rows("habits", json!({"where": {"active": true}, "order_by": {"name": "asc"}})).await, [row]);
    assert_eq!(pass.call("count", json!(["habit_logs"])).await, 1);
    let (code, message) = pass.refused("insert", json!(["habits", {"name": "x"}])).await;
    assert_eq!((code, message.contains("query action")), (Code::PermissionDenied, true));
}

/// A table with a column of each type.
pub fn everything() -> Manifest {
    let types =
        ["string", "text", "integer", "number", "decimal", "boolean", "date", "time", "datetime", "json", "uuid"];
    let mut schema: serde_json::Map<String, Value> =
        types.iter().map(|name| (format!("a_{name}"), json!(name))).collect();
    schema.insert("a_strings".into(), json!("string[]"));
    schema.insert("a_integers".into(), json!("integer[]"));
    schema.insert("stamp".into(), json!({"type": "datetime", "default": {"$now": true}}));
    schema.insert("made".into(), json!({"type": "uuid", "default": {"$uuid": true}}));
    schema.insert("tags".into(), json!({"type": "string[]", "default": ["it's", "a\\b"]}));
    app("all-types", "1.0.0", &json!([{"name": "things", "schema": schema}]))
}

#[tokio::test]
async fn every_type_comes_back_as_it_was_written() {
    let (kit, user) = Kit::with(&everything()).await;
    let pass = kit.open(user, &"all-types".parse().unwrap()).await;
    let given = json!({
        "a_string": "Zoë's \"quote\" \\ 🦀", "a_text": "line\nline", "a_integer": 9_007_199_254_740_992_i64,
        "a_number": 0.1, "a_decimal": "-12345678901234567890.0100", "a_boolean": false, "a_date": "2028-02-29",
        "a_time": "20:30", "a_datetime": "2026-11-22T18:13:20.123456+01:00", "a_json": {"b": [1, null, {"c": "d"}]},
        "a_uuid": "0199B0A5-0000-7000-8000-000000000001", "a_strings": ["x", "y'"], "a_integers": [1, -2]
    });
    let row = pass.call("insert", json!(["things", given])).await;
    let mut expected = given.clone();
    expected["a_datetime"] = json!("2026-11-22T17:13:20.123Z");
    expected["a_uuid"] = json!("0199b0a5-0000-7000-8000-000000000001");
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&row[name], value, "{name}");
        // Each also finds the row again, by equality.
        let found = pass.call("find_one", json!(["things", {name: {"eq": value}}])).await;
        assert_eq!(found["id"], row["id"], "{name}");
    }
    assert_eq!(row["stamp"], crate::kit::NOW);
    assert_eq!(row["tags"], json!(["it's", "a\\b"]));
    assert_eq!(row["made"].as_str().unwrap().len(), 36);
    let seconds = pass.call("update", json!(["things", row["id"], {"a_time": "07:08:09"}])).await;
    assert_eq!(seconds["a_time"], "07:08:09");
    let nulls =
        given.as_object().unwrap().keys().map(|name| (name.clone(), Value::Null)).collect::<serde_json::Map<_, _>>();
    let emptied = pass.call("update", json!(["things", row["id"], nulls])).await;
    assert!(nulls.keys().all(|name| emptied[name].is_null()));
}

#[tokio::test]
async fn a_value_of_another_type_is_refused_with_its_column() {
    let (kit, user) = Kit::with(&everything()).await;
    let pass = kit.open(user, &"all-types".parse().unwrap()).await;
    for (column, wrong) in [
        ("a_string", json!(1)),
        ("a_string", json!("nul \u{0}")),
        ("a_integer", json!(1.5)),
        ("a_integer", json!(9_007_199_254_740_993_i64)),
        ("a_integer", json!("1")),
        ("a_number", json!("1")),
        ("a_decimal", json!("1e5")),
        ("a_decimal", json!("; drop table users")),
        ("a_boolean", json!("true")),
        ("a_date", json!("2026-02-29")),
        ("a_date", json!("2026-1-1")),
        ("a_date", json!("0000-01-01")),
        ("a_time", json!("25:00")),
        ("a_datetime", json!("2026-11-22")),
        ("a_datetime", json!("2026-11-22T10:00:00")),
        ("a_json", json!({"k\u{0}": 1})),
        ("a_uuid", json!("not-a-uuid")),
        ("a_strings", json!(["a", 1])),
        ("a_integers", json!("1")),
    ] {
        let error = pass.try_call("insert", json!(["things", {column: wrong}])).await.unwrap_err();
        assert_eq!(error.code, Code::ValidationFailed, "{column} {wrong}");
        let details = error.details.unwrap();
        assert_eq!(details[0]["pointer"], format!("/{column}"));
        assert!(details[0]["message"].as_str().unwrap().contains(column), "{details}");
    }
    // Nothing of this has hurt the transaction.
    assert_eq!(pass.call("count", json!(["things"])).await, 0);
}

#[tokio::test]
async fn wrong_names_limits_and_choices_are_refused_all_at_once() {
    let (kit, user) = Kit::with(&habits()).await;
    let pass = kit.open(user, &id()).await;
    let error = pass
        .try_call(
            "insert",
            json!(["habits", {"nmae": "x", "target": 9, "frequency": "hourly", "version": 3, "active": null}]),
        )
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::ValidationFailed);
    let details = error.details.unwrap().to_string();
    for part in [
        "did you mean `name`",
        "`target` must be at most 7",
        "one of daily, weekly",
        "`version` is set by the platform",
        "`active` must not be null",
        "`name` is missing",
    ] {
        assert!(details.contains(part), "{part} in {details}");
    }
    let (code, message) = pass.refused("query", json!(["habit", {}])).await;
    assert_eq!(code, Code::ValidationFailed);
    assert!(message.contains("did you mean `habits`"), "{message}");
    let (code, message) = pass.refused("qurey", json!(["habits"])).await;
    assert_eq!(code, Code::NotFound);
    assert!(message.contains("did you mean `storage.query`"), "{message}");
    let (_, message) = pass.refused("query", json!(["habits", {"wehre": {}}])).await;
    assert!(message.contains("did you mean `where`"), "{message}");
    let (code, _) = pass.refused("query", json!(["habits", {"limit": 1001}])).await;
    assert_eq!(code, Code::QuotaExceeded);
    let (code, _) = pass.refused("find_one", json!(["habits", {}])).await;
    assert_eq!(code, Code::ValidationFailed);
    let (code, _) = pass.refused("insert", json!(["habits", {"name": "x".repeat(81)}])).await;
    assert_eq!(code, Code::ValidationFailed);
}

#[tokio::test]
async fn a_taken_key_is_an_error_that_an_app_can_catch() {
    let (kit, user) = Kit::with(&habits()).await;
    let pass = kit.open(user, &id()).await;
    let row = pass.call("insert", json!(["habits", {"name": "Read"}])).await;
    let (code, message) = pass.refused("insert", json!(["habits", {"name": "Read"}])).await;
    assert_eq!(code, Code::UniqueViolation);
    assert!(message.contains("`name`") && !message.contains("app_habit"), "{message}");
    let other = pass.call("insert", json!(["habits", {"name": "Run"}])).await;
    assert_eq!(pass.refused("update", json!(["habits", other["id"], {"name": "Read"}])).await.0, Code::UniqueViolation);
    assert_eq!(
        pass.refused("insert", json!(["habits", {"id": row["id"], "name": "Z"}])).await.0,
        Code::UniqueViolation
    );
    let many = json!([{"name": "Walk"}, {"name": "Read"}]);
    assert_eq!(pass.refused("insert_many", json!(["habits", many])).await.0, Code::UniqueViolation);
    // The key is only over active rows.
    pass.call("insert", json!(["habits", {"name": "Read", "active": false}])).await;

    let same = pass.call("insert", json!(["habits", {"name": "Read", "target": 3}, {"on_conflict": "ignore"}])).await;
    assert_eq!(same, row);
    let upsert = json!({"on_conflict": {"update": ["target"], "by": ["name"]}});
    let updated = pass.call("insert", json!(["habits", {"name": "Read", "target": 5}, upsert])).await;
    assert_eq!((&updated["id"], &updated["target"], &updated["version"]), (&row["id"], &json!(5), &json!(2)));
    let wrong = json!({"on_conflict": {"update": ["target"], "by": ["target"]}});
    assert_eq!(pass.refused("insert", json!(["habits", {"name": "R"}, wrong])).await.0, Code::ValidationFailed);
    assert_eq!(pass.call("count", json!(["habits"])).await, 3);
    pass.commit().await;
}

#[tokio::test]
async fn a_pointer_must_hit_a_row_and_a_held_row_stays() {
    let manifest = app(
        "shelf",
        "1.0.0",
        &json!([
            {"name": "shelves", "schema": {"name": "string"}},
            {"name": "books", "schema": {
                "shelf_id": {"type": "string", "references": "shelves.id"},
                "sequel_of": {"type": "string", "references": "books", "on_delete": "set_null"}
            }}
        ]),
    );
    let (kit, user) = Kit::with(&manifest).await;
    let pass = kit.open(user, &"shelf".parse().unwrap()).await;
    let shelf = pass.call("insert", json!(["shelves", {"name": "A"}])).await;
    let nowhere = "0199b0a5-0000-7000-8000-000000000001";
    let (code, message) = pass.refused("insert", json!(["books", {"shelf_id": nowhere}])).await;
    assert_eq!(code, Code::ForeignKeyViolation);
    assert!(message.contains("`shelf_id`") && message.contains("`shelves`"), "{message}");
    let first = pass.call("insert", json!(["books", {"shelf_id": shelf["id"]}])).await;
    let second = pass.call("insert", json!(["books", {"sequel_of": first["id"]}])).await;
    assert_eq!(
        pass.refused("update", json!(["books", second["id"], {"shelf_id": nowhere}])).await.0,
        Code::ForeignKeyViolation
    );
    assert_eq!(pass.refused("delete", json!(["shelves", shelf["id"]])).await.0, Code::ForeignKeyViolation);
    assert_eq!(pass.call("delete", json!(["books", first["id"]])).await, true);
    let second = pass.call("find_one", json!(["books", {"id": second["id"]}])).await;
    assert_eq!(second["sequel_of"], Value::Null);
    assert_eq!(pass.call("delete", json!(["shelves", shelf["id"]])).await, true);
    assert_eq!(pass.call("delete", json!(["shelves", shelf["id"]])).await, false);
    pass.commit().await;
}

#[tokio::test]
async fn an_expected_version_guards_update_and_delete() {
    let (kit, user) = Kit::with(&habits()).await;
    let pass = kit.open(user, &id()).await;
    let row = pass.call("insert", json!(["habits", {"name": "Read"}])).await;
    let habit = &row["id"];
    let updated = pass.call("update", json!(["habits", habit, {"target": 2}, {"expected_version": 1}])).await;
    assert_eq!(updated["version"], 2);
    let stale = json!({"expected_version": 1});
    let error = pass.try_call("update", json!(["habits", habit, {"target": 3}, stale])).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert_eq!(error.details.unwrap()["version"], 2);
    assert_eq!(pass.refused("delete", json!(["habits", habit, stale])).await.0, Code::Conflict);
    for nowhere in ["no-such-id", "0199b0a5-0000-7000-8000-000000000001"] {
        assert_eq!(pass.refused("update", json!(["habits", nowhere, {"target": 3}])).await.0, Code::NotFound);
        assert_eq!(pass.refused("update", json!(["habits", nowhere, {}, stale])).await.0, Code::NotFound);
        assert_eq!(pass.call("delete", json!(["habits", nowhere])).await, false);
        assert_eq!(pass.call("delete", json!(["habits", nowhere, stale])).await, false);
    }
    assert_eq!(pass.refused("update", json!(["habits", habit, {"id": "x"}])).await.0, Code::ValidationFailed);
    assert_eq!(pass.call("delete", json!(["habits", habit, {"expected_version": 2}])).await, true);
}

#[tokio::test]
async fn a_softly_deleted_row_is_out_of_sight_and_gives_its_key_free() {
    let manifest = app(
        "notes",
        "1.0.0",
        &json!([{"name": "notes", "soft_delete": true, "schema": {
            "title": {"type": "string", "unique": true}
        }}]),
    );
    let (kit, user) = Kit::with(&manifest).await;
    let pass = kit.open(user, &"notes".parse().unwrap()).await;
    let row = pass.call("insert", json!(["notes", {"title": "A"}])).await;
    assert!(row.get("deleted_at").is_none());
    assert_eq!(pass.call("delete", json!(["notes", row["id"]])).await, true);
    assert_eq!(pass.call("delete", json!(["notes", row["id"]])).await, false);
    assert_eq!(pass.call("count", json!(["notes"])).await, 0);
    assert_eq!(pass.call("find_one", json!(["notes", {"id": row["id"]}])).await, Value::Null);
    assert_eq!(pass.refused("update", json!(["notes", row["id"], {"title": "B"}])).await.0, Code::NotFound);
    let again = pass.call("insert", json!(["notes", {"title": "A"}, {"on_conflict": "ignore"}])).await;
    assert_ne!(again["id"], row["id"]);
    let all = pass.rows("notes", json!({"include_deleted": true})).await;
    assert_eq!(all.len(), 2);
    assert_eq!(all[0]["deleted_at"], crate::kit::NOW);
}

#[tokio::test]
async fn max_rows_holds_however_the_rows_come() {
    let manifest = app("notes", "1.0.0", &json!([{"name": "notes", "max_rows": 700, "schema": {"n": "integer"}}]));
    let (kit, user) = Kit::with(&manifest).await;
    let rows = |n: usize| (0..n).map(|n| json!({"n": n})).collect::<Vec<_>>();
    let pass = kit.open(user, &"notes".parse().unwrap()).await;
    pass.call("insert_many", json!(["notes", rows(600)])).await;
    assert_eq!(pass.refused("insert_many", json!(["notes", rows(101)])).await.0, Code::QuotaExceeded);
    pass.commit().await;
    let mut there = 600;
    // Each pass of its own chance; the mark on the installation makes every insert count from nine tenths on.
    'filling: loop {
        let pass = kit.open(user, &"notes".parse().unwrap()).await;
        for _ in 0..50 {
            match pass.try_call("insert", json!(["notes", {"n": 1}])).await {
                Ok(_) => there += 1,
                Err(error) => {
                    assert_eq!(error.code, Code::QuotaExceeded);
                    assert!(error.message.contains("`notes`") && error.message.contains("700"), "{error}");
                    break 'filling;
                }
            }
        }
        pass.commit().await;
        assert!(there <= 700);
    }
    assert_eq!(there, 700);
}

#[tokio::test]
async fn a_pass_has_limits_on_calls_rows_and_bytes() {
    let manifest = app("notes", "1.0.0", &json!([{"name": "notes", "schema": {"text": "text"}}]));
    let (kit, user) = Kit::with(&manifest).await;
    let app = "notes".parse().unwrap();
    let pass = kit.open(user, &app).await;
    let refused = pass.refused("insert", json!(["notes", {"text": "x".repeat(65_537)}])).await;
    assert_eq!(refused.0, Code::ValidationFailed);
    let wide: Vec<Value> = (0..30).map(|_| json!({"text": "x".repeat(60_000)})).collect();
    pass.call("insert_many", json!(["notes", wide])).await;
    let (code, message) = pass.refused("query", json!(["notes"])).await;
    assert_eq!(code, Code::QuotaExceeded);
    assert!(message.contains("lower limit"), "{message}");
    assert_eq!(pass.rows("notes", json!({"limit": 10})).await.len(), 10);
    drop(pass);

    let pass = kit.open(user, &app).await;
    let many: Vec<Value> = (0..1000).map(|_| json!({})).collect();
    pass.call("insert_many", json!(["notes", many])).await;
    for _ in 0..10 {
        pass.call("query", json!(["notes", {"limit": 1000}])).await;
    }
    assert_eq!(pass.refused("query", json!(["notes", {"limit": 1000}])).await.0, Code::QuotaExceeded);
    let more: Vec<Value> = (0..1001).map(|_| json!({})).collect();
    assert_eq!(pass.refused("insert_many", json!(["notes", more])).await.0, Code::QuotaExceeded);
    drop(pass);

    let pass = kit.open(user, &app).await;
    for _ in 0..200 {
        pass.call("count", json!(["notes"])).await;
    }
    let (code, message) = pass.refused("count", json!(["notes"])).await;
    assert_eq!(code, Code::QuotaExceeded);
    assert!(message.contains("200 calls"), "{message}");
}
