//! The libraries as pages load them: `/socket.io/socket.io.js`, of the generation asked for, and
//! `/capsule.js`.
//!
//! A path names the generation by a folder (`/socket.io/v2/socket.io.js`) or in the file's name,
//! as servers of 0.9 had it (`/socket.io/socket.io.v0.9.17.js`); where it does not, it is the one
//! of the configuration.

use axum::{Router, body::Body, response::Response, routing::get};
use http::{
    HeaderMap, HeaderValue, StatusCode, Uri,
    header::{
        ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_ENCODING,
        CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};

/// Which generation of socket.io-client is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Generation {
    /// 0.9.
    Zero,
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

/// What an npm package of the client has for browsers.
struct Bundle {
    /// As the package says it; empty where the build had no package.
    version: &'static str,
    files: &'static [File],
}

/// One file, as the build made it.
struct File {
    name: &'static str,
    /// A digest of what it holds.
    tag: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

// `ZERO`, `ONE`, `TWO`, `THREE` and `FOUR`, each a `Bundle`, and `CAPSULE`, our own library for
// browsers, which is a `File`.
include!(concat!(env!("OUT_DIR"), "/bundle.rs"));

impl Generation {
    const ALL: [Self; 5] = [Self::Zero, Self::One, Self::Two, Self::Three, Self::Four];

    const fn bundle(self) -> &'static Bundle {
        match self {
            Self::Zero => &ZERO,
            Self::One => &ONE,
            Self::Two => &TWO,
            Self::Three => &THREE,
            Self::Four => &FOUR,
        }
    }
}

/// Serves the client library, `client` where no path says which, and `capsule.js`.
pub fn router<S: Clone + Send + Sync + 'static>(client: Generation) -> Router<S> {
    let library = async move |uri: Uri, headers: HeaderMap| {
        let path = uri.path().strip_prefix(FOLDER).unwrap_or_default();
        match find(client, path) {
            Ok(found) => found.answer(&headers),
            Err(missing) => say(StatusCode::NOT_FOUND, missing.to_string()),
        }
    };
    let capsule = async |headers: HeaderMap| {
        Found { file: &CAPSULE, is_fixed: false, map: None }.answer(&headers)
    };
    Router::new()
        .route("/socket.io/{*file}", get(library).fallback(wrong_method))
        .route("/capsule.js", get(capsule).fallback(wrong_method))
}

const FOLDER: &str = "/socket.io/";

/// A file that was asked for.
struct Found {
    file: &'static File,
    /// Whether the path will never mean another file.
    is_fixed: bool,
    /// Where its source map is, if the file's own word for it would lead astray.
    map: Option<String>,
}

/// Why there is no file at a path.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Missing {
    #[error("This gateway was built without the client library. `make` fetches it.")]
    NotBuilt,
    #[error("There is no such version of the client library here; there are {}.", versions())]
    Version,
    #[error("The client library {} has no such file; it has {}.", .0.bundle().version, names(*.0))]
    File(Generation),
    #[error("The msgpack bundles need a server that encodes packets so; this one speaks JSON.")]
    Msgpack,
    #[error("Clients of 0.7 to 0.9 are not served by this gateway.")]
    Protocol1,
    #[error("There is nothing here. The client library is /socket.io/socket.io.js.")]
    Nothing,
}

fn versions() -> String {
    let all = Generation::ALL.iter().map(|generation| generation.bundle().version);
    let all = all.filter(|version| !version.is_empty()).map(|version| format!("v{version}"));
    all.collect::<Vec<_>>().join(", ")
}

fn names(generation: Generation) -> String {
    generation.bundle().files.iter().map(|file| file.name).collect::<Vec<_>>().join(", ")
}

/// Finds the file that a path below [`FOLDER`] means.
fn find(client: Generation, path: &str) -> Result<Found, Missing> {
    if path == "1" || path.starts_with("1/") {
        return Err(Missing::Protocol1);
    }
    let versioned = |version: &str| {
        let found =
            Generation::ALL.into_iter().find(|all| is_version(version, all.bundle().version));
        let is_built = Generation::ALL.iter().any(|all| !all.bundle().files.is_empty());
        found.ok_or(if is_built { Missing::Version } else { Missing::NotBuilt })
    };
    let folder = path.strip_prefix('v').and_then(|path| path.split_once('/'));
    if let Some((version, name)) = folder {
        let generation = versioned(version)?;
        let file = file(generation, name)?;
        let is_fixed = version == generation.bundle().version;
        return Ok(Found { file, is_fixed, map: None });
    }
    if let Some(rest) = path.strip_prefix("socket.io.v") {
        let is_version = |letter: char| letter.is_ascii_digit() || letter == '.';
        let end = rest.find(|letter| !is_version(letter)).unwrap_or(rest.len());
        let (version, rest) = (rest[..end].trim_end_matches('.'), &rest[end..]);
        let generation = versioned(version)?;
        let file = file(generation, &format!("socket.io.{rest}"))?;
        let is_fixed = version == generation.bundle().version;
        // The file names its map as its neighbour, and in this folder that is another's.
        let map = format!("{}.map", file.name);
        let has_map = generation.bundle().files.iter().any(|file| file.name == map);
        let map = has_map.then(|| format!("v{version}/{map}"));
        return Ok(Found { file, is_fixed, map });
    }
    if !path.starts_with("socket.io.") {
        return Err(Missing::Nothing);
    }
    Ok(Found { file: file(client, path)?, is_fixed: false, map: None })
}

