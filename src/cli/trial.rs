//! An app's own tests, from its `test.js`: functions whose names begin with `test_`, and `cases`, lists of actions.
//!
//! `test.js` is joined to `app.js`, because a bundle is one module; its import lines are left out. A test function runs in
//! the sandbox without a host and fails by throwing. A case gets a user of its own and runs its steps as jobs would run
//! them, through the real ctx on a real Postgres, only with the clock that the step names. Refuses a `test.js` that has
//! neither.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use sqlx::PgPool;

use crate::{
    apps::{
        install::{self, Choices},
        loaded::Apps,
    },
    clock::SystemClock,
    ctx::{self, Opening, facts},
    jobs::app_action::{AppAction, Request},
    model::{
        bundle::Bundle,
        error::{Code, CtxError},
        host::{Call, Host, LogLine, Settled},
        id::{AppId, JobId, UserId},
        manifest::ActionKind,
        user::{NewUser, WeekStart},
    },
    sandbox::{self, Facts, JobFacts, Limits, Pool, Run},
    store::{Stack, users},
};

/// What test functions may import from `krilin:test`, and how the cases come out.
const KIT: &str = r#"
function equal(actual, expected, what = "") {
  const text = (value) => JSON.stringify(value) ?? String(value);
  if (text(actual) !== text(expected)) throw new Error(`${what}${what && ": "}${text(actual)}, not ${text(expected)}`);
}
export function krilin_cases() { return typeof cases === "undefined" ? [] : cases; }
"#;

/// The most times a step may be repeated.
const REPEAT_MAX: u32 = 1_000;

/// What a test came to.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// The test's name.
    pub name: String,
    /// What went wrong; none when the test holds.
    pub problem: Option<String>,
    /// How long it took.
    pub elapsed_ms: u128,
}

/// A list of actions and what each must give.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default = "utc")]
    zone: String,
    #[serde(default)]
    week_start: Option<String>,
    steps: Vec<Step>,
}

/// One action at an instant. Texts of the form `$name.field` stand for a field of an earlier step's result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    at: DateTime<Utc>,
    action: String,
    #[serde(default)]
    input: Map<String, Value>,
    /// The name by which later steps know the result.
    #[serde(default)]
    save: Option<String>,
    /// How often, a day apart; the last result counts.
    #[serde(default = "once")]
    days: u32,
    /// What the result holds, at least.
    #[serde(default)]
    expect: Option<Value>,
    /// The code, or words, of the error that must come.
    #[serde(default)]
    fails: Option<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn once() -> u32 {
    1
}

/// An app with its tests. The app is published already.
#[derive(Debug)]
pub struct Trial {
    /// As `krilin_runtime`.
    pub pool: PgPool,
    stack: Stack,
    /// Runs the app's actions.
    pub actions: AppAction,
    /// The app.
    pub app: AppId,
    joined: Bundle,
    app_lines: u32,
    test_lines: u32,
    functions: Vec<String>,
    cases: Vec<Case>,
}

impl Trial {
    /// Joins `test` to `code` and reads its cases.
    pub async fn load(pool: PgPool, sandbox: Pool, app: AppId, (code, test): (&Bundle, &str)) -> anyhow::Result<Self> {
        let (app_lines, test_lines) = (line_count(code.source.trim_end()), line_count(test));
        let joined = Bundle::new("app.js", &format!("{}\n{}\n{KIT}", code.source.trim_end(), without_imports(test)));
        let actions = AppAction { apps: Apps::new(pool.clone()), sandbox };
        let functions = test.lines().filter_map(test_name).map(str::to_owned).collect();
        let mut trial = Self {
            stack: Stack::over(&pool),
            pool,
            actions,
            app,
            joined,
            app_lines,
            test_lines,
            functions,
            cases: Vec::new(),
        };
        let cases = trial.call("krilin_cases").await.map_err(|error| anyhow::anyhow!(trial.words(&error)))?;
        trial.cases = serde_json::from_str(cases.get())
            .map_err(|error| anyhow::anyhow!("`cases` of test.js are not as they should be: {error}"))?;
        if trial.functions.is_empty() && trial.cases.is_empty() {
            anyhow::bail!("test.js exports neither a function `test_…` nor `cases`");
        }
        Ok(trial)
    }

