//! Puts an app into a user's hands and takes it out again, with what the manifest schedules. Rows stay when an app is
//! removed.

use semver::Version;
use serde_json::{Map, Value};
use sqlx::{Connection, PgConnection};

use super::{
    Error,
    publish::{asked, parsed},
    schedules,
};
use crate::{
    model::{
        id::{AppId, UserId},
        manifest::Manifest,
        near,
    },
    store::{
        self, apps,
        installations::{self, Approved, Installation},
    },
};

/// What the user says while installing.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// What the app may do; everything its manifest asks for, unless said.
    pub grants: Option<Vec<String>>,
    /// Settings that differ from the manifest's defaults.
    pub settings: Map<String, Value>,
}

/// Installs the version in force for `user`, or approves it where the app is installed already.
pub async fn install(
    db: &mut PgConnection,
    user: UserId,
    app: &AppId,
    choices: &Choices,
) -> Result<Installation, Error> {
    let mut transaction = store::within(db.begin()).await?;
    let published = apps::current(&mut *transaction, app).await?.ok_or_else(|| Error::NotPublished(app.clone()))?;
    let manifest = parsed(app, published.manifest)?;
    demand_required(&mut transaction, user, &manifest).await?;
    let grants = granted(&manifest, choices.grants.as_deref())?;
    let settings = settings(&manifest, &choices.settings)?;
    let approved = Approved { version: &published.version, settings: &settings, grants: &grants };
    installations::upsert(&mut *transaction, user, app, &approved).await?;
    schedules::declare(&mut transaction, &manifest, Some(user)).await?;
    let installation = installations::find(&mut *transaction, user, app).await?;
    store::within(transaction.commit()).await?;
    installation.ok_or_else(|| Error::NotInstalled(app.clone()))
}

/// Takes the app from `user`. Refused while another installed app needs it. The app's rows stay.
pub async fn uninstall(db: &mut PgConnection, user: UserId, app: &AppId) -> Result<(), Error> {
    let mut transaction = store::within(db.begin()).await?;
    let dependants = installations::dependants(&mut *transaction, user, app).await?;
    if !dependants.is_empty() {
        return Err(Error::Held { app: app.clone(), dependants });
    }
    if !installations::delete(&mut *transaction, user, app).await? {
        return Err(Error::NotInstalled(app.clone()));
    }
    store::schedules::delete_installation(&mut *transaction, user, app).await?;
    Ok(store::within(transaction.commit()).await?)
}

async fn demand_required(db: &mut PgConnection, user: UserId, manifest: &Manifest) -> Result<(), Error> {
    let required = &manifest.dependencies.required_apps;
    let ids: Vec<String> = required.iter().map(|dependency| dependency.app_id.to_string()).collect();
    let present = installations::present(db, user, &ids).await?;
    let fits = |id: &AppId, range: &semver::VersionReq| {
        present.iter().any(|(app, version)| {
            app == id.as_str() && Version::parse(version).is_ok_and(|version| range.matches(&version))
        })
    };
    let missing: Vec<String> = required
        .iter()
        .filter(|dependency| !fits(&dependency.app_id, &dependency.version))
        .map(|dependency| format!("{}@{}", dependency.app_id, dependency.version))
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Missing { app: manifest.metadata.id.clone(), missing }) }
}

/// The grants: a scope as it stands, a switch by its name, a host as `api_access:<prefix>`.
pub fn all_grants(manifest: &Manifest) -> Vec<String> {
    let grant = |(kind, scope): (String, String)| match (kind.as_str(), scope.as_str()) {
        ("data_scope", _) => scope,
        (_, "*") => kind,
        _ => format!("{kind}:{scope}"),
    };
    asked(manifest).into_iter().map(grant).collect()
}

fn granted(manifest: &Manifest, chosen: Option<&[String]>) -> Result<Vec<String>, Error> {
    let all = all_grants(manifest);
    let Some(chosen) = chosen else { return Ok(all) };
    match chosen.iter().find(|grant| !all.contains(grant)) {
        Some(unknown) => Err(Error::Invalid(format!(
            "`{}` does not ask for `{unknown}`, so it cannot be granted",
            manifest.metadata.id
        ))),
        None => Ok(chosen.to_vec()),
    }
}

fn settings(manifest: &Manifest, chosen: &Map<String, Value>) -> Result<Value, Error> {
    let declared = &manifest.ui_components.settings;
    let mut settings = Map::new();
    for setting in declared {
        settings.insert(setting.key.clone(), setting.default.clone().unwrap_or(Value::Null));
    }
    for (key, value) in chosen {
        if !settings.contains_key(key) {
            let hint = near::hint(key, declared.iter().map(|setting| setting.key.as_str()));
            return Err(Error::Invalid(format!("`{key}` is no setting of `{}`{hint}", manifest.metadata.id)));
        }
        settings.insert(key.clone(), value.clone());
    }
    Ok(Value::Object(settings))
}
