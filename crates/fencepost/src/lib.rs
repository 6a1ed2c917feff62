//! Device events.
#![deny(missing_docs, unsafe_code)]
