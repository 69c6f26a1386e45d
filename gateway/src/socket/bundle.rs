//! The libraries as pages load them: `/socket.io/socket.io.js`, of the generation asked for, and
//! `/capsule.js`.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{body::Body, response::Response};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
};

/// Which generation of socket.io-client is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Generation {
    /// 1.7.
    One,
    /// 2.5.
    Two,
    /// 3.1.
    Three,
    /// 4.8.
    #[default]
    Four,
}

/// The name of a file in a bundle, and what it holds.
type File = (&'static str, &'static [u8]);

// `ONE`, `TWO`, `THREE` and `FOUR`, each a `&[File]`, empty where the build had no bundle.
include!(concat!(env!("OUT_DIR"), "/bundle.rs"));

impl Generation {
    const fn files(self) -> &'static [File] {
        match self {
            Self::One => ONE,
            Self::Two => TWO,
            Self::Three => THREE,
            Self::Four => FOUR,
        }
    }
}

/// Our own library for browsers, see `docs/capsule.md`.
const CAPSULE: &str = include_str!("../../assets/capsule.js");

const SCRIPT: &str = "application/javascript; charset=utf-8";

/// Pages may keep a library, and ask whether it is still right.
const CACHE: &str = "public, max-age=0, must-revalidate";

/// Answers a request for a file of the bundle.
#[must_use]
pub fn answer(generation: Generation, file: &str, headers: &HeaderMap) -> Response {
    let files = generation.files();
    let Some((_, content)) = files.iter().find(|(name, _)| *name == file) else {
        let is_bundle = file.starts_with("socket.io.");
        return missing(if is_bundle && files.is_empty() {
            "This gateway was built without the client library. `make` fetches it.\n"
        } else {
            "There is nothing here.\n"
        });
    };
    let kind = if file.ends_with(".map") { "application/json; charset=utf-8" } else { SCRIPT };
    unless_known(content, kind, headers)
}

/// Answers a request for `/capsule.js`.
#[must_use]
pub fn capsule(headers: &HeaderMap) -> Response {
    unless_known(CAPSULE.as_bytes(), SCRIPT, headers)
}

/// Answers with a file, or that what the page has of it is still right.
fn unless_known(content: &'static [u8], kind: &'static str, headers: &HeaderMap) -> Response {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let etag = format!("\"{:016x}\"", hasher.finish());
    let asked = headers.get(IF_NONE_MATCH).and_then(|asked| asked.to_str().ok());
    let is_known = asked.is_some_and(|asked| {
        asked.split(',').any(|one| one.trim().trim_start_matches("W/") == etag || one.trim() == "*")
    });
    let mut response = if is_known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(Body::from(content))
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(ETAG, etag.parse().expect("a hexadecimal number is plain text"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(CACHE));
    response
}

fn missing(why: &'static str) -> Response {
    let mut response = Response::new(Body::from(why));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
