//! Installing: grants, settings, and the apps that an app needs.

use krilin::{
    apps::{
        Error,
        install::{self, Choices},
    },
    ctx::Ctx,
    model::{
        error::Code,
        id::{AppId, UserId},
        manifest::Manifest,
    },
    store::{Stack, installations},
};
use serde_json::{Value, json};

use crate::kit::{Kit, manifest, opening};

fn needy(required: &Value) -> Manifest {
    manifest(&json!({
        "metadata": {"id": "dashboard", "name": "d", "version": "1.0.0", "author": "T"},
        "dependencies": {"required_apps": required},
        "permissions": {"data_scopes": ["read:own_data", "write:own_data"], "notifications": true, "schedule": true},
        "database": {"tables": [{"name": "things", "schema": {"a": "string"}}]},
        "ui_components": {"settings": [
            {"key": "loud", "type": "boolean", "label": "Loud", "default": true},
            {"key": "name", "type": "text", "label": "Name"}
        ]}
    }))
}

async fn try_install(
    kit: &Kit,
    user: UserId,
    app: &AppId,
    choices: &Choices,
) -> Result<installations::Installation, Error> {
    let mut db = kit.world.pool.acquire().await.unwrap();
    install::install(&mut db, user, app, choices).await
}

#[tokio::test]
async fn an_installation_has_the_manifests_grants_and_settings_unless_the_user_says_otherwise() {
    let (kit, user) = Kit::with(&needy(&json!([]))).await;
    let app: AppId = "dashboard".parse().unwrap();
    let first = installations::find(&kit.world.pool, user, &app).await.unwrap().unwrap();
    assert_eq!(first.grants, ["read:own_data", "write:own_data", "notifications", "schedule"]);
    assert_eq!(first.config, json!({"loud": true, "name": null}));
    assert_eq!((first.state.as_str(), first.installed_version.as_str()), ("active", "1.0.0"));

    let other = kit.user("Asia/Tokyo").await;
    let settings = json!({"loud": false}).as_object().unwrap().clone();
    let choices = Choices { grants: Some(vec!["read:own_data".into()]), settings };
    let second = try_install(&kit, other, &app, &choices).await.unwrap();
    assert_eq!((second.grants.len(), &second.config["loud"]), (1, &json!(false)));
    let pass = kit.open(other, &app).await;
    assert_eq!(pass.0.settings()["loud"], false);
    assert_eq!(pass.0.person().timezone.name(), "Asia/Tokyo");
    assert_eq!(pass.rows("things", json!({})).await.len(), 0);
    let (code, message) = pass.refused("insert", json!(["things", {"a": "x"}])).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.contains("`write:own_data`"), "{message}");

    let unknown = Choices { grants: Some(vec!["ai".into()]), ..Choices::default() };
    assert!(matches!(try_install(&kit, other, &app, &unknown).await, Err(Error::Invalid(_))));
    let settings = json!({"luod": true}).as_object().unwrap().clone();
    let error = try_install(&kit, other, &app, &Choices { grants: None, settings }).await.unwrap_err();
    assert!(error.to_string().contains("did you mean `loud`"), "{error}");
}

#[tokio::test]
async fn a_missing_required_app_is_named_and_a_needed_one_stays() {
    let kit = Kit::new().await;
    let base =
        |version: &str| manifest(&json!({"metadata": {"id": "base", "name": "b", "version": version, "author": "T"}}));
    kit.publish(&base("1.0.0")).await;
    kit.publish(&needy(&json!([{"app_id": "base", "version": "^1.1"}]))).await;
    let user = kit.user("UTC").await;
    let app: AppId = "dashboard".parse().unwrap();
    let refused = try_install(&kit, user, &app, &Choices::default()).await.unwrap_err();
    assert!(matches!(&refused, Error::Missing { missing, .. } if missing == &["base@^1.1"]), "{refused}");
    kit.install(user, &base("1.0.0")).await;
    assert!(try_install(&kit, user, &app, &Choices::default()).await.is_err());
    kit.publish(&base("1.2.0")).await;
    try_install(&kit, user, &app, &Choices::default()).await.unwrap();

    let mut db = kit.world.pool.acquire().await.unwrap();
    let held = install::uninstall(&mut db, user, &"base".parse().unwrap()).await.unwrap_err();
    assert!(matches!(&held, Error::Held { dependants, .. } if dependants == &["dashboard"]), "{held}");
    install::uninstall(&mut db, user, &app).await.unwrap();
    install::uninstall(&mut db, user, &"base".parse().unwrap()).await.unwrap();
    assert!(matches!(install::uninstall(&mut db, user, &app).await, Err(Error::NotInstalled(_))));
}

