//! The HTTP clients: JSON with a bearer token, spans for a collector; a deadline on every request. Refuses to follow redirects, which would carry
//! the token elsewhere.

use std::time::Duration;

use serde_json::Value;

use crate::model::secret::Secret;

/// The longest a request may take, the longest `Prefer: wait` included.
const DEADLINE: Duration = Duration::from_secs(40);

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The other side cannot be reached, or its answer is no JSON.
    #[error("{0}")]
    Away(#[from] reqwest::Error),
    /// It refused; its own words follow.
    #[error("{status}: {words}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The problem's detail, else its title.
        words: String,
    },
}

/// A client of one server for one token.
#[derive(Debug, Clone)]
pub struct Client {
    requests: reqwest::Client,
    base: String,
    token: Secret,
}

impl Client {
    /// A client of the server at `base` (`http://127.0.0.1:7717`) that shows `token`.
    pub fn new(base: &str, token: Secret) -> Result<Self, Error> {
        let requests =
            reqwest::Client::builder().timeout(DEADLINE).redirect(reqwest::redirect::Policy::none()).build()?;
        Ok(Self { requests, base: base.trim_end_matches('/').to_owned(), token })
    }

    /// Reads `path`.
    pub async fn get(&self, path: &str) -> Result<Value, Error> {
        answer(self.requests.get(format!("{}{path}", self.base)).bearer_auth(self.token.expose())).await
    }

    /// Sends `body` to `path`, with `headers`.
    pub async fn post(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Result<Value, Error> {
        let mut request =
            self.requests.post(format!("{}{path}", self.base)).bearer_auth(self.token.expose()).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request).await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Value, Error> {
    let response = request.send().await?;
    let status = response.status();
    let body: Value = response.json().await?;
    if status.is_success() {
        return Ok(body);
    }
    let words = body["detail"].as_str().or(body["title"].as_str()).unwrap_or("no reason was given").to_owned();
    Err(Error::Refused { status: status.as_u16(), words })
}

/// Sends spans to a collector.
#[cfg(feature = "otel")]
#[derive(Debug)]
pub struct Collector {
    requests: reqwest::Client,
    /// The exporter's thread is not the runtime's.
    runtime: tokio::runtime::Handle,
}

#[cfg(feature = "otel")]
impl Collector {
    /// The longest one batch may take.
    const DEADLINE: Duration = Duration::from_secs(10);

    /// Must be called on a runtime.
    pub fn new() -> Result<Self, Error> {
        let redirects = reqwest::redirect::Policy::none();
        let requests = reqwest::Client::builder().timeout(Self::DEADLINE).redirect(redirects).build()?;
        Ok(Self { requests, runtime: tokio::runtime::Handle::current() })
    }
}

#[cfg(feature = "otel")]
#[async_trait::async_trait]
impl opentelemetry_http::HttpClient for Collector {
    async fn send_bytes(
        &self,
        request: opentelemetry_http::Request<opentelemetry_http::Bytes>,
    ) -> Result<opentelemetry_http::Response<opentelemetry_http::Bytes>, opentelemetry_http::HttpError> {
        let (requests, request) = (self.requests.clone(), request.try_into()?);
        let answered = self.runtime.spawn(async move {
            let answer = requests.execute(request).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        });
        let (status, headers, body) = answered.await??;
        let mut response = opentelemetry_http::Response::new(body);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}
