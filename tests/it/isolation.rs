//! Nothing crosses: not between users, not between apps, not through `ctx` and not around it.

use std::collections::BTreeMap;

use krilin::model::{
    error::Code,
    host::{Call, Host},
    id::{AppId, UserId},
    manifest::Manifest,
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};

use crate::kit::{Kit, app};

/// Both apps have the same table names, so that a mix-up would not even fail.
fn twin(id: &str) -> Manifest {
    app(
        id,
        "1.0.0",
        &json!([
            {"name": "habits", "schema": {"name": {"type": "string", "unique": true}, "n": "integer"}},
            {"name": "logs", "schema": {"habit_id": {"type": "string", "references": "habits.id", "on_delete": "cascade"}}}
        ]),
    )
}

const CALLS: usize = 10_000;
const CALLS_PER_PASS: usize = 200;

/// What one user should have in the habits of one app: name and number by id.
type Model = BTreeMap<String, (String, i64)>;

/// xorshift64*: enough chance for a test, and the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides
    }
}

fn a_call(dice: &mut Dice, ids: &[String]) -> Call {
    let id = &ids[dice.roll(ids.len())];
    let name = format!("h{}", dice.roll(40));
    let n = dice.roll(10);
    let (method, args) = match dice.roll(10) {
        0 | 1 => ("insert", json!(["habits", {"id": id, "name": name, "n": n}])),
        2 => ("insert", json!(["habits", {"id": id, "name": name, "n": n}, {"on_conflict": "ignore"}])),
        3 | 4 => ("update", json!(["habits", id, {"n": n}])),
        5 => ("update", json!(["habits", id, {"name": name}])),
        6 => ("delete", json!(["habits", id])),
        7 => ("find_one", json!(["habits", {"id": id}])),
        8 => ("query", json!(["habits", {"where": {"n": {"gte": n}}, "limit": 1000}])),
        _ => ("count", json!(["habits", {"any": [{"name": name}, {"n": n}]}])),
    };
    Call { api: "storage".to_owned(), method: method.to_owned(), args: args.as_array().unwrap().clone() }
}

/// What the call should come to for somebody who has the world to themselves.
fn expected(model: &mut Model, call: &Call) -> Result<Value, Code> {
    let row = |id: &str, (name, n): &(String, i64)| json!({"id": id, "name": name, "n": n});
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match call.method.as_str() {
        "insert" => {
            let (id, name, n) =
                (text(&call.args[1]["id"]), text(&call.args[1]["name"]), call.args[1]["n"].as_i64().unwrap());
            let same_id = model.get_key_value(&id);
            let holder = same_id.or_else(|| model.iter().find(|(_, (taken, _))| *taken == name));
            match holder {
                Some((held, value)) if call.args.len() == 3 => Ok(row(held, value)),
                Some(_) => Err(Code::UniqueViolation),
                None => {
                    model.insert(id.clone(), (name, n));
                    Ok(row(&id, &model[&id]))
                }
            }
        }
        "update" => {
            let id = text(&call.args[1]);
            let name = call.args[2].get("name").map(text);
            let taken = |(other, (held, _)): (&String, &(String, i64))| *other != id && Some(held) == name.as_ref();
            if !model.contains_key(&id) {
                return Err(Code::NotFound);
            }
            if model.iter().any(taken) {
                return Err(Code::UniqueViolation);
            }
            let value = model.get_mut(&id).unwrap();
            value.0 = name.unwrap_or_else(|| value.0.clone());
            value.1 = call.args[2]["n"].as_i64().unwrap_or(value.1);
            Ok(row(&id, value))
        }
        "delete" => Ok(json!(model.remove(&text(&call.args[1])).is_some())),
        "find_one" => {
            let id = text(&call.args[1]["id"]);
            Ok(model.get(&id).map_or(Value::Null, |value| row(&id, value)))
        }
        "query" => {
            let least = call.args[1]["where"]["n"]["gte"].as_i64().unwrap();
            Ok(model.iter().filter(|(_, value)| value.1 >= least).map(|(id, value)| row(id, value)).collect())
        }
        _ => {
            let any = &call.args[1]["any"];
            let hit = |value: &(String, i64)| any[0]["name"] == value.0 || any[1]["n"] == value.1;
            Ok(json!(model.values().filter(|value| hit(value)).count()))
        }
    }
}

/// The part of an answer that the model knows.
fn plain(answer: Value) -> Value {
    match answer {
        Value::Array(rows) => rows.into_iter().map(plain).collect(),
        Value::Object(mut row) if row.contains_key("rows") => plain(row.remove("rows").unwrap()),
        Value::Object(row) => json!({"id": row["id"], "name": row["name"], "n": row["n"]}),
        other => other,
    }
}

