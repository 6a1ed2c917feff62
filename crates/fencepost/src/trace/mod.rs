//! What ran when, on every device and on the host's threads, on one axis.

#[allow(dead_code)]
mod flows;
#[allow(dead_code)]
mod identifiers;
#[allow(dead_code)]
mod json;
#[allow(dead_code)]
mod lanes;
#[allow(dead_code)]
mod messages;
#[allow(dead_code)]
mod names;
#[allow(dead_code)]
mod perfetto;
// Filled by the trace, and read by the writers of files.
#[allow(dead_code)]
mod picture;
#[cfg(all(test, not(loom)))]
mod samples;
#[allow(dead_code)]
mod save;
#[allow(dead_code)]
mod svg;
#[cfg(all(test, not(loom)))]
mod tests;
