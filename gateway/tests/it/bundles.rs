//! The client library and `capsule.js`, as pages, caches and crawlers ask for them.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::stage::{Answer, Stage};

/// What one way of asking for a file was answered; its body decoded.
async fn whole(stage: &Stage, path: &str, header: &str) -> (Answer, Vec<u8>) {
    let answer = stage.get(path, &[header]).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let length = answer.header("content-length").map(|length| length.parse().unwrap());
    assert_eq!(length, Some(answer.body.len()), "{path}");
    let mut plain = Vec::new();
    match answer.header("content-encoding") {
        Some("gzip") => GzDecoder::new(answer.body.as_slice()).read_to_end(&mut plain).unwrap(),
        None => answer.body.as_slice().read_to_end(&mut plain).unwrap(),
        other => panic!("{path}: {other:?}"),
    };
    (answer, plain)
}

const SCRIPT: &str = "application/javascript; charset=utf-8";
const MAP: &str = "application/json; charset=utf-8";

#[tokio::test]
async fn every_generation_is_served_as_its_package_has_it() {
    let stage = Stage::start().await;
    for (path, file, kind, global) in [
        ("socket.io.js", "client-4/dist/socket.io.js", SCRIPT, "Socket.IO v4.8.4"),
        ("socket.io.min.js", "client-4/dist/socket.io.min.js", SCRIPT, "Socket.IO v4.8.4"),
        ("socket.io.js.map", "client-4/dist/socket.io.js.map", MAP, "\"version\":3"),
        ("socket.io.esm.min.js", "client-4/dist/socket.io.esm.min.js", SCRIPT, "export{"),
        ("v4/socket.io.js", "client-4/dist/socket.io.js", SCRIPT, "Socket.IO v4.8.4"),
        ("v3.1/socket.io.js", "client-3/dist/socket.io.js", SCRIPT, "Socket.IO v3.1.3"),
        ("v2/socket.io.dev.js", "client-2/dist/socket.io.dev.js", SCRIPT, "Socket.IO v2.5.0"),
        ("v2.5.0/socket.io.min.js", "client-2/dist/socket.io.js", SCRIPT, "Socket.IO v2.5.0"),
        ("v1/socket.io.slim.js", "client-1/dist/socket.io.slim.js", SCRIPT, "exports"),
        ("socket.io.v0.9.17.js", "client-0/dist/socket.io.js", SCRIPT, "Socket.IO.js build:0.9.17"),
        ("socket.io.v0.9.17.min.js", "client-0/dist/socket.io.min.js", SCRIPT, "build:0.9.17"),
    ] {
        let path = format!("/socket.io/{path}");
        let (answer, plain) = whole(&stage, &path, "Accept-Encoding: identity").await;
        assert!(String::from_utf8_lossy(&plain).contains(global), "{path} is another file");
        let assets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/node_modules");
        assert!(plain == std::fs::read(assets.join(file)).unwrap(), "{path} is not {file}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
    }
}

#[tokio::test]
async fn a_library_may_be_compressed_kept_and_used_by_other_sites() {
    let stage = Stage::start().await;
    for path in ["/socket.io/socket.io.js", "/socket.io/v2.5.0/socket.io.js.map", "/capsule.js"] {
        let (plain, content) = whole(&stage, path, "Accept-Encoding: br").await;
        let (zipped, same) = whole(&stage, path, "Accept-Encoding: br, gzip").await;
        assert!(content == same, "{path}");
        assert_eq!(zipped.header("content-encoding"), Some("gzip"), "{path}");
        assert!(zipped.body.len() * 2 < plain.body.len(), "{path}: {}", zipped.body.len());
        for answer in [&plain, &zipped] {
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{path}");
            assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
            assert_eq!(answer.header("cross-origin-resource-policy"), Some("cross-origin"));
        }
        // One tag names one body, byte by byte.
        let (plain, zipped) = (plain.header("etag").unwrap(), zipped.header("etag").unwrap());
        assert!(plain.starts_with('"') && zipped.starts_with('"') && plain != zipped, "{path}");
        for (tag, coding) in [(plain, "identity"), (zipped, "gzip")] {
            let (tag, coding) =
                (format!("If-None-Match: {tag}"), format!("Accept-Encoding: {coding}"));
            let kept = stage.get(path, &[&tag, &coding]).await;
            assert_eq!((kept.status, kept.body.len()), (304, 0), "{path} {coding}");
            assert_eq!(kept.header("vary"), Some("Accept-Encoding"), "{path}");
        }
        let stale = stage.get(path, &["If-None-Match: \"another\""]).await;
        assert_eq!(stale.status, 200, "{path}");

        let head = stage.request(&format!("HEAD {path}"), &[], b"").await;
        let length = content.len().to_string();
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-length"), Some(length.as_str()), "{path}");
        assert_eq!(head.header("etag"), Some(plain), "{path}");
    }
    let cache = async |path| stage.get(path, &[]).await.header("cache-control").map(str::to_owned);
    let changing = cache("/socket.io/v4/socket.io.js").await.unwrap();
    assert_eq!(changing, "public, max-age=0, must-revalidate");
    assert!(cache("/socket.io/v4.8.4/socket.io.js").await.unwrap().ends_with("immutable"));
    let flat = stage.get("/socket.io/socket.io.v2.5.0.js", &[]).await;
    assert_eq!(flat.header("sourcemap"), Some("v2.5.0/socket.io.js.map"));
}

#[tokio::test]
async fn what_is_not_served_is_answered_with_what_was_wrong() {
    let stage = Stage::start().await;
    for (path, told) in [
        ("/socket.io/v9/socket.io.js", "there are v0.9.17, v1.7.4, v2.5.0, v3.1.3, v4.8.4."),
        ("/socket.io/socket.io.v0.9.16.js", "no such version"),
        ("/socket.io/v4/socket.io.slim.js", "it has socket.io.esm.min.js, "),
        ("/socket.io/socket.io.msgpack.min.js", "this one speaks JSON"),
        ("/socket.io/1/?t=1", "0.7 to 0.9"),
        ("/socket.io/1/websocket/abc", "0.7 to 0.9"),
        ("/socket.io/%ff", "nothing here"),
        ("/socket.io/../../etc/passwd", "nothing here"),
        ("/socket.io/v4/%2e%2e/socket.io.js", "it has socket.io.esm.min.js, "),
    ] {
        let answer = stage.get(path, &[]).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(answer.text().contains(told), "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    for path in ["/socket.io/socket.io.js", "/capsule.js"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = stage.request(&format!("{method} {path}"), &[], b"").await;
            assert_eq!(answer.status, 405, "{method} {path}: {}", answer.text());
            assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method} {path}");
            assert!(answer.text().contains("GET or HEAD"), "{method} {path}");
        }
    }
}
