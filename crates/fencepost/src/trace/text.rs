//! Names and values as they are noted on the way: without an allocation where they are short, and
//! without a look into any table.

use std::borrow::Cow;

/// A text that is copied once.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<str>),
}

/// With its length and the tag it is as large as four pointers.
const SHORT: usize = 30;

impl Text {
    #[inline]
    pub(super) fn new(text: &str) -> Text {
        match text.len() {
            length @ 0..=SHORT => {
                let mut bytes = [0; SHORT];
                bytes[..length].copy_from_slice(text.as_bytes());
                let length = length as u8;
                Text::Short { length, bytes }
            }
            _ => Text::Long(text.into()),
        }
    }

    /// Becomes this one.
    #[inline]
    pub(super) fn set(&mut self, text: &str) {
        match self {
            Text::Short { length, bytes } if text.len() <= SHORT => {
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                *length = text.len() as u8;
            }
            _ => *self = Text::new(text),
        }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Text::Short { length, bytes } => &bytes[..usize::from(*length).min(SHORT)],
            Text::Long(text) => text.as_bytes(),
        }
    }

    /// The text. It is a whole one, so nothing is ever replaced.
    pub(super) fn get(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes())
    }
}

impl Default for Text {
    fn default() -> Text {
        Text::new("")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_what_it_was_made_of_however_long_it_is() {
        for text in [
            "",
            "load",
            "größer",
            &"x".repeat(30),
            &"ä".repeat(16),
            &"y".repeat(500),
        ] {
            assert_eq!(Text::new(text).get(), text);
            for before in ["before", &"z".repeat(40)] {
                let mut changed = Text::new(before);
                changed.set(text);
                assert_eq!(changed.get(), text);
            }
        }
        assert_eq!(size_of::<Text>(), 32);
    }
}
