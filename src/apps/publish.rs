//! Makes a version of an app the one in force: its tables, its manifest, its code, in one transaction of `krilin_owner`.

use std::time::Instant;

use semver::Version;
use sqlx::{Connection, PgConnection};

use super::{
    Error,
    migrate::{Done, Migration},
    schedules,
};
use crate::{
    model::{
        bundle::Bundle,
        id::AppId,
        manifest::{Access, Manifest, OutputKind, Table},
    },
    store::{self, apps, tables},
};

/// How to publish.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Do everything, report it, and roll it back.
    pub dry_run: bool,
    /// A version older than the one in force is meant.
    pub allow_older: bool,
}

/// What a publication did, or would do.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Report {
    /// Which app.
    pub app_id: AppId,
    /// Which version.
    pub version: String,
    /// The version that was in force before.
    pub before: Option<String>,
    /// Whether this very version was in force already.
    pub unchanged: bool,
    /// Whether it was rolled back.
    pub dry_run: bool,
    /// What was done to tables.
    pub steps: Vec<Done>,
    /// The rows that steps rewrote, filled or removed.
    pub rows_touched: i64,
    /// How long the whole took.
    pub elapsed_ms: u64,
}

/// Publishes `manifest` with `code`. `owner` is a connection as `krilin_owner`. On an error nothing has changed.
pub async fn publish(
    owner: &mut PgConnection,
    manifest: &Manifest,
    code: &Bundle,
    options: Options,
) -> Result<Report, Error> {
    let started = Instant::now();
    let app = &manifest.metadata.id;
    let mut transaction = store::within(owner.begin()).await?;
    apps::lock(&mut *transaction, app).await?;
    let before = apps::current(&mut *transaction, app).await?;
    let unchanged = may_publish(&mut transaction, manifest, code, (before.as_ref(), options)).await?;
    let steps = if unchanged { Vec::new() } else { write(&mut transaction, manifest, code, before.as_ref()).await? };
    if options.dry_run {
        store::within(transaction.rollback()).await?;
    } else {
        store::within(transaction.commit()).await?;
    }
    Ok(Report {
        app_id: app.clone(),
        version: manifest.metadata.version.to_string(),
        before: before.map(|before| before.version),
        unchanged,
        dry_run: options.dry_run,
        rows_touched: steps.iter().filter_map(|step| step.rows).sum(),
        steps,
        elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Whether there is nothing to do; an error if it must not be done.
async fn may_publish(
    db: &mut PgConnection,
    manifest: &Manifest,
    code: &Bundle,
    (before, options): (Option<&apps::Published>, Options),
) -> Result<bool, Error> {
    let app = &manifest.metadata.id;
    let version = manifest.metadata.version.to_string();
    if let Some(same) = apps::version(&mut *db, app, &version).await? {
        let stored = parsed(app, same.manifest)?;
        if stored != *manifest || same.bundle_hash != code.hash.as_str() {
            return Err(Error::VersionTaken { app: app.clone(), version });
        }
    }
    let Some(before) = before else { return Ok(false) };
    if let Ok(current) = Version::parse(&before.version)
        && current > manifest.metadata.version
        && !options.allow_older
    {
        return Err(Error::VersionOlder { app: app.clone(), version, current: before.version.clone() });
    }
    Ok(before.version == version)
}

async fn write(
    db: &mut PgConnection,
    manifest: &Manifest,
    code: &Bundle,
    before: Option<&apps::Published>,
) -> Result<Vec<Done>, Error> {
    let app = &manifest.metadata.id;
    let version = manifest.metadata.version.to_string();
    let old = declared(db, app).await?;
    let drops = drops(manifest, before.and_then(|before| Version::parse(&before.version).ok()).as_ref())?;
    let migration = Migration { app, version: &version, old: &old, new: &manifest.database.tables, drops: &drops };
    let steps = migration.run(db).await?;
    apps::upsert(&mut *db, app, &manifest.metadata.name, &version).await?;
    let published = apps::Published {
        version,
        revision: 0,
        manifest: serde_json::to_value(manifest).map_err(|error| unreadable(app, &error))?,
        code: code.source.to_string(),
        code_name: code.name.to_string(),
        bundle_hash: code.hash.to_string(),
    };
    apps::insert_version(&mut *db, app, &published).await?;
    record(db, manifest).await?;
    schedules::declare(db, manifest, None).await?;
    Ok(steps)
}

async fn declared(db: &mut PgConnection, app: &AppId) -> Result<Vec<Table>, Error> {
    let stored = tables::declared(db, app).await?;
    stored.into_iter().map(|table| serde_json::from_value(table).map_err(|error| unreadable(app, &error))).collect()
}

/// What the manifest says may go on the way from `before` to its own version.
fn drops(manifest: &Manifest, before: Option<&Version>) -> Result<Vec<String>, Error> {
    let version = &manifest.metadata.version;
    let on_the_way = |to: &Version| to == version || (before.is_some_and(|before| to > before) && to < version);
    let steps: Vec<_> = manifest.database.migrations.iter().filter(|step| on_the_way(&step.to)).collect();
    if let Some(action) = steps.iter().find_map(|step| step.action.as_deref()) {
        return Err(Error::Refused {
            app: manifest.metadata.id.clone(),
            version: version.to_string(),
            reasons: vec![format!(
                "database.migrations names the action `{action}`, and this Krilin does not run actions while it publishes; \
                 leave it out and let an ordinary action change the rows"
            )],
        });
    }
    Ok(steps.into_iter().flat_map(|step| step.drops.clone()).collect())
}

/// Writes the app's lists: tables, outputs, permissions, dependencies.
async fn record(db: &mut PgConnection, manifest: &Manifest) -> Result<(), Error> {
    let app = &manifest.metadata.id;
    let json = |value: Result<serde_json::Value, serde_json::Error>| value.map_err(|error| unreadable(app, &error));
    let mut declared = Vec::new();
    for table in &manifest.database.tables {
        declared.push((table.name.clone(), table.physical_name(app), json(serde_json::to_value(table))?));
    }
    tables::replace(db, app, &declared).await?;
    let mut shown = Vec::new();
    for output in &manifest.outputs {
        let kind = match output.kind {
            OutputKind::Data(_) => "data",
            OutputKind::Agent { .. } => "agent",
            OutputKind::Stream { .. } => "stream",
        };
        let access = match output.access {
            Access::Private => "private",
            Access::RequiresPermission => "requires_permission",
            Access::AnyApp => "any_app",
        };
        let schema = json(serde_json::to_value(output))?;
        shown.push(apps::Shown { id: output.id.clone(), kind: kind.into(), access: access.into(), schema });
    }
    apps::replace_outputs(db, app, &shown).await?;
    apps::replace_permissions(db, app, &asked(manifest)).await?;
    let required = manifest.dependencies.required_apps.iter().map(|dependency| (dependency, true));
    let optional = manifest.dependencies.optional_apps.iter().map(|dependency| (dependency, false));
    let edges = required.chain(optional).map(|(dependency, required)| apps::Dependency {
        app: dependency.app_id.to_string(),
        version: dependency.version.to_string(),
        required,
        uses: dependency.uses.clone(),
    });
    apps::replace_dependencies(db, app, &edges.collect::<Vec<_>>()).await?;
    Ok(())
}

/// Everything the app asks for, as pairs of a type and a scope; a switch has the scope `*`.
pub fn asked(manifest: &Manifest) -> Vec<(String, String)> {
    let permissions = &manifest.permissions;
    let scopes = permissions.data_scopes.iter().map(|scope| ("data_scope".to_owned(), scope.clone()));
    let hosts = permissions.api_access.iter().map(|host| ("api_access".to_owned(), host.clone()));
    let switches = [
        ("notifications", permissions.notifications.is_some()),
        ("files", permissions.files.is_some()),
        ("schedule", permissions.schedule),
        ("ai", permissions.ai.is_some()),
    ];
    let switches = switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| (name.to_owned(), "*".to_owned()));
    scopes.chain(hosts).chain(switches).collect()
}

/// Reads a stored manifest.
pub(super) fn parsed(app: &AppId, stored: serde_json::Value) -> Result<Manifest, Error> {
    serde_json::from_value(stored).map_err(|error| unreadable(app, &error))
}

fn unreadable(app: &AppId, error: &serde_json::Error) -> Error {
    Error::Unreadable { app: app.clone(), reason: error.to_string() }
}
