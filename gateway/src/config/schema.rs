//! What a job's data must be.

use std::{fmt, sync::Arc};

use jsonschema::Validator;
use serde_json::Value;

/// A compiled JSON Schema.
#[derive(Clone)]
pub struct Schema(Arc<Validator>);

impl Schema {
    /// Compiles a schema; it may refer to nothing outside itself.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it, as a clause.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        let validator = jsonschema::validator_for(schema).map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(validator)))
    }

    /// Lists what is wrong with some data; nothing if it is as it must be.
    ///
    /// Each entry is the JSON pointer of the place and a sentence about it.
    #[must_use]
    pub fn errors(&self, data: &Value) -> Vec<(String, String)> {
        let errors = self.0.iter_errors(data);
        errors.map(|error| (error.instance_path().to_string(), error.to_string())).collect()
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Schema(…)")
    }
}