    /// Runs every test, and tells `each` as it goes.
    pub async fn run(&self, mut each: impl FnMut(&Verdict)) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let mut take = |name: &str, began: Instant, problem: Option<String>| {
            let verdict = Verdict { name: name.to_owned(), problem, elapsed_ms: began.elapsed().as_millis() };
            each(&verdict);
            verdicts.push(verdict);
        };
        for name in &self.functions {
            let began = Instant::now();
            let problem = self.call(name).await.err().map(|error| self.words(&error));
            take(name, began, problem);
        }
        for case in &self.cases {
            let began = Instant::now();
            take(&case.name, began, self.case(case).await.err());
        }
        verdicts
    }

    /// Calls a function of the joined module without a host.
    async fn call(&self, entry: &str) -> Result<Box<RawValue>, sandbox::Error> {
        let (facts, input) = (Facts::nobody(), RawValue::NULL.to_owned());
        let run = Run {
            bundle: &self.joined,
            entry,
            input: &input,
            facts: &facts,
            limits: Limits::default(),
            seed: 1,
            now: DateTime::UNIX_EPOCH,
        };
        Ok(self.actions.sandbox.run(run, &Nobody).await?.value)
    }

    /// An error with its place in a file that the author wrote: the innermost frame that is not the kit's.
    fn words(&self, error: &sandbox::Error) -> String {
        let message = &error.error.message;
        let lines = error.at.iter().map(|at| at.line).chain(error.stack.lines().filter_map(line_of));
        let place = lines.filter(|line| *line <= self.app_lines.saturating_add(self.test_lines)).map(|line| match line
            .checked_sub(self.app_lines)
        {
            Some(line) if line > 0 => format!("test.js:{line}"),
            _ => format!("app.js:{line}"),
        });
        place.take(1).fold(message.clone(), |message, place| format!("{message} ({place})"))
    }

    async fn case(&self, case: &Case) -> Result<(), String> {
        let user = self.user(case).await.map_err(|error| format!("{error:#}"))?;
        let mut saved = Map::new();
        for (index, step) in case.steps.iter().enumerate() {
            let result = self.step(user, step, &saved).await;
            let place = || format!("step {} (`{}` at {})", index + 1, step.action, step.at.to_rfc3339());
            let value = judge(step, result).map_err(|problem| format!("{}: {problem}", place()))?;
            if let Some(name) = &step.save {
                saved.insert(name.clone(), value);
            }
        }
        Ok(())
    }

    /// A new user of the case's zone who has installed the app.
    async fn user(&self, case: &Case) -> anyhow::Result<UserId> {
        let mut user = NewUser::parse("Ada", None, &case.zone)?;
        if let Some(week_start) = &case.week_start {
            user.week_start = week_start.parse::<WeekStart>().map_err(anyhow::Error::msg)?;
        }
        let id = users::insert(&self.pool, UserId::new(&SystemClock), &user).await?.id;
        let mut connection = self.pool.acquire().await?;
        install::install(&mut connection, id, &self.app, &Choices::default()).await?;
        Ok(id)
    }

    async fn step(&self, user: UserId, step: &Step, saved: &Map<String, Value>) -> Result<Value, CtxError> {
        let mut last = Value::Null;
        for day in 0..step.days.min(REPEAT_MAX) {
            let at = step.at + TimeDelta::days(i64::from(day));
            let input = fill(&Value::Object(step.input.clone()), saved);
            last = self.act(user, &step.action, input, at).await?;
        }
        Ok(last)
    }

    /// Runs an action as its job, or its query, would; commits.
    async fn act(&self, user: UserId, action: &str, mut input: Value, now: DateTime<Utc>) -> Result<Value, CtxError> {
        let app = self.actions.apps.current(&self.app).await.map_err(CtxError::from)?;
        app.check_input(action, &mut input)?;
        let input = serde_json::value::to_raw_value(&input).expect("a value is JSON");
        let job = JobId::new(&SystemClock);
        let seed = job.0.as_u64_pair().1;
        let declared = app.action(action)?;
        let value = if declared.kind == ActionKind::Query {
            let ctx =
                ctx::query::open(&self.stack, &self.actions.apps, Opening::new(user, self.app.clone(), now, seed));
            let ctx = ctx.await?;
            let (facts, limits) = (ctx.facts(None), facts::limits(declared));
            let (bundle, entry) = (&app.code, declared.handler());
            let run = Run { bundle, entry, input: &input, facts: &facts, limits, seed, now };
            self.actions.sandbox.run(run, &ctx).await?.value
        } else {
            let job = JobFacts {
                id: job.to_string(),
                attempt: 1,
                trigger: "user".to_owned(),
                caller_app: None,
                schedule: None,
            };
            let request = Request { user, app: self.app.clone(), action, input: &input, job, now, seed, running: None };
            let (value, ended) = self.actions.pass(&self.stack, &request).await?;
            ended.transaction.commit().await?;
            value
        };
        Ok(serde_json::from_str(value.get()).expect("a result is JSON"))
    }
}

