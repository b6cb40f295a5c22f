//! Errors on the wire, as RFC 9457 describes them.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::base::{Error, ErrorKind, kind_name, kind_of_name};

/// The media type of RFC 9457.
const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong. `code` is stable; `detail` is for a person and says what to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Always `about:blank`: the status says the rest.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = status_of(error.kind());
        Self {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            detail: error.message().into(),
            code: kind_name(error.kind()).into(),
        }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Error::new(kind_of_name(&problem.code), problem.detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}

fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid | ErrorKind::NameTooLong | ErrorKind::Range => StatusCode::BAD_REQUEST,
        ErrorKind::NotFound | ErrorKind::NoAttribute | ErrorKind::Stale => StatusCode::NOT_FOUND,
        ErrorKind::Exists | ErrorKind::InUse | ErrorKind::Locked | ErrorKind::NotEmpty => {
            StatusCode::CONFLICT
        }
        ErrorKind::NotAllowed | ErrorKind::ReadOnly => StatusCode::FORBIDDEN,
        ErrorKind::Precondition | ErrorKind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::NoSpace | ErrorKind::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_wire() {
        let problem = Problem::from(Error::new(ErrorKind::InUse, "port 1 is taken"));
        assert_eq!(problem.status, 409);
        let text = serde_json::to_string(&problem).unwrap();
        let back = Error::from(serde_json::from_str::<Problem>(&text).unwrap());
        assert_eq!(back.kind(), ErrorKind::InUse);
        assert_eq!(back.message(), "port 1 is taken");
    }
}
