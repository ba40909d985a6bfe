//! Jobs as lines (`application/x-ndjson`): read as they come, committed in chunks, each line answered by a line.
//!
//! The fit lines of a chunk are committed together. A line that does not fit is refused alone, with its number and what is
//! wrong in it. When the database does not take a chunk, the rest of the body is not read, and the last line says so: what
//! was taken is what was answered with a job. With an `Idempotency-Key` the whole may be sent again: lines that were taken
//! are answered as before.
//!
//! Refuses more than [`limit::LINES_MAX`] lines, a line over [`limit::LINE_MAX`], and silence.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};

use super::{
    Web,
    auth::Caller,
    error::{FieldError, Kind, Problem},
    keys::Held,
    limit,
    order::Order,
    receipt::Budget,
    trace::Trace,
    wish::Wishes,
};
use crate::model::{
    id::JobId,
    job::{Enqueued, NewJob, Placed, State},
};

/// Content types that say so.
const TYPES: [&str; 3] = ["application/x-ndjson", "application/ndjson", "application/jsonl"];
/// When nothing more came for this long, what has come is committed, so that a slow sender has its answers.
const PAUSE: Duration = Duration::from_millis(20);
/// Answers that wait for a client that sends first and reads later: every line, and the end. So reading never waits for the
/// client to read.
const ANSWERS_MAX: usize = limit::LINES_MAX + 2;

/// Whether the body is declared as lines of JSON.
pub fn are_declared(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    TYPES.iter().any(|known| essence.eq_ignore_ascii_case(known))
}

/// A reader of lines: its request, and its place among the readers.
pub struct Lines {
    web: Web,
    caller: Caller,
    wishes: Wishes,
    trace: Trace,
    _held: Option<Held>,
    _place: OwnedSemaphorePermit,
}

/// What a line came to.
#[derive(Debug, Serialize)]
struct LineAnswer {
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<Taken>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
}

/// A job that was taken.
#[derive(Debug, Serialize)]
struct Taken {
    id: JobId,
    state: State,
    outcome: Placed,
}

/// The last line.
#[derive(Debug, Serialize)]
struct Last {
    end: End,
}

#[derive(Debug, Serialize)]
struct End {
    /// Lines that were read, empty ones included.
    lines: usize,
    /// Those that were answered with a job.
    taken: usize,
    /// Those that were answered with errors.
    refused: usize,
    /// Whether the body was read to its end.
    complete: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Broken>,
    budget: Budget,
}

#[derive(Debug, Serialize)]
struct Broken {
    r#type: String,
    status: u16,
    detail: String,
    retryable: bool,
}

/// Lines that were read and not yet answered.
#[derive(Default)]
struct Chunk {
    lines: Vec<(usize, Vec<u8>)>,
    bytes: usize,
}

/// How far the reading is.
struct Reading {
    part: Vec<u8>,
    chunk: Chunk,
    number: usize,
    taken: usize,
    refused: usize,
    answers: mpsc::Sender<Bytes>,
}

impl Lines {
    /// Takes a place among the readers and the request's idempotency key.
    pub fn new(web: Web, caller: Caller, wishes: Wishes, trace: Trace) -> Result<Self, Problem> {
        let place = web.line_readers().try_acquire_owned().map_err(|_| {
            Problem::new(Kind::Overloaded, "as many bodies of lines as the server takes are being read")
                .with_retry_after(limit::OVERLOADED_RETRY_AFTER)
        })?;
        let held = web.keys().hold(caller.user_id(), wishes.key())?;
        Ok(Self { web, caller, wishes: wishes.without_waiting(), trace, _held: held, _place: place })
    }

    /// Begins to read; the answers come as the lines do.
    pub fn accept(self, body: Body) -> Result<Response, Problem> {
        let (answers, answered) = mpsc::channel(ANSWERS_MAX);
        let part = Vec::new();
        let reading = Reading { part, chunk: Chunk::default(), number: 0, taken: 0, refused: 0, answers };
        tokio::spawn(self.run(body, reading));
        let lines = stream::unfold(answered, async |mut answered| {
            let next = answered.recv().await?;
            Some((Ok::<_, Infallible>(next), answered))
        });
        let body = Body::from_stream(lines);
        Ok((StatusCode::ACCEPTED, [(header::CONTENT_TYPE, TYPES[0])], body).into_response())
    }

    async fn run(self, body: Body, mut reading: Reading) {
        let read = match self.read(body, &mut reading).await {
            Ok(()) => Ok(()),
            // What was whole before it broke off is taken.
            Err(problem) => self.flush(&mut reading).await.and(Err(problem)),
        };
        let end = End {
            lines: reading.number,
            taken: reading.taken,
            refused: reading.refused,
            complete: read.is_ok(),
            problem: read.err().map(|problem| Broken {
                r#type: format!("{}{}", super::error::TYPE_PREFIX, problem.kind().slug()),
                status: problem.kind().status(),
                detail: problem.detail().to_owned(),
                retryable: problem.kind().retryable(),
            }),
            budget: Budget::of(&self.caller),
        };
        reading.send(&[Last { end }]);
    }

