//! Lua scripts by name, with the digest that EVALSHA wants.

use std::sync::OnceLock;

use sha1::{Digest, Sha1};

/// One verb of the contract, as Lua text that Redis executes atomically.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    text: &'static str,
    digest: OnceLock<String>,
}

impl Script {
    /// Names a script; `text` is what EVAL would be given.
    #[must_use]
    pub const fn new(name: &'static str, text: &'static str) -> Self {
        Self { name, text, digest: OnceLock::new() }
    }

    /// Returns the name used in logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the Lua text.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// Returns the SHA-1 of the text, as 40 lower-case hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            Sha1::digest(self.text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}
