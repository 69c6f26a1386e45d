//! Cookies as express-session signs them.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

/// What JavaScript's `encodeURIComponent` leaves alone.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Returns the cookie's value for a session id.
#[must_use]
pub fn signed(id: &str, secret: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length is a key");
    let signature = STANDARD_NO_PAD.encode(mac.chain_update(id).finalize().into_bytes());
    utf8_percent_encode(&format!("s:{id}.{signature}"), COMPONENT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_signed_as_node_signs_it() {
        // Made with Node's crypto as cookie-signature does it.
        let expected = "s%3A0GvUS-m.x.w0vBu9PK0jYPUZ6TaKXRAAH2MxXuj9DcPV%2BqDvd3LbA";
        assert_eq!(signed("0GvUS-m.x", "keyboard cat"), expected);
    }
}