/// Tells whether `asked` is `version`, or the front of it: `4` and `4.8` are 4.8.4.
fn is_version(asked: &str, version: &str) -> bool {
    let rest = version.strip_prefix(asked);
    !asked.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn file(generation: Generation, name: &str) -> Result<&'static File, Missing> {
    let bundle = generation.bundle();
    let named = |name: &str| bundle.files.iter().find(|file| file.name == name);
    // In 2.x what is not called `dev` is minified.
    let minified = || {
        let plain = name.strip_suffix(".min.js")?;
        named(&format!("{plain}.dev.js")).and(named(&format!("{plain}.js")))
    };
    named(name).or_else(minified).ok_or_else(|| {
        if bundle.files.is_empty() {
            Missing::NotBuilt
        } else if name.starts_with("socket.io.msgpack.") {
            Missing::Msgpack
        } else {
            Missing::File(generation)
        }
    })
}

const SCRIPT: &str = "application/javascript; charset=utf-8";
const MAP: &str = "application/json; charset=utf-8";

/// Pages may keep a library, and ask whether it is still right.
const CHANGING: &str = "public, max-age=0, must-revalidate";

/// A version of a package is never published twice.
const FIXED: &str = "public, max-age=31536000, immutable";

const SOURCE_MAP: HeaderName = HeaderName::from_static("sourcemap");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

impl Found {
    /// Answers with the file, or that what the page has of it is still right.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let is_zipped = takes_gzip(asked);
        let tag = format!("\"{}{}\"", self.file.tag, if is_zipped { "-gzip" } else { "" });
        let is_known = knows(asked, &tag);
        let body = match (is_known, is_zipped) {
            (true, _) => Body::empty(),
            (false, true) => Body::from(self.file.gzip),
            (false, false) => Body::from(self.file.plain),
        };
        let mut response = Response::new(body);
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        let mut set = |name, value| headers.insert(name, HeaderValue::from_static(value));
        if !is_known {
            set(CONTENT_TYPE, if self.file.name.ends_with(".map") { MAP } else { SCRIPT });
        }
        if is_zipped && !is_known {
            set(CONTENT_ENCODING, "gzip");
        }
        set(CACHE_CONTROL, if self.is_fixed { FIXED } else { CHANGING });
        set(VARY, "Accept-Encoding");
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        // Modules and scripts with `integrity` are fetched as any other foreign data is, and
        // here is nothing that is not everybody's.
        set(ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        set(RESOURCE_POLICY, "cross-origin");
        headers.insert(ETAG, tag.parse().expect("a hexadecimal number is plain text"));
        if let Some(map) = self.map.as_ref().and_then(|map| map.parse().ok()) {
            headers.insert(SOURCE_MAP, map);
        }
        response
    }
}

/// Tells whether one of the tags that a page has is this one.
fn knows(asked: &HeaderMap, tag: &str) -> bool {
    items(asked, IF_NONE_MATCH).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}

/// Tells whether a body may be compressed.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let weight_of = |wanted: &[&str]| {
        items(asked, ACCEPT_ENCODING).find_map(|one| {
            let (coding, weight) = one.split_once(';').unwrap_or((one, "q=1"));
            let is_wanted = wanted.iter().any(|name| coding.trim().eq_ignore_ascii_case(name));
            let weight = weight.trim().trim_start_matches(['q', 'Q']).trim_start_matches('=');
            is_wanted.then(|| weight.parse().unwrap_or(0.0))
        })
    };
    weight_of(&["gzip", "x-gzip"]).or_else(|| weight_of(&["*"])).unwrap_or(0.0) > 0.0
}