    async fn read(&self, body: Body, reading: &mut Reading) -> Result<(), Problem> {
        let mut body = body.into_data_stream();
        let (began, mut heard) = (Instant::now(), Instant::now());
        loop {
            let patience = if reading.chunk.lines.is_empty() { limit::BODY_TIMEOUT } else { PAUSE };
            let next = tokio::select! {
                next = tokio::time::timeout(patience, body.next()) => next,
                () = self.web.stopping() => {
                    return Err(Problem::new(Kind::Overloaded, "the server stops; send the rest again"));
                }
            };
            match next {
                Ok(Some(Ok(bytes))) => {
                    heard = Instant::now();
                    self.feed(&bytes, reading).await?;
                }
                Ok(Some(Err(_))) => return Err(Problem::new(Kind::BadRequest, "the body broke off")),
                Ok(None) => {
                    reading.end_line()?;
                    return self.flush(reading).await;
                }
                Err(_) => self.flush(reading).await?,
            }
            if heard.elapsed() >= limit::BODY_TIMEOUT {
                return Err(silent(limit::BODY_TIMEOUT));
            }
            if began.elapsed() >= limit::LINES_TIMEOUT {
                return Err(silent(limit::LINES_TIMEOUT));
            }
        }
    }

    async fn feed(&self, bytes: &[u8], reading: &mut Reading) -> Result<(), Problem> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            reading.part.extend_from_slice(piece);
            if reading.part.len() > limit::LINE_MAX {
                let detail = format!("line {} has more than {} bytes", reading.number + 1, limit::LINE_MAX);
                return Err(Problem::new(Kind::BodyTooLarge, detail));
            }
            if piece.ends_with(b"\n") {
                reading.end_line()?;
                if reading.chunk.lines.len() >= limit::CHUNK_LINES || reading.chunk.bytes >= limit::CHUNK_BYTES {
                    self.flush(reading).await?;
                }
            }
        }
        Ok(())
    }

    /// Commits the chunk and answers its lines. On an error none of them is taken, and each is told so.
    async fn flush(&self, reading: &mut Reading) -> Result<(), Problem> {
        let Chunk { lines, .. } = std::mem::take(&mut reading.chunk);
        if lines.is_empty() {
            return Ok(());
        }
        match self.place(&lines).await {
            Ok(answers) => {
                let taken = answers.iter().filter(|answer| answer.job.is_some()).count();
                reading.taken += taken;
                reading.refused += answers.len() - taken;
                reading.send(&answers);
                Ok(())
            }
            Err(problem) => {
                reading.refused += lines.len();
                let told = |(line, _): &(usize, Vec<u8>)| refused(*line, problem.clone());
                reading.send(&lines.iter().map(told).collect::<Vec<_>>());
                Err(problem)
            }
        }
    }

    async fn place(&self, lines: &[(usize, Vec<u8>)]) -> Result<Vec<LineAnswer>, Problem> {
        let mut jobs: Vec<NewJob> = Vec::with_capacity(lines.len());
        let mut faults = Vec::with_capacity(lines.len());
        for (line, text) in lines {
            let Self { web, caller, wishes, trace, .. } = self;
            let order = Order { web, caller, wishes, trace: *trace, body: text };
            faults.push(match order.read(text, "", *line).await {
                Ok(Ok(job)) => {
                    jobs.push(job);
                    None
                }
                Ok(Err(errors)) => Some(LineAnswer { line: *line, job: None, errors }),
                Err(problem) if matches!(problem.kind(), Kind::MalformedJson) => Some(refused(*line, problem)),
                Err(problem) => return Err(problem),
            });
        }
        let mut placed = self.web.queue().enqueue_each(jobs).await?.into_iter();
        let answer = |(fault, (line, _)): (Option<LineAnswer>, &(usize, Vec<u8>))| {
            fault.unwrap_or_else(|| match placed.next().expect("each job has an answer") {
                Ok(Enqueued { job_id, state, outcome, .. }) => {
                    LineAnswer { line: *line, job: Some(Taken { id: job_id, state, outcome }), errors: Vec::new() }
                }
                Err(error) => refused(*line, error.into()),
            })
        };
        Ok(faults.into_iter().zip(lines).map(answer).collect())
    }
}

impl Reading {
    /// What was read of a line is the whole of it.
    fn end_line(&mut self) -> Result<(), Problem> {
        let text = std::mem::take(&mut self.part);
        if text.is_empty() {
            return Ok(());
        }
        self.number += 1;
        if self.number > limit::LINES_MAX {
            let detail = format!("a body has at most {} lines; send the rest in another one", limit::LINES_MAX);
            return Err(Problem::new(Kind::BodyTooLarge, detail));
        }
        if !text.trim_ascii().is_empty() {
            self.chunk.bytes += text.len();
            self.chunk.lines.push((self.number, text));
        }
        Ok(())
    }

    /// Nobody hears it when the client is gone; the lines were taken all the same.
    fn send<T: Serialize>(&self, answers: &[T]) {
        let mut text = Vec::new();
        for answer in answers {
            if serde_json::to_writer(&mut text, answer).is_ok() {
                text.push(b'\n');
            }
        }
        let _ = self.answers.try_send(text.into());
    }
}

fn refused(line: usize, problem: Problem) -> LineAnswer {
    let message = problem.detail().to_owned();
    let mut errors = problem.into_errors();
    if errors.is_empty() {
        errors.push(FieldError { pointer: String::new(), message });
    }
    LineAnswer { line, job: None, errors }
}

fn silent(time: Duration) -> Problem {
    Problem::new(Kind::RequestTimeout, format!("the rest of the body did not arrive within {} s", time.as_secs()))
}
