//! The layers below the typed configuration.
use super::Mistakes;
pub(super) struct Layers;
impl Layers {
    pub(super) fn new(
        _text: &str,
        _env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Mistakes> {
        Ok(Self)
    }
}