/// The value, or what is wrong with it.
fn judge(step: &Step, result: Result<Value, CtxError>) -> Result<Value, String> {
    match (&step.fails, result) {
        (None, Err(error)) => Err(error.to_string()),
        (Some(wanted), Ok(value)) => Err(format!("gave {value} where `{wanted}` was expected")),
        (Some(wanted), Err(error)) if error.to_string().contains(wanted.as_str()) => Ok(Value::Null),
        (Some(wanted), Err(error)) => Err(format!("failed with `{error}` where `{wanted}` was expected")),
        (None, Ok(value)) => match step.expect.as_ref().and_then(|expected| difference("", &value, expected)) {
            Some(difference) => Err(difference),
            None => Ok(value),
        },
    }
}

/// Where `actual` lacks something of `expected`: objects may hold more, all else is equal.
fn difference(pointer: &str, actual: &Value, expected: &Value) -> Option<String> {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => expected.iter().find_map(|(name, expected)| {
            difference(&format!("{pointer}/{name}"), actual.get(name).unwrap_or(&Value::Null), expected)
        }),
        (Value::Array(actual), Value::Array(expected)) if actual.len() == expected.len() => actual
            .iter()
            .zip(expected)
            .enumerate()
            .find_map(|(index, (actual, expected))| difference(&format!("{pointer}/{index}"), actual, expected)),
        _ => (actual != expected).then(|| format!("`{pointer}` is {actual}, not {expected}")),
    }
}

/// `value` with `$name.field` replaced by what was saved.
fn fill(value: &Value, saved: &Map<String, Value>) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), fill(value, saved))).collect(),
        Value::Array(list) => list.iter().map(|value| fill(value, saved)).collect(),
        Value::String(text) => {
            let found = text.strip_prefix('$').and_then(|path| path.split_once('.'));
            found.and_then(|(name, field)| saved.get(name)?.get(field)).unwrap_or(value).clone()
        }
        _ => value.clone(),
    }
}

fn line_count(text: &str) -> u32 {
    u32::try_from(text.lines().count()).unwrap_or(u32::MAX)
}

/// The line in a frame of a stack, such as `    at equal (app.js:12:3)`.
fn line_of(frame: &str) -> Option<u32> {
    frame.trim_end_matches(')').rsplit(':').nth(1)?.parse().ok()
}

/// The name of a test function that begins on this line.
fn test_name(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("export ")?;
    let rest = rest.strip_prefix("async ").unwrap_or(rest).strip_prefix("function ")?;
    let name = &rest[..rest.find('(')?];
    name.starts_with("test_").then_some(name)
}

/// Import statements are emptied, so that lines keep their numbers.
fn without_imports(test: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in test.lines() {
        inside |= line.starts_with("import ");
        if !inside {
            kept.push_str(line);
        }
        inside &= !line.trim_end().ends_with(';');
        kept.push('\n');
    }
    kept
}

/// The host of test functions: there is none.
struct Nobody;

impl Host for Nobody {
    fn settle(&self, calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>> {
        let words = "a test function has no storage; write a case";
        let refuse = |_| Err(CtxError::new(Code::PermissionDenied, words));
        Box::pin(std::future::ready(calls.into_iter().map(refuse).collect()))
    }

    fn log(&self, _line: LogLine) {}
}
