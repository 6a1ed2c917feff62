//! What ran when, on every device and on the host's threads, on one axis.

// Filled by the trace, and read by the writers of files.
#[allow(dead_code)]
mod picture;
