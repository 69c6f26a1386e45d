//! A part of a document that a program writes, between two marks.

use std::{io, path::Path};

/// Why a part was not written.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file cannot be read or written.
    #[error("cannot be read or written")]
    File(#[from] io::Error),
    /// It has no such part.
    #[error("has no part between `{0}` and its end")]
    NoPart(String),
}

/// Puts a text between `<!-- NAME: begin -->` and `<!-- NAME: end -->`, in place of what is there.
///
/// # Errors
///
/// Returns [`DocumentError`] when the file cannot be written or has no such marks.
pub fn put(file: &Path, name: &str, text: &str) -> Result<(), DocumentError> {
    let old = std::fs::read_to_string(file)?;
    let new = with(&old, name, text).ok_or_else(|| DocumentError::NoPart(begin(name)))?;
    Ok(std::fs::write(file, new)?)
}

fn begin(name: &str) -> String {
    format!("<!-- {name}: begin -->")
}

fn with(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (begin(name), format!("<!-- {name}: end -->"));
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n{end}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_between_the_marks_is_replaced() {
        let document = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n";
        let expected = "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n";
        assert_eq!(with(document, "x", "new\n"), Some(expected.to_owned()));
        assert_eq!(with(expected, "x", "new"), Some(expected.to_owned()));
        assert_eq!(with(document, "y", "new"), None);
        assert_eq!(with("<!-- x: end --><!-- x: begin -->", "x", "new"), None);
    }
}
