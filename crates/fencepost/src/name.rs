//! Names that users give to streams and events, and labels of devices: for texts alone.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// A name, or none. Nothing is ordered by it, so this is a lock of `std` in models too.
#[derive(Default)]
pub(crate) struct Name(Mutex<Option<Arc<str>>>);

impl Name {
    fn get(&self) -> Option<Arc<str>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// For callers outside of this crate.
    pub(crate) fn to_owned(&self) -> Option<String> {
        self.get().map(|name| name.to_string())
    }

    /// Sets it. The empty name is none.
    pub(crate) fn set(&self, name: &str) {
        let name = (!name.is_empty()).then(|| Arc::from(name));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }
}

/// In quotes, behind a space; nothing without a name.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(name) => write!(f, " {name:?}"),
            None => Ok(()),
        }
    }
}
