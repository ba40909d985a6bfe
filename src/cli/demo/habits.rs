//! What the demo's user does: makes habits, logs sixty days of them as jobs, looks at the streaks.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use chrono::{Datelike, Days, NaiveDate, Weekday};
use serde_json::{Value, json};

use super::{Jobs, Line};
use crate::http::Client;

/// How many days are logged, today included.
const DAYS: u64 = 60;
/// The habits: name, rhythm, and every how-many-eth day was missed.
const HABITS: [(&str, &str, u64); 4] = [
    ("Read ten pages", "daily", 0),
    ("Stretch", "daily", 23),
    ("Plan the day", "weekdays", 17),
    ("Call a friend", "weekly", 0),
];
/// The share of jobs that are done before the worker is killed: one in this many.
const SHARE: usize = 4;
/// The longest to wait for all jobs: the lease of a killed worker and much more.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often to look whether jobs have ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const ACTIONS: &str = "/api/v1/apps/habit-tracker/actions";
const QUERIES: &str = "/api/v1/apps/habit-tracker/queries";

/// A job that was sent.
pub(super) struct Sent {
    id: String,
}

/// How a job ended.
pub(super) struct Ending {
    /// Whether it ended well.
    pub(super) done: bool,
    /// Whether it found its day not yet logged. A job that was applied before finds it logged.
    pub(super) changed: bool,
}

/// The user's habits.
pub(super) struct Habits<'a> {
    client: &'a Client,
    ids: Vec<String>,
}

impl<'a> Habits<'a> {
    /// Makes the habits, one after the other, each job waited for.
    pub(super) async fn create(client: &'a Client) -> anyhow::Result<Self> {
        let mut ids = Vec::new();
        for (name, frequency, _) in HABITS {
            let body = json!({ "name": name, "frequency": frequency });
            let answer = client
                .post(&format!("{ACTIONS}/create_habit"), &body, &[("prefer", "wait=20")])
                .await
                .with_context(|| format!("making the habit “{name}”"))?;
            let id = answer["job"]["result"]["habit_id"].as_str();
            ids.push(id.with_context(|| format!("making the habit “{name}”: {answer}"))?.to_owned());
        }
        Ok(Self { client, ids })
    }

    /// Sends a job for each day of each habit that was not missed, oldest first, without waiting for any.
    pub(super) async fn log_sixty_days(&mut self) -> anyhow::Result<Jobs> {
        let today = self.today().await?;
        let mut sent = Vec::new();
        for back in (0..DAYS).rev() {
            let day = today.checked_sub_days(Days::new(back)).context("reckoning a day")?;
            for (index, (_, frequency, miss)) in HABITS.iter().enumerate() {
                if is_due(frequency, day) && (*miss == 0 || back % miss != miss - 1) {
                    sent.push(self.log(index, day).await?);
                }
            }
        }
        Ok(sent)
    }

    async fn log(&self, habit: usize, day: NaiveDate) -> anyhow::Result<Sent> {
        let body = json!({ "habit_id": self.ids[habit], "day": day.to_string() });
        let key = format!("demo-{habit}-{day}");
        let answer = self
            .client
            .post(&format!("{ACTIONS}/log_habit"), &body, &[("idempotency-key", &key)])
            .await
            .with_context(|| format!("logging {day}"))?;
        let id = answer["job"]["id"].as_str().with_context(|| format!("logging {day}: {answer}"))?;
        Ok(Sent { id: id.to_owned() })
    }

    /// The day that it is for the user.
    async fn today(&self) -> anyhow::Result<NaiveDate> {
        let answer = self.query("get_today").await?;
        let day = answer["day"].as_str().context("reading today's date")?;
        day.parse().with_context(|| format!("`{day}` is no date"))
    }

    async fn query(&self, action: &str) -> anyhow::Result<Value> {
        let answer = self.client.post(&format!("{QUERIES}/{action}"), &json!({}), &[]).await;
        let mut answer = answer.with_context(|| format!("asking `{action}`"))?;
        Ok(answer["result"].take())
    }

    /// Waits until a share of the jobs has ended, so that the worker is killed in the midst of the rest.
    pub(super) async fn wait_for_share(&self, sent: &Jobs) -> anyhow::Result<()> {
        self.ending(&sent[sent.len() / SHARE], Instant::now()).await.map(|_| ())
    }

    /// Waits for the end of all jobs.
    pub(super) async fn wait_for_all(&self, sent: &Jobs) -> anyhow::Result<Vec<Ending>> {
        let begun = Instant::now();
        let mut endings = Vec::new();
        for job in sent {
            endings.extend(self.ending(job, begun).await?);
        }
        Ok(endings)
    }

    /// Waits for the end of a job; nothing when there is none within [`PATIENCE`].
    async fn ending(&self, sent: &Sent, begun: Instant) -> anyhow::Result<Option<Ending>> {
        loop {
            let answer = self.client.get(&format!("/api/v1/jobs/{}", sent.id)).await.context("looking for a job")?;
            let job = &answer["job"];
            match job["state"].as_str() {
                Some("done") => {
                    let changed = job["result"]["changed"].as_bool().unwrap_or(false);
                    return Ok(Some(Ending { done: true, changed }));
                }
                Some("pending" | "running") if begun.elapsed() < PATIENCE => tokio::time::sleep(LOOK_EVERY).await,
                Some("pending" | "running") => return Ok(None),
                Some("dead" | "cancelled") => return Ok(Some(Ending { done: false, changed: false })),
                _ => bail!("looking for a job: {answer}"),
            }
        }
    }

    /// The streaks as the app reckons them, with the days that it has stored.
    pub(super) async fn streaks(&self) -> anyhow::Result<Vec<Line>> {
        let streaks = self.query("list_streaks").await?;
        let weeks = self.query("summarize_weeks").await?;
        let weeks = weeks.as_array().with_context(|| format!("reading the weeks: {weeks}"))?;
        let streaks = streaks.as_array().with_context(|| format!("reading the streaks: {streaks}"))?;
        let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or(0);
        let line = |streak: &Value| Line {
            habit: streak["habit_name"].as_str().unwrap_or_default().to_owned(),
            streak: number(streak, "streak"),
            best_streak: number(streak, "best_streak"),
            days_done: weeks.iter().filter(|w| w["habit_id"] == streak["habit_id"]).map(|w| number(w, "done")).sum(),
        };
        Ok(streaks.iter().map(line).collect())
    }
}

/// Whether a habit of this rhythm is done on `day`, when it is not missed.
fn is_due(frequency: &str, day: NaiveDate) -> bool {
    match frequency {
        "weekdays" => !matches!(day.weekday(), Weekday::Sat | Weekday::Sun),
        "weekly" => day.weekday() == Weekday::Sun,
        _ => true,
    }
}
