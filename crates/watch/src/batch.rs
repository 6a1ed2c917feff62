//! What threads have called since it was last sent, for `fencepost watch --trace`, which writes the
//! file.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
};

use serde::Serialize;

use crate::{
    kernel_name, report, seen,
    threads::{self, Thread},
    traced::{self, Traced},
};

/// What is sent: `crates/cli/src/watch/trace.rs` reads it.
#[derive(Debug, Serialize)]
pub(crate) struct Batch {
    process: String,
    /// The names of threads that come first here.
    threads: Vec<(i32, String)>,
    texts: Vec<String>,
    /// Each call: thread, name, start, end, stream, kernel, marker, stream and marker that are
    /// awaited, code. Names and kernels are places in `texts`, and 0 is nothing.
    calls: Vec<[u64; 10]>,
    /// Those that have not returned, without an end.
    inside: Vec<[u64; 10]>,
    at: u64,
    dropped: u64,
}

/// What was sent before.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    threads: HashSet<i32>,
    dropped: u64,
    /// Whether the last batch had calls that had not returned.
    inside: bool,
}

impl Sender {
    /// What there is to be sent, if anything.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        if !traced::is_on() {
            return None;
        }
        let mut texts = Texts::default();
        let (mut calls, mut inside, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for thread in threads::threads() {
            let list = std::mem::take(&mut *thread.traced.lock());
            calls.extend(list.iter().map(|call| row(call, &mut texts)));
            let last = list.last().map_or(0, |call| call.start);
            // A call is kept before its thread has left it.
            inside.extend(row_of_thread(thread, &mut texts).filter(|row| row[2] != last));
        }
        for [tid, ..] in calls.iter().chain(&inside) {
            let tid = *tid as i32;
            if self.threads.insert(tid) {
                threads.push((tid, report::thread_name(tid)));
            }
        }
        if calls.is_empty() && inside.is_empty() && !self.inside {
            return None;
        }
        self.inside = !inside.is_empty();
        let dropped = traced::dropped();
        Some(Batch {
            process: report::process_name(),
            threads,
            texts: texts.list,
            calls,
            inside,
            at: traced::now(),
            dropped: dropped - std::mem::replace(&mut self.dropped, dropped),
        })
    }
}

/// The texts of a batch. The first is empty.
struct Texts {
    list: Vec<String>,
    names: HashMap<usize, u64>,
    kernels: HashMap<u32, u64>,
}

impl Default for Texts {
    fn default() -> Texts {
        Texts {
            list: vec![String::new()],
            names: HashMap::new(),
            kernels: HashMap::new(),
        }
    }
}

impl Texts {
    fn name(&mut self, address: usize) -> u64 {
        *self.names.entry(address).or_insert_with(|| {
            self.list
                .push(report::function_name(std::ptr::with_exposed_provenance(
                    address,
                )));
            self.list.len() as u64 - 1
        })
    }

    fn kernel(&mut self, number: u32) -> u64 {
        if number == 0 {
            return 0;
        }
        *self.kernels.entry(number).or_insert_with(|| {
            let symbol = traced::symbol(number).unwrap_or_default();
            self.list.push(kernel_name::readable(&symbol));
            self.list.len() as u64 - 1
        })
    }
}

fn row(call: &Traced, texts: &mut Texts) -> [u64; 10] {
    [
        call.tid as u64,
        texts.name(call.name),
        call.start,
        call.end.max(call.start),
        call.stream,
        texts.kernel(call.kernel),
        call.recorded.1,
        call.awaited.0,
        call.awaited.1,
        call.code as u64,
    ]
}

/// The call that a thread is in.
fn row_of_thread(thread: &Thread, texts: &mut Texts) -> Option<[u64; 10]> {
    let inside = thread.inside.load(Ordering::Acquire);
    let tid = thread.tid.load(Ordering::Relaxed);
    if inside == 0 || tid == 0 {
        return None;
    }
    let name = texts.name(thread.name.load(Ordering::Relaxed).expose_provenance());
    let start = thread.begun.load(Ordering::Relaxed);
    let handle = thread.stream.load(Ordering::Relaxed);
    let stream = match handle {
        usize::MAX => 0,
        _ => seen::number_of(thread.context.load(Ordering::Relaxed), handle, tid),
    };
    Some([tid as u64, name, start, 0, stream, 0, 0, 0, 0, 0])
}
