//! Writes through the HTTP API of a gateway, as backends do.

use serde_json::{json, value::RawValue};

use super::{Feed, Write};
use crate::cluster::{Admin, admin::escape};

/// Carries a write out; what is unknown by now is as good as done.
pub(super) async fn write(admin: &Admin, feed: &Feed, write: Write) -> Result<(), String> {
    let place = format!("/api/feeds/{}", escape(&feed.name));
    let raw = |item: Vec<u8>| {
        let text = String::from_utf8(item).map_err(|error| error.to_string())?;
        RawValue::from_string(text).map_err(|error| error.to_string())
    };
    let (method, path, body) = match write {
        Write::Publish { id, item } => {
            let mut body = json!({ "id": id, "type": "feed", "item": raw(item)? });
            if let Some(most) = feed.max_length {
                body["max_length"] = most.into();
            }
            ("POST", place, Some(body))
        }
        Write::Insert { item, at } => {
            let mut body =
                json!({ "type": "sorted_feed", "item": raw(item)?, "position": at.to_string() });
            if let Some(most) = feed.max_length {
                body["max_length"] = most.into();
            }
            ("POST", place, Some(body))
        }
        Write::Edit { id, item } => {
            ("PUT", format!("{place}/{}", escape(&id)), Some(json!({ "item": raw(item)? })))
        }
        Write::Move { id, to } => {
            let body = json!({ "position": to.to_string() });
            ("POST", format!("{place}/{}/position", escape(&id)), Some(body))
        }
        Write::Retract { id } => ("DELETE", format!("{place}/{}", escape(&id)), None),
    };
    let answer = admin.ask(method, &path, body.map(|body| body.to_string())).await;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status {
        200..300 | 404 | 409 => Ok(()),
        status => Err(format!("HTTP {status}: {}", answer.body)),
    }
}
