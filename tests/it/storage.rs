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
