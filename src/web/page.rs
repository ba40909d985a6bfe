//! Which part of a list is asked for: the query string, and the length of a page. Refuses names it does not know and lengths
//! out of bounds.

use axum::{extract::Query, http::Uri};
use serde::de::DeserializeOwned;

use super::{
    error::{Kind, Problem},
    limit::{PAGE_DEFAULT, PAGE_MAX},
};

/// The query string of `uri`.
pub(super) fn asked<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    let Query(page) =
        Query::<T>::try_from_uri(uri).map_err(|cause| Problem::new(Kind::BadRequest, cause.body_text()))?;
    Ok(page)
}

/// How long a page is for which `asked` was asked: from 1 to [`PAGE_MAX`], [`PAGE_DEFAULT`] unless said.
pub(super) fn length(asked: Option<u32>) -> Result<u32, Problem> {
    let length = asked.unwrap_or(PAGE_DEFAULT);
    if (1..=PAGE_MAX).contains(&length) {
        return Ok(length);
    }
    Err(Problem::new(Kind::BadRequest, format!("`limit` is from 1 to {PAGE_MAX}, not {length}")))
}
