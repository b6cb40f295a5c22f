//! Lists in pages. The body is the list itself; the addresses of the pages around it are in the `Link` header
//! (RFC 8288), so a client that wants only the first page knows nothing of it.

use axum::Json;
use axum::extract::Query;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::base::Result;
use crate::catalog::Record;
use crate::engine::Engine;

/// Entries of one answer, at most and when nothing is said.
const LIMIT_MAX: usize = 1000;

/// The part of a list that is asked for.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    limit: Option<usize>,
    after: Option<u64>,
    before: Option<u64>,
}

pub(super) type Page = Query<Asked>;

impl Asked {
    fn limit(self) -> usize {
        self.limit.unwrap_or(LIMIT_MAX).clamp(1, LIMIT_MAX)
    }
}

/// A page of a list, and where it goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Paged<T> {
    pub entries: Vec<T>,
    next: Option<u64>,
    previous: Option<u64>,
    limit: usize,
}

impl<T> Paged<T> {
    pub(super) fn map<U>(self, change: impl FnMut(T) -> U) -> Paged<U> {
        Paged {
            entries: self.entries.into_iter().map(change).collect(),
            next: self.next,
            previous: self.previous,
            limit: self.limit,
        }
    }
}

impl<T: Serialize> Paged<T> {
    /// The answer to a request for this address.
    pub(super) fn answer(self, uri: &Uri) -> Response {
        let path = uri.path();
        let link = |name: &str, cursor: &str, id: u64| {
            format!("<{path}?limit={}&{cursor}={id}>; rel=\"{name}\"", self.limit)
        };
        let links: Vec<String> = [
            self.next.map(|id| link("next", "after", id)),
            self.previous.map(|id| link("prev", "before", id)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut response = Json(self.entries).into_response();
        // An address that was understood is one that can be written.
        if !links.is_empty()
            && let Ok(value) = HeaderValue::from_str(&links.join(", "))
        {
            response.headers_mut().insert(header::LINK, value);
        }
        response
    }
}

/// The records of a kind that `wanted` says yes to: those after a number, or the newest, before one if it is given.
pub(super) fn newest<T: Record>(
    engine: &Engine,
    asked: Asked,
    wanted: impl Fn(&T) -> bool,
) -> Result<Paged<T>> {
    let limit = asked.limit();
    let mut entries = Vec::new();
    let mut more = false;
    let mut take = |record: T| {
        if wanted(&record) {
            more = entries.len() == limit;
            if !more {
                entries.push(record);
            }
        }
        !more
    };
    match asked.after {
        Some(after) => engine.catalog().walk_up(after, &mut take)?,
        None => engine.catalog().walk_down(asked.before.unwrap_or(u64::MAX), &mut take)?,
    }
    let last = entries.last().filter(|_| more).map(Record::id);
    Ok(match asked.after {
        Some(_) => Paged { entries, next: last, previous: None, limit },
        None => {
            entries.reverse();
            Paged { entries, next: None, previous: last, limit }
        }
    })
}

/// A page of what is there as a whole, in the order of its numbers.
pub(super) fn oldest<T>(mut all: Vec<T>, id: impl Fn(&T) -> u64, asked: Asked) -> Paged<T> {
    let limit = asked.limit();
    all.sort_by_key(&id);
    all.retain(|entry| id(entry) > asked.after.unwrap_or(0));
    let more = all.len() > limit;
    all.truncate(limit);
    let next = all.last().filter(|_| more).map(id);
    Paged { entries: all, next, previous: None, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(limit: usize, after: Option<u64>) -> Asked {
        Asked { limit: Some(limit), after, before: None }
    }

    #[test]
    fn pages_join_up() {
        let all: Vec<u64> = vec![9, 2, 4, 7, 5];
        let (mut seen, mut after) = (Vec::<u64>::new(), None);
        loop {
            let page = oldest(all.clone(), |id| *id, asked(2, after));
            seen.extend(&page.entries);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, [2, 4, 5, 7, 9]);
        assert_eq!(oldest(all.clone(), |id| *id, asked(5, None)).next, None);
        // What the cursor names may be gone meanwhile.
        assert_eq!(oldest(all, |id| *id, asked(2, Some(6))).entries, [7, 9]);
    }

    #[test]
    fn links_say_where_it_goes_on() {
        let page = Paged { entries: vec![1], next: Some(1), previous: None, limit: 1 };
        let response = page.answer(&Uri::from_static("/v1/jobs?limit=1&after=0"));
        assert_eq!(response.headers()["link"], "</v1/jobs?limit=1&after=1>; rel=\"next\"");
        let page = Paged { entries: vec![1], next: None, previous: None, limit: 1 };
        assert!(!page.answer(&Uri::from_static("/v1/jobs")).headers().contains_key("link"));
    }
}