/// The items of a header that is a list, in however many lines it came.
fn items(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

async fn wrong_method() -> Response {
    let mut response =
        say(StatusCode::METHOD_NOT_ALLOWED, "Here is a file; it is read with GET or HEAD.");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn say(status: StatusCode, sentence: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(sentence.into() + "\n"));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(CONTENT_TYPE, text);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a path means, where 4.x is configured: the file and its version, whether for ever.
    #[track_caller]
    fn check(path: &str, expected: Result<(&str, &str, bool), Missing>) {
        let found = find(Generation::Four, path).map(|found| {
            let mut all = Generation::ALL.iter().map(|generation| generation.bundle());
            let bundle = all.find(|all| all.files.iter().any(|file| file.tag == found.file.tag));
            (found.file.name, bundle.expect("it is of a bundle").version, found.is_fixed)
        });
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn a_path_names_the_generation_or_takes_the_configured_one() {
        check("socket.io.js", Ok(("socket.io.js", "4.8.4", false)));
        check("socket.io.min.js.map", Ok(("socket.io.min.js.map", "4.8.4", false)));
        check("socket.io.esm.min.js", Ok(("socket.io.esm.min.js", "4.8.4", false)));
        check("v2/socket.io.js", Ok(("socket.io.js", "2.5.0", false)));
        check("v2/socket.io.min.js", Ok(("socket.io.js", "2.5.0", false)));
        check("v2.5.0/socket.io.slim.min.js", Ok(("socket.io.slim.js", "2.5.0", true)));
        check("v3.1/socket.io.js.map", Ok(("socket.io.js.map", "3.1.3", false)));
        check("v1.7.4/socket.io.slim.js", Ok(("socket.io.slim.js", "1.7.4", true)));
        check("v0.9/socket.io.js", Ok(("socket.io.js", "0.9.17", false)));
        check("socket.io.v0.9.17.js", Ok(("socket.io.js", "0.9.17", true)));
        check("socket.io.v0.9.17.min.js", Ok(("socket.io.min.js", "0.9.17", true)));
        check("socket.io.v1.slim.min.js", Ok(("socket.io.slim.min.js", "1.7.4", false)));
    }

    #[test]
    fn a_file_that_is_not_there_is_missing_for_a_reason() {
        check("v5/socket.io.js", Err(Missing::Version));
        check("v4.8.3/socket.io.js", Err(Missing::Version));
        check("v/socket.io.js", Err(Missing::Version));
        check("socket.io.v0.9.16.js", Err(Missing::Version));
        check("socket.io.v.js", Err(Missing::Version));
        check("socket.io.v", Err(Missing::Version));
        check("socket.io.v4", Err(Missing::File(Generation::Four)));
        check("v4/socket.io.slim.js", Err(Missing::File(Generation::Four)));
        check("v4/../socket.io.js", Err(Missing::File(Generation::Four)));
        check("socket.io.dev.js", Err(Missing::File(Generation::Four)));
        check("v3/socket.io.msgpack.min.js", Err(Missing::Msgpack));
        check("1/", Err(Missing::Protocol1));
        check("1/websocket/abc", Err(Missing::Protocol1));
        check("favicon.ico", Err(Missing::Nothing));
        check("static/flashsocket/WebSocketMain.swf", Err(Missing::Nothing));
        check("", Err(Missing::Nothing));
    }

    #[test]
    fn a_flat_name_says_where_its_map_is() {
        let map = |path| find(Generation::Four, path).expect("it is there").map;
        assert_eq!(map("socket.io.v2.min.js").as_deref(), Some("v2/socket.io.js.map"));
        assert_eq!(map("socket.io.v4.8.4.js").as_deref(), Some("v4.8.4/socket.io.js.map"));
        assert_eq!(map("socket.io.v1.7.4.min.js"), None);
        assert_eq!(map("socket.io.v0.9.17.js"), None);
        assert_eq!(map("v2/socket.io.js"), None);
    }

    #[test]
    fn a_body_is_compressed_for_those_who_say_so() {
        let takes = |text: &'static str| {
            takes_gzip(&HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(text))]))
        };
        for text in ["gzip", "deflate, gzip;q=0.5", "GZIP", "x-gzip", "*", "br;q=1.0, gzip; q=0.8"]
        {
            assert!(takes(text), "{text}");
        }
        for text in ["", "identity", "gzip;q=0", "gzip; q=0.000, *", "br", "*;q=0", "gzip;q=x"] {
            assert!(!takes(text), "{text}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_page_that_has_the_file_is_told_so() {
        let knows = |text: &'static str| {
            let asked = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(text))]);
            super::knows(&asked, "\"abc\"")
        };
        assert!(knows("\"abc\"") && knows("W/\"abc\"") && knows("\"x\", \"abc\"") && knows("*"));
        assert!(!knows("\"abc-gzip\"") && !knows("abc") && !knows(""));
    }
}
