//! What is wrong with a text, and where in it.

use std::fmt;

/// Why a text could not be understood. It prints as one line: the reason as `ovs-ofctl` would say it
/// and, once located, the character that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// The reason.
    pub reason: String,
    /// The word that is wrong.
    pub word: String,
    /// Position of the word in the whole text, in characters from 1, once located.
    pub at: Option<usize>,
    /// Where the word lies in memory: how it is found again in the text it is a part of.
    address: usize,
}

impl ParseError {
    /// `word`, a part of the text that is being read, is wrong for a reason.
    pub fn new(word: &str, reason: impl Into<String>) -> ParseError {
        let address = word.as_ptr() as usize;
        ParseError { reason: reason.into(), word: word.to_owned(), at: None, address }
    }

    /// Finds the word's position in `text`, if it is a part of it.
    #[must_use]
    pub fn locate(mut self, text: &str) -> ParseError {
        let offset = self.address.wrapping_sub(text.as_ptr() as usize);
        if self.at.is_none()
            && let Some(before) = text.get(..offset)
        {
            self.at = Some(before.chars().count() + 1);
        }
        self
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at, self.word.is_empty()) {
            (Some(at), true) => write!(f, "{} (at character {at})", self.reason),
            (Some(at), false) => {
                write!(f, "{} (at character {at}: \"{}\")", self.reason, self.word)
            }
            (None, _) => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for ParseError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_character_is_counted_in_the_whole_text() {
        let text = "ünd=1,foo=2".to_owned();
        let word = text.split(',').nth(1).expect("two words");
        let error = ParseError::new(word, "unknown keyword foo").locate(&text);
        assert_eq!(error.to_string(), "unknown keyword foo (at character 7: \"foo=2\")");
        let elsewhere = ParseError::new("x", "no").locate(&text);
        assert_eq!(elsewhere.to_string(), "no");
    }
}
