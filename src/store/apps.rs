//! Statements over `apps`, `app_versions` and what the current version needs, asks for and shows. Publishing writes here as
//! `krilin_owner`; everybody else reads.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, Row, postgres::PgRow, types::Json};

use super::{Error, within};
use crate::model::id::AppId;

/// The most apps one listing returns.
pub const LIST_MAX: i64 = 1_000;

/// A published version with everything needed to run it.
#[derive(Debug, Clone)]
pub struct Published {
    /// The version.
    pub version: String,
    /// The revision of the app as a whole; see `apps.revision`.
    pub revision: i64,
    /// The manifest in its long form.
    pub manifest: Value,
    /// The code.
    pub code: String,
    /// The code's file name.
    pub code_name: String,
    /// SHA-256 of the code.
    pub bundle_hash: String,
}

/// A line of the list of apps.
#[derive(Debug, Clone, serde::Serialize, sqlx::FromRow)]
pub struct Listed {
    /// The app's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version in force.
    pub current_version: String,
    /// When that was published.
    pub published_at: DateTime<Utc>,
    /// How many users have it.
    pub installation_count: i64,
}

/// Lets one publication of an app go on at a time; the lock ends with the transaction.
pub async fn lock(db: impl PgExecutor<'_>, app: &AppId) -> Result<(), Error> {
    let statement = sqlx::query("select pg_advisory_xact_lock(hashtextextended('krilin.publish ' || $1, 0))");
    within(statement.bind(app.as_str()).execute(db)).await?;
    Ok(())
}

/// The revision in force, if the app is published.
pub async fn revision(db: impl PgExecutor<'_>, app: &AppId) -> Result<Option<i64>, Error> {
    within(sqlx::query_scalar("select revision from apps where id = $1").bind(app.as_str()).fetch_optional(db)).await
}

/// The version in force with its code.
pub async fn current(db: impl PgExecutor<'_>, app: &AppId) -> Result<Option<Published>, Error> {
    let statement = sqlx::query(
        "select v.version, a.revision, v.manifest, v.code, v.code_name, v.bundle_hash
         from apps a join app_versions v on v.app_id = a.id and v.version = a.current_version
         where a.id = $1",
    );
    within(statement.bind(app.as_str()).fetch_optional(db)).await?.as_ref().map(published).transpose()
}

/// A certain version with its code.
pub async fn version(db: impl PgExecutor<'_>, app: &AppId, version: &str) -> Result<Option<Published>, Error> {
    let statement = sqlx::query(
        "select v.version, a.revision, v.manifest, v.code, v.code_name, v.bundle_hash
         from apps a join app_versions v on v.app_id = a.id
         where a.id = $1 and v.version = $2",
    );
    within(statement.bind(app.as_str()).bind(version).fetch_optional(db)).await?.as_ref().map(published).transpose()
}

fn published(row: &PgRow) -> Result<Published, Error> {
    Ok(Published {
        version: row.try_get(0)?,
        revision: row.try_get(1)?,
        manifest: row.try_get(2)?,
        code: row.try_get(3)?,
        code_name: row.try_get(4)?,
        bundle_hash: row.try_get(5)?,
    })
}

/// All apps by id, at most [`LIST_MAX`].
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Listed>, Error> {
    let statement = sqlx::query_as(
        "select a.id, a.name, a.current_version, a.published_at,
                (select count(*) from app_installations i where i.app_id = a.id) as installation_count
         from apps a order by a.id limit $1",
    );
    within(statement.bind(LIST_MAX).fetch_all(db)).await
}

/// Makes `version` the one in force, and the app known if it is new. Gives the app's new revision.
pub async fn upsert(db: impl PgExecutor<'_>, app: &AppId, name: &str, version: &str) -> Result<i64, Error> {
    let statement = sqlx::query_scalar(
        "insert into apps (id, name, current_version) values ($1, $2, $3)
         on conflict (id) do update
            set name = $2, current_version = $3, revision = apps.revision + 1, published_at = krilin.now()
         returning revision",
    );
    within(statement.bind(app.as_str()).bind(name).bind(version).fetch_one(db)).await
}

/// Keeps a version for good. One that is there already stays as it is.
pub async fn insert_version(db: impl PgExecutor<'_>, app: &AppId, version: &Published) -> Result<(), Error> {
    let statement = sqlx::query(
        "insert into app_versions (app_id, version, manifest, code, code_name, bundle_hash)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (app_id, version) do nothing",
    );
    let bound = statement
        .bind(app.as_str())
        .bind(&version.version)
        .bind(Json(&version.manifest))
        .bind(&version.code)
        .bind(&version.code_name)
        .bind(&version.bundle_hash);
    within(bound.execute(db)).await?;
    Ok(())
}

/// An edge to another app.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// The other app.
    pub app: String,
    /// The range of versions.
    pub version: String,
    /// Whether it must be there.
    pub required: bool,
    /// What of it is used.
    pub uses: Vec<String>,
}

/// Replaces what the app depends on.
pub async fn replace_dependencies(db: &mut PgConnection, app: &AppId, edges: &[Dependency]) -> Result<(), Error> {
    within(sqlx::query("delete from app_dependencies where app_id = $1").bind(app.as_str()).execute(&mut *db)).await?;
    for edge in edges {
        let statement = sqlx::query(
            "insert into app_dependencies (app_id, depends_on_app_id, version, required, uses)
             values ($1, $2, $3, $4, $5)
             on conflict (app_id, depends_on_app_id) do nothing",
        );
        let bound =
            statement.bind(app.as_str()).bind(&edge.app).bind(&edge.version).bind(edge.required).bind(&edge.uses);
        within(bound.execute(&mut *db)).await?;
    }
    Ok(())
}

/// Replaces what the app asks for: pairs of type and scope.
pub async fn replace_permissions(db: &mut PgConnection, app: &AppId, asked: &[(String, String)]) -> Result<(), Error> {
    within(sqlx::query("delete from app_permissions where app_id = $1").bind(app.as_str()).execute(&mut *db)).await?;
    let (types, scopes): (Vec<&str>, Vec<&str>) = asked.iter().map(|(a, b)| (a.as_str(), b.as_str())).unzip();
    let statement = sqlx::query(
        "insert into app_permissions (app_id, permission_type, scope)
         select $1, asked.* from unnest($2::text[], $3::text[]) as asked
         on conflict do nothing",
    );
    within(statement.bind(app.as_str()).bind(types).bind(scopes).execute(db)).await?;
    Ok(())
}

/// An output as it is listed.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Its name within the app.
    pub id: String,
    /// `data`, `agent` or `stream`.
    pub kind: String,
    /// Who may use it.
    pub access: String,
    /// The whole output in its long form.
    pub schema: Value,
}

/// Replaces what the app shows to others.
pub async fn replace_outputs(db: &mut PgConnection, app: &AppId, outputs: &[Shown]) -> Result<(), Error> {
    within(sqlx::query("delete from app_outputs where app_id = $1").bind(app.as_str()).execute(&mut *db)).await?;
    for output in outputs {
        let statement = sqlx::query(
            "insert into app_outputs (app_id, output_id, output_type, access, schema) values ($1, $2, $3, $4, $5)",
        );
        let bound = statement
            .bind(app.as_str())
            .bind(&output.id)
            .bind(&output.kind)
            .bind(&output.access)
            .bind(Json(&output.schema));
        within(bound.execute(&mut *db)).await?;
    }
    Ok(())
}