#[tokio::test]
async fn ten_thousand_random_calls_of_two_users_in_two_apps_never_cross() {
    let apps = [twin("one"), twin("two")];
    let kit = Kit::new().await;
    let users = [kit.user("UTC").await, kit.user("Asia/Tokyo").await];
    for manifest in &apps {
        kit.publish(manifest).await;
        for user in users {
            kit.install(user, manifest).await;
        }
    }
    // Ids are shared on purpose: everybody knows everybody's.
    let ids: Vec<String> = (0..60).map(|n| format!("0199b0a5-0000-7000-8000-{n:012}")).collect();
    let mut dice = Dice(0x5EED);
    let mut models: BTreeMap<(usize, usize), Model> = BTreeMap::new();
    for _ in 0..CALLS / CALLS_PER_PASS {
        let (user, app) = (dice.roll(2), dice.roll(2));
        let pass = kit.open(users[user], &apps[app].metadata.id).await;
        let calls: Vec<Call> = (0..CALLS_PER_PASS).map(|_| a_call(&mut dice, &ids)).collect();
        let mut model = models.get(&(user, app)).cloned().unwrap_or_default();
        for (call, settled) in calls.iter().zip(pass.0.settle(calls.clone()).await) {
            let answer = settled.map(|raw| plain(serde_json::from_str(raw.get()).unwrap())).map_err(|error| error.code);
            assert_eq!(answer, expected(&mut model, call), "{call:?}");
        }
        // One pass in five is given up, as a failed action is.
        if dice.roll(5) > 0 {
            pass.commit().await;
            models.insert((user, app), model);
        }
    }
    for (index, manifest) in apps.iter().enumerate() {
        let stored = everything(&kit, &manifest.metadata.id).await;
        let expected = users.iter().enumerate().flat_map(|(user, id)| {
            let model = models.get(&(user, index)).cloned().unwrap_or_default();
            model.into_iter().map(|(row, (name, n))| (*id, row, name, n)).collect::<Vec<_>>()
        });
        let mut expected: Vec<_> = expected.collect();
        expected.sort();
        assert_eq!(stored, expected);
    }
}

/// All rows of all users, past row-level security.
async fn everything(kit: &Kit, app: &AppId) -> Vec<(UserId, String, String, i64)> {
    let table = format!("\"app_{app}_habits\"");
    let lift = format!("alter table {table} no force row level security");
    sqlx::raw_sql(sqlx::AssertSqlSafe(lift)).execute(&kit.world.owner).await.unwrap();
    let select = format!("select user_id, id::text, name, n from {table} order by 1, 2");
    let rows = sqlx::query(sqlx::AssertSqlSafe(select)).fetch_all(&kit.world.owner).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

async fn speaks_as(db: &mut PgConnection, user: Option<UserId>, app: &str) {
    let statement = "select set_config('krilin.user_id', $1, false), set_config('krilin.app_id', $2, false)";
    let user = user.map(|user| user.to_string()).unwrap_or_default();
    sqlx::query(statement).bind(user).bind(app).execute(db).await.unwrap();
}

async fn seen(db: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from \"app_one_habits\"").fetch_one(db).await.unwrap()
}

#[tokio::test]
async fn sql_without_a_user_sees_no_row_and_cannot_insert() {
    let (kit, user) = Kit::with(&twin("one")).await;
    let stranger = kit.user("UTC").await;
    let pass = kit.open(user, &"one".parse().unwrap()).await;
    pass.call("insert", json!(["habits", {"name": "Read"}])).await;
    pass.commit().await;
    for url in [&kit.world.url, &kit.world.owner_url] {
        let mut db = PgConnection::connect(url).await.unwrap();
        sqlx::query("set search_path = krilin").execute(&mut db).await.unwrap();
        let insert = "insert into \"app_one_habits\" (user_id, id, created_at, updated_at, version)
                      values ($1, gen_random_uuid(), now(), now(), 1)";
        assert_eq!(seen(&mut db).await, 0);
        assert!(sqlx::query(insert).bind(user).execute(&mut db).await.is_err());
        for (who, app) in [(None, "one"), (Some(user), ""), (Some(user), "two"), (Some(stranger), "one")] {
            speaks_as(&mut db, who, app).await;
            assert_eq!(seen(&mut db).await, 0, "{who:?} {app}");
            assert!(sqlx::query(insert).bind(user).execute(&mut db).await.is_err(), "{who:?} {app}");
            let touched = sqlx::query("update \"app_one_habits\" set n = 1").execute(&mut db).await.unwrap();
            assert_eq!(touched.rows_affected(), 0);
            let deleted = sqlx::query("delete from \"app_one_habits\"").execute(&mut db).await.unwrap();
            assert_eq!(deleted.rows_affected(), 0);
        }
        speaks_as(&mut db, Some(user), "one").await;
        assert_eq!(seen(&mut db).await, 1);
        // Not even with the right settings can a row be given to somebody else.
        assert!(sqlx::query(insert).bind(stranger).execute(&mut db).await.is_err());
        assert!(
            sqlx::query("update \"app_one_habits\" set user_id = $1").bind(stranger).execute(&mut db).await.is_err()
        );
    }
    let mut runtime = PgConnection::connect(&kit.world.url).await.unwrap();
    for forbidden in [
        "alter table krilin.\"app_one_habits\" disable row level security",
        "drop policy own_rows on krilin.\"app_one_habits\"",
        "set role krilin_owner",
        "truncate krilin.\"app_one_habits\"",
        "update krilin.app_versions set code = ''",
        "insert into krilin.apps (id, name, current_version) values ('evil', 'e', '1.0.0')",
    ] {
        assert!(sqlx::raw_sql(forbidden).execute(&mut runtime).await.is_err(), "{forbidden}");
    }
}

