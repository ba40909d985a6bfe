//! The apps a process has loaded: manifest, code, tables and compiled input schemas of the version in force.
//!
//! Nothing is older than [`REVALIDATE_AFTER`]; an action is never old at all, since the statement that locks its
//! installation tells which revision is in force.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use super::{Error, publish::parsed};
use crate::{
    model::{
        bundle::Bundle,
        error::{Code, CtxError},
        id::AppId,
        manifest::{
            Action, Manifest,
            record::{self, Role, Validator},
        },
        near,
        shape::Shapes,
        shaping,
    },
    store::{self, apps},
};

/// How long a loaded app is taken as current without asking the database.
pub const REVALIDATE_AFTER: Duration = Duration::from_secs(1);
/// The most apps kept loaded; past it the cache is emptied and fills again.
const LOADED_MAX: usize = 1_000;

/// A version of an app, ready to run.
#[derive(Debug)]
pub struct LoadedApp {
    /// Which app.
    pub id: AppId,
    /// Which version.
    pub version: String,
    /// The revision of the app; grows with each publication.
    pub revision: i64,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its code.
    pub code: Bundle,
    /// Its tables.
    pub shapes: Shapes,
    actions: HashMap<String, (Action, Option<Input>)>,
}

/// The compiled schema of an input.
struct Input(Validator);

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Input")
    }
}

impl LoadedApp {
    /// The action of this name: declared, or implied by a tool of that name.
    pub fn action(&self, id: &str) -> Result<&Action, CtxError> {
        self.actions.get(id).map(|(action, _)| action).ok_or_else(|| {
            let hint = near::hint(id, self.actions.keys().map(String::as_str));
            CtxError::new(Code::NotFound, format!("`{id}` is no action of `{}`{hint}", self.id))
        })
    }

    /// Fills in the defaults of an action's input and checks it; what does not fit is listed with its pointer.
    pub fn check_input(&self, action: &str, input: &mut Value) -> Result<(), CtxError> {
        let Some((_, Some(Input(validator)))) = self.actions.get(action) else { return Ok(()) };
        record::apply_defaults(validator.schema(), input);
        let errors = validator.validate(input, "the input");
        let Some(first) = errors.first() else { return Ok(()) };
        let message = format!("the input of `{action}`: {}", first.message);
        Err(CtxError::new(Code::ValidationFailed, message).with_details(json!(errors)))
    }

    fn from_published(id: &AppId, published: apps::Published) -> Result<Self, Error> {
        let unreadable = |reason: String| Error::Unreadable { app: id.clone(), reason };
        let manifest = parsed(id, published.manifest)?;
        let shapes =
            shaping::shapes(id, &manifest.database.tables).map_err(|reasons| unreadable(reasons.join("; ")))?;
        let mut actions = HashMap::new();
        let tools = manifest.agent_config.iter().flat_map(|agent| &agent.tools);
        for implied in tools.map(|tool| Action::implicit(&tool.action)).chain(manifest.actions.iter().cloned()) {
            let input = match &implied.input_schema {
                Some(schema) => Some(Input(
                    record::compile(schema, Role::Input)
                        .map_err(|error| unreadable(format!("{}: {error}", implied.id)))?,
                )),
                None => None,
            };
            actions.insert(implied.id.clone(), (implied, input));
        }
        Ok(Self {
            id: id.clone(),
            version: published.version,
            revision: published.revision,
            code: Bundle::new(&published.code_name, &published.code),
            manifest,
            shapes,
            actions,
        })
    }
}

/// Apps, each with when it was last known to be in force.
type Loaded = HashMap<AppId, (Arc<LoadedApp>, Instant)>;

/// The loaded apps of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Apps {
    pool: PgPool,
    loaded: Arc<RwLock<Loaded>>,
    asking: Arc<tokio::sync::Mutex<()>>,
}

impl Apps {
    /// Nothing loaded yet; loads from `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, loaded: Arc::default(), asking: Arc::default() }
    }

    /// The version in force, as of at most [`REVALIDATE_AFTER`] ago.
    pub async fn current(&self, app: &AppId) -> Result<Arc<LoadedApp>, Error> {
        if let Some(fresh) = self.fresh(app) {
            return Ok(fresh);
        }
        // One asks, the others wait for its answer: not a thousand requests at the same second's end.
        let _asking = self.asking.lock().await;
        if let Some(fresh) = self.fresh(app) {
            return Ok(fresh);
        }
        let revision = apps::revision(&self.pool, app).await?.ok_or_else(|| Error::NotPublished(app.clone()))?;
        if let Some(same) = self.at_revision(app, revision) {
            self.keep(&same);
            return Ok(same);
        }
        // Boxed, as it is rare: what asks the pool has eight kilobytes, and each request would carry them.
        Box::pin(async {
            let mut connection = store::within(self.pool.acquire()).await?;
            self.load(&mut connection, app).await
        })
        .await
    }

    /// The version of this revision, or a newer one. Reads over `db`, so that a caller who holds a connection needs no
    /// second one.
    pub async fn at(&self, db: &mut PgConnection, app: &AppId, revision: i64) -> Result<Arc<LoadedApp>, Error> {
        match self.at_revision(app, revision) {
            Some(same) => Ok(same),
            None => self.load(db, app).await,
        }
    }

    async fn load(&self, db: &mut PgConnection, app: &AppId) -> Result<Arc<LoadedApp>, Error> {
        let published = apps::current(db, app).await?.ok_or_else(|| Error::NotPublished(app.clone()))?;
        let loaded = Arc::new(LoadedApp::from_published(app, published)?);
        self.keep(&loaded);
        Ok(loaded)
    }

    fn fresh(&self, app: &AppId) -> Option<Arc<LoadedApp>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(app).filter(|(_, seen)| seen.elapsed() < REVALIDATE_AFTER).map(|(app, _)| Arc::clone(app))
    }

    fn at_revision(&self, app: &AppId, revision: i64) -> Option<Arc<LoadedApp>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.get(app).filter(|(app, _)| app.revision == revision).map(|(app, _)| Arc::clone(app))
    }

    fn keep(&self, app: &Arc<LoadedApp>) {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        if loaded.len() >= LOADED_MAX && !loaded.contains_key(&app.id) {
            loaded.clear();
        }
        loaded.insert(app.id.clone(), (Arc::clone(app), Instant::now()));
    }
}
