//! Errors on the wire, as RFC 9457 describes them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::{Error, ErrorKind, kind_name, kind_of_name};

/// The media type of RFC 9457.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// The longest text of another layer that is taken over.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// What went wrong. `code` is stable; `detail` and `hint` are for a person.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Always `about:blank`: the status says the rest.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: String,
    /// What to do, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, code: &str, detail: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            kind: "about:blank".into(),
            title: status.canonical_reason().unwrap_or_default().into(),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.into(),
            hint,
        }
    }

    /// 401: who asks is not known.
    pub(super) fn unauthorized(detail: &str, hint: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail, Some(hint.into()))
    }

    /// 429: the token has as many requests at work as it may have.
    pub(super) fn too_many(name: &str) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_requests",
            format!("token {name} has too many requests at work"),
            Some("wait until some are answered; follow jobs and events by their streams".into()),
        )
    }

    /// 405: the address is there, the method is not.
    pub(super) fn method_not_allowed() -> Self {
        let hint = "GET /v1/openapi.json lists what there is".to_owned();
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this address does not take this method",
            Some(hint),
        )
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self::new(status_of(error.kind()), kind_name(error.kind()), error.message(), hint)
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let error = Error::new(kind_of_name(&problem.code), problem.detail);
        match problem.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"stillpoint\""));
        }
        response
    }
}

/// Makes a refusal of the layers below, which is plain text, a problem like all others.
pub(super) async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !(status.is_client_error() || status.is_server_error()) || kind == Some(MEDIA_TYPE) {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), TEXT_BYTES_MAX).await.unwrap_or_default();
    let detail = String::from_utf8_lossy(&text).into_owned();
    let code = match status {
        StatusCode::BAD_REQUEST => "invalid",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::METHOD_NOT_ALLOWED => return Problem::method_not_allowed().into_response(),
        _ if status.is_server_error() => "io",
        _ => "bad_request",
    };
    Problem::new(status, code, detail, None).into_response()
}

pub(super) fn status_of(kind: ErrorKind) -> StatusCode {
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
        let problem =
            Problem::from(Error::new(ErrorKind::InUse, "port 1 is taken").with_hint("take another"));
        assert_eq!(problem.status, 409);
        let text = serde_json::to_string(&problem).unwrap();
        let back = Error::from(serde_json::from_str::<Problem>(&text).unwrap());
        assert_eq!(back.kind(), ErrorKind::InUse);
        assert_eq!(back.message(), "port 1 is taken");
        assert_eq!(back.hint(), Some("take another"));
        let without = serde_json::to_string(&Problem::from(Error::invalid("no"))).unwrap();
        assert!(!without.contains("hint"), "{without}");
    }
}