#[tokio::test]
async fn keys_and_ids_are_each_users_own_and_pointers_stay_at_home() {
    let (kit, ada) = Kit::with(&twin("one")).await;
    let app: AppId = "one".parse().unwrap();
    let bob = kit.user("UTC").await;
    kit.install(bob, &twin("one")).await;
    let pass = kit.open(ada, &app).await;
    let habit = pass.call("insert", json!(["habits", {"name": "Read"}])).await;
    pass.call("insert", json!(["logs", {"habit_id": habit["id"]}])).await;
    pass.commit().await;

    let pass = kit.open(bob, &app).await;
    let refused = pass.refused("insert", json!(["logs", {"habit_id": habit["id"]}])).await;
    assert_eq!(refused.0, Code::ForeignKeyViolation);
    assert_eq!(pass.refused("update", json!(["habits", habit["id"], {"n": 1}])).await.0, Code::NotFound);
    assert_eq!(pass.call("delete", json!(["habits", habit["id"]])).await, false);
    // The same name and even the same id: to Bob, Ada's row does not exist, and no error tells him otherwise.
    pass.call("insert", json!(["habits", {"id": habit["id"], "name": "Read"}])).await;
    pass.call("insert", json!(["logs", {"habit_id": habit["id"]}])).await;
    assert_eq!(pass.call("delete", json!(["habits", habit["id"]])).await, true);
    assert_eq!(pass.call("count", json!(["logs"])).await, 0);
    pass.commit().await;

    let pass = kit.open(ada, &app).await;
    assert_eq!(pass.call("find_one", json!(["habits", {"id": habit["id"]}])).await, habit);
    assert_eq!(pass.call("count", json!(["logs"])).await, 1);
}

#[tokio::test]
async fn what_looks_like_sql_is_a_name_that_is_not_there_or_a_plain_value() {
    let (kit, user) = Kit::with(&twin("one")).await;
    let pass = kit.open(user, &"one".parse().unwrap()).await;
    let nasty = [
        "n\"; drop table users; --",
        "n' or '1'='1",
        "n = n or true",
        "\"",
        "n) or (true",
        "user_id",
        "krilin.users",
        "xmin",
        "$1",
    ];
    for text in nasty {
        let wrong = [
            ("query", json!([text, {}])),
            ("query", json!(["habits", {"where": {text: 1}}])),
            ("query", json!(["habits", {"where": {"n": {text: 1}}}])),
            ("query", json!(["habits", {"order_by": {text: "asc"}}])),
            ("query", json!(["habits", {"order_by": {"n": text}}])),
            ("query", json!(["habits", {"select": [text]}])),
            ("query", json!(["habits", {"after": text}])),
            ("aggregate", json!(["habits", {"group_by": [text]}])),
            ("aggregate", json!(["habits", {"group_by": [{"bucket": text, "of": "created_at"}]}])),
            ("aggregate", json!(["habits", {"sum": [text]}])),
            ("insert", json!(["habits", {text: 1}])),
            ("update", json!(["habits", "0199b0a5-0000-7000-8000-000000000001", {text: 1}])),
            ("insert", json!(["habits", {"name": "x"}, {"on_conflict": {"update": [text], "by": ["name"]}}])),
        ];
        for (method, args) in wrong {
            assert_eq!(pass.refused(method, args.clone()).await.0, Code::ValidationFailed, "{method} {args}");
        }
        let row = pass.call("insert", json!(["habits", {"name": text}])).await;
        assert_eq!(row["name"], text);
        assert_eq!(pass.call("find_one", json!(["habits", {"name": text}])).await, row);
        assert_eq!(pass.call("count", json!(["habits", {"name": {"like": text}}])).await, 1);
        assert_eq!(pass.call("find_one", json!(["habits", {"id": text}])).await, Value::Null);
    }
    assert_eq!(pass.call("count", json!(["habits"])).await, nasty.len());
    pass.commit().await;
}