#[tokio::test]
async fn a_pass_needs_an_installation_that_is_active() {
    let (kit, user) = Kit::with(&needy(&json!([]))).await;
    let app: AppId = "dashboard".parse().unwrap();
    let stranger = kit.user("UTC").await;
    let error = Ctx::open(&Stack::over(&kit.world.pool), &kit.apps, opening(stranger, &app)).await.unwrap_err();
    assert_eq!(error.code, Code::NotInstalled);
    installations::set_state(&kit.world.pool, user, &app, "paused").await.unwrap();
    let error = Ctx::open(&Stack::over(&kit.world.pool), &kit.apps, opening(user, &app)).await.unwrap_err();
    assert_eq!(error.code, Code::PermissionDenied);
    assert!(error.message.contains("paused"));
    let nobody: AppId = "nobody".parse().unwrap();
    assert!(matches!(try_install(&kit, user, &nobody, &Choices::default()).await, Err(Error::NotPublished(_))));
}

#[tokio::test]
async fn a_grant_taken_back_is_missing_from_the_next_pass_on() {
    let (kit, user) = Kit::with(&needy(&json!([]))).await;
    let app: AppId = "dashboard".parse().unwrap();
    kit.open(user, &app).await.call("insert", json!(["things", {"a": "x"}])).await;
    assert!(installations::set_grants(&kit.world.pool, user, &app, &["write:own_data".into()]).await.unwrap());
    let pass = kit.open(user, &app).await;
    let (code, message) = pass.refused("query", json!(["things"])).await;
    assert_eq!(code, Code::PermissionDenied);
    assert!(message.contains("`read:own_data`"), "{message}");
    pass.call("insert", json!(["things", {"a": "x"}])).await;
    pass.commit().await;

    let listed = installations::list(&kit.world.pool, user).await.unwrap();
    assert_eq!((listed.len(), listed[0].grants.as_slice()), (1, ["write:own_data".to_owned()].as_slice()));
    let apps = krilin::store::apps::list(&kit.world.pool).await.unwrap();
    assert_eq!((apps[0].id.as_str(), apps[0].installation_count), ("dashboard", 1));
    let stranger = kit.user("UTC").await;
    assert!(!installations::set_grants(&kit.world.pool, stranger, &app, &[]).await.unwrap());
    assert!(installations::list(&kit.world.pool, stranger).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_input_gets_its_defaults_and_every_bad_field_its_pointer() {
    let mut declared = serde_json::to_value(needy(&json!([]))).unwrap();
    declared["actions"] = json!([{"id": "log", "input_schema": {
        "type": "object", "required": ["day"], "additionalProperties": false,
        "properties": {"day": {"type": "string", "format": "date"}, "done": {"type": "boolean", "default": true}}
    }}]);
    let kit = Kit::new().await;
    kit.publish(&manifest(&declared)).await;
    let app = kit.apps.current(&"dashboard".parse().unwrap()).await.unwrap();
    let mut input = json!({"day": "2026-11-22"});
    app.check_input("log", &mut input).unwrap();
    assert_eq!(input["done"], true);
    let error = app.check_input("log", &mut json!({"day": "soon", "moon": 1})).unwrap_err();
    assert_eq!(error.code, Code::ValidationFailed);
    assert_eq!(error.details.unwrap().as_array().unwrap().len(), 2);
    let unknown = app.action("lgo").unwrap_err();
    assert!(unknown.message.contains("did you mean `log`"), "{unknown}");
}
