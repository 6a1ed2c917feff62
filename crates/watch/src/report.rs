//! The report, as text of 80 columns and as JSON.

use std::{
    ffi::{CStr, c_char},
    fmt::Write as _,
    sync::atomic::Ordering,
    time::Duration,
};

use fencepost::bindings::duration_in_words;
use serde::Serialize;

use crate::{
    account::{
        Account, CIRCLE_ENDS, Front, Target, complete_markers, full, others, pieces, short,
        words_of,
    },
    asking::{Facts, State},
    calls::{self, Kind},
    cupti, kernel_name, place,
    seen::{self, Awaits, Life, Point},
    threads::{self, Thread},
    vulkan::{self, report::QueueReport},
};

/// The width of the text.
const WIDTH: usize = 80;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    why: String,
    program: String,
    streams: Vec<StreamReport>,
    queues: Vec<QueueReport>,
    threads: Vec<ThreadReport>,
    circle: bool,
    /// What ends the circles.
    #[serde(skip)]
    ends: Vec<&'static str>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StreamReport {
    stream: String,
    /// As the program's framework tells it.
    handle: String,
    pending: u64,
    markers: u64,
    markers_complete: u64,
    made_at: Option<String>,
    /// What it waits for, or has in front of it.
    waits_for: Option<String>,
    waits_since_ms: Option<u64>,
    /// The end of the chain of waits.
    stuck: Option<String>,
    last: String,
    last_ms_ago: u64,
    remarks: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ThreadReport {
    tid: i32,
    name: String,
    call: String,
    stream: Option<String>,
    /// What it waits for, in a call of Vulkan.
    awaits: Option<String>,
    for_ms: u64,
    remark: Option<String>,
}

pub(crate) fn words(ms: u64) -> String {
    // Times come in steps of the system's ticks.
    duration_in_words(Duration::from_millis(ms / 10 * 10))
}

impl Report {
    /// Calls are told of that have lasted for `long`.
    pub(crate) fn new(
        why: String,
        account: &Account,
        vulkan: &vulkan::account::Account,
        answered: bool,
        long: Duration,
    ) -> Report {
        let busy = account.busy().into_iter();
        let mut ends = Vec::new();
        let streams: Vec<_> = busy
            .map(|facts| {
                let (report, closes) = stream_report(account, facts);
                ends.extend(closes.then_some(CIRCLE_ENDS));
                report
            })
            .collect();
        let queues = vulkan.busy().into_iter();
        let queues: Vec<_> = queues
            .map(|queue| {
                let (report, closes) = QueueReport::new(vulkan, queue);
                ends.extend(closes.then_some(vulkan::account::CIRCLE_ENDS));
                report
            })
            .collect();
        ends.dedup();
        let threads = thread_reports(account, vulkan, long);
        let mut notes = notes(account, answered);
        notes.extend(through_the_host(account, &threads));
        notes.extend(vulkan.lost());
        Report {
            why,
            program: program(),
            streams,
            queues,
            threads,
            circle: !ends.is_empty(),
            ends,
            notes,
        }
    }

    /// Whether it says anything of streams or threads.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.queues.is_empty() && self.threads.is_empty()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let head = format!(
            "{}: process {}, {}",
            self.why,
            std::process::id(),
            self.program
        );
        wrap(&mut text, "", &head);
        for ends in &self.ends {
            let circle = format!("The waits form a circle, which {ends}.");
            wrap(&mut text, "", &circle);
        }
        if self.streams.is_empty() && self.queues.is_empty() {
            wrap(&mut text, "", "No stream or queue has work pending.");
        }
        for stream in &self.streams {
            stream.write(&mut text);
        }
        for queue in &self.queues {
            queue.write(&mut text);
        }
        for thread in &self.threads {
            thread.write(&mut text);
        }
        for note in &self.notes {
            wrap(&mut text, "", &format!("Note: {note}"));
        }
        text
    }
}

impl StreamReport {
    fn write(&self, text: &mut String) {
        let made = self.made_at.as_ref().map(|at| format!(", made at {at}"));
        let made = made.unwrap_or_default();
        let head = format!(
            "{}{made}: {} pending, {} of {} markers complete",
            self.stream,
            pieces(self.pending),
            self.markers_complete,
            self.markers
        );
        wrap(text, "", &head);
        if let Some(waits_for) = &self.waits_for {
            let since = self.waits_since_ms.map(|ms| format!(", for {}", words(ms)));
            wrap(
                text,
                "    ",
                &format!("{waits_for}{}", since.unwrap_or_default()),
            );
        }
        for remark in &self.remarks {
            wrap(text, "    ", remark);
        }
        if let Some(stuck) = &self.stuck {
            wrap(text, "    ", stuck);
        }
        let last = format!(
            "last submitted: {}, {} ago",
            self.last,
            words(self.last_ms_ago)
        );
        wrap(text, "    ", &last);
    }
}

impl ThreadReport {
    fn write(&self, text: &mut String) {
        let awaited = match (&self.stream, &self.awaits) {
            (Some(stream), _) => format!(" for {stream}"),
            (None, Some(awaited)) => format!(" for {awaited},"),
            (None, None) => String::new(),
        };
        let head = format!(
            "thread {} ({}) has been in {}{awaited} for {}",
            self.tid,
            self.name,
            self.call,
            words(self.for_ms)
        );
        wrap(text, "", &head);
        if let Some(remark) = &self.remark {
            wrap(text, "    ", remark);
        }
    }
}

fn stream_report(account: &Account, facts: &Facts) -> (StreamReport, bool) {
    let inner = &facts.inner;
    let (chain, streams, circle) = account.chain(facts);
    let mut remarks = Vec::new();
    let (waits_for, since) = match account.front(facts, inner.submitted) {
        Front::Waits(point, target) => {
            remarks.extend(target.remark());
            let words = words_of_wait(account, facts, point, &target);
            (Some(words), point.map(|point| point.at))
        }
        Front::At(point) => (
            Some(
                words_of(facts, point, inner.submitted)
                    + &account.behind(facts, point, inner.submitted),
            ),
            Some(point.at),
        ),
        Front::Unsure(target) => (Some(target.unsure_words()), None),
        Front::Works => (None, None),
    };
    if inner.lacks_waits() {
        remarks.push("older waits of it were not kept".into());
    }
    match &facts.state {
        _ if inner.life == Life::Destroyed => {
            remarks.push(format!("it {}", facts.destroyed_words()));
        }
        State::NotAsked(why) => {
            remarks.push(format!("whether it has come further is unknown: {why}"))
        }
        State::Failed(code) => remarks.push(format!("the driver says error {code} of it")),
        State::Idle | State::Busy => {}
    }
    let report = StreamReport {
        stream: full(facts),
        handle: format!("{:#x}", inner.handle),
        pending: inner.submitted.saturating_sub(inner.complete),
        markers: inner.records,
        markers_complete: complete_markers(facts),
        made_at: inner.made.0.map(|at| at.to_string()),
        waits_since_ms: since.map(|at| seen::now().saturating_sub(at)),
        // A shorter chain says no more than the lines of its streams.
        stuck: chain.filter(|_| streams > 2 || circle),
        waits_for,
        last: last(facts),
        last_ms_ago: seen::now().saturating_sub(inner.last.at),
        remarks,
    };
    (report, circle)
}

/// What the stream waits for at `point`, or by the order of the default stream.
fn words_of_wait(
    account: &Account,
    facts: &Facts,
    point: Option<&Point>,
    target: &Target<'_>,
) -> String {
    let inner = &facts.inner;
    // What is behind a wait for a record has not begun. A value may be there already.
    let (until, place) = match point.map(|point| point.awaits) {
        Some(Awaits::Value { .. }) => (inner.submitted, "around"),
        _ => (point.map_or(0, |point| point.position), "in front of"),
    };
    let elsewhere = point.map_or(0, |point| others(facts, point.position, until));
    let mut words = format!("waits for {}", target.words());
    if elsewhere > 0 {
        let _ = write!(words, ", or is at the {} {place} that", pieces(elsewhere));
    }
    let line = point.map(|point| point.line.after("told to"));
    words.push_str(&line.unwrap_or_default());
    if let Some(point) = point {
        words.push_str(&account.behind(facts, point, inner.submitted));
    }
    words
}

fn last(facts: &Facts) -> String {
    let last = &facts.inner.last;
    let what = match last.kind {
        Kind::Launch => format!("kernel {}", kernel_name::readable(&last.symbol)),
        Kind::Record => "a record of an event".into(),
        Kind::Wait => "a wait for an event".into(),
        Kind::Graph => "a graph, whose inside cannot be seen".into(),
        Kind::Host => "a function of the program".into(),
        Kind::Copy => "a copy".into(),
        Kind::Fill => "a fill of memory".into(),
        Kind::Memory => "an allocation or a release of memory".into(),
        Kind::Prepare => "a prefetch or a mapping of memory, or an upload of a graph".into(),
        Kind::WaitValue | Kind::WriteValue | Kind::MemoryOperations => {
            "a wait for, or a write of, a value in memory".into()
        }
        Kind::WaitSemaphore => "a wait for an external semaphore".into(),
        Kind::SignalSemaphore => "a signal of an external semaphore".into(),
        _ => "nothing that was seen".into(),
    };
    let line = last.line.after("submitted");
    // The kernel of an earlier launch helps where the last work was none.
    let kernel = match last.kind {
        Kind::Launch => String::new(),
        _ if facts.inner.launches == 0 => String::new(),
        _ => format!("; last kernel: {}", kernel_name::readable(&last.symbol)),
    };
    format!("{what}{line}{kernel}")
}

/// The calls that threads have been in for long.
fn thread_reports(
    account: &Account,
    vulkan: &vulkan::account::Account,
    long: Duration,
) -> Vec<ThreadReport> {
    let mut reports = Vec::new();
    for thread in threads::threads() {
        let id = thread.inside.load(Ordering::Acquire);
        let tid = thread.tid.load(Ordering::Relaxed);
        if id == 0 || tid == 0 {
            continue;
        }
        let call = call_name(thread);
        let since = seen::since(thread.entered.load(Ordering::Relaxed));
        if since < long {
            continue;
        }
        let handle = thread.stream.load(Ordering::Relaxed);
        let context = thread.context.load(Ordering::Relaxed);
        let stream = account.streams().iter().find(|facts| {
            let inner = &facts.inner;
            inner.life == Life::Alive
                && inner.handle == handle
                && (handle != 0 || inner.context == context)
                && (inner.thread == 0 || inner.thread == tid)
        });
        let awaited = vulkan.awaited_by(tid).filter(|_| id == calls::VULKAN_WAIT);
        let (awaits, remark) = match awaited.map(|awaited| vulkan.words_of_thread(awaited)) {
            Some((awaits, remark)) => (Some(awaits), remark),
            None => {
                let submits = calls::of(id).is_some_and(|call| call.kind.submits());
                (None, remark(&call, submits).map(str::to_owned))
            }
        };
        reports.push(ThreadReport {
            tid,
            name: thread_name(tid),
            remark,
            call,
            stream: stream.map(short),
            awaits,
            for_ms: since.as_millis() as u64,
        });
    }
    reports
}

/// The name of the function that the thread is in.
fn call_name(thread: &Thread) -> String {
    function_name(thread.name.load(Ordering::Relaxed))
}

/// The name of a function, as CUPTI gave it to a callback.
pub(crate) fn function_name(name: *const c_char) -> String {
    if name.is_null() {
        return "the driver".into();
    }
    // SAFETY: CUPTI gives the name as a C string that is valid for ever
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    let name = name.trim_end_matches("_ptsz").trim_end_matches("_ptds");
    name.to_owned()
}

/// Why such a call may not return.
fn remark(call: &str, submits: bool) -> Option<&'static str> {
    if submits {
        return Some(
            "it returns late where the stream's queue is full, and where it first loads a module, \
             which waits for other streams",
        );
    }
    if call.contains("Load") && !call.contains("Unload") || call.contains("GetFunction") {
        return Some("loading a module waits for streams that have work");
    }
    if call.contains("Free") {
        return Some("releasing memory waits for all work that was submitted before");
    }
    call.contains("Unload")
        .then_some("unloading a module waits for streams that have work")
}

pub(crate) fn thread_name(tid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
    name.map_or_else(|_| "ended".into(), |name| name.trim().to_owned())
}

/// Where a function of the program that the driver calls may need a thread that waits for its
/// stream.
fn through_the_host(account: &Account, threads: &[ThreadReport]) -> Option<String> {
    let at_host = account.streams().iter().find(|facts| {
        let at = account.front(facts, facts.inner.submitted);
        facts.has_work() && matches!(at, Front::At(point) if matches!(point.awaits, Awaits::Host))
    })?;
    let waits = threads
        .iter()
        .find(|thread| thread.call.contains("Synchronize"))?;
    Some(format!(
        "{} may be in a function of the program while thread {} waits in {}: if that function \
         needs that thread, or waits for its own stream, this is a circle through the host",
        short(at_host),
        waits.tid,
        waits.call
    ))
}

fn notes(account: &Account, answered: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !answered {
        notes.push(
            "the driver does not answer while a thread is inside it, so some of what is said to be \
             pending may be complete"
                .into(),
        );
    }
    match crate::account::never_recorded() {
        0 => {}
        1 => notes.push(
            "1 wait was for an event that had never been recorded: such a wait does nothing".into(),
        ),
        many => notes.push(format!(
            "{many} waits were for events that had never been recorded: such a wait does nothing"
        )),
    }
    notes.extend(never_recorded_lines(account));
    if place::are_untold() {
        notes.push("this Python does not tell its lines: CPython 3.11, 3.12 and 3.13 do".into());
    }
    let (ends, ms, now) = cupti::unseen();
    if ends != 0 {
        let now = if now { ", and does so now" } else { "" };
        notes.push(format!(
            "the program has ended all use of CUPTI (cuptiFinalize), so calls went by unseen for \
             {}{now}: what was submitted before is not known",
            words(ms)
        ));
    }
    let beyond = seen::BEYOND.load(Ordering::Relaxed);
    if beyond != 0 {
        notes.push("there were more streams than are followed".into());
    }
    notes
}

/// Where such waits were made, of those that streams with work have kept.
fn never_recorded_lines(account: &Account) -> Vec<String> {
    let mut lines = Vec::new();
    for facts in account.streams() {
        for point in facts.inner.points.iter() {
            if let (Awaits::NeverRecorded, Some(line)) = (point.awaits, point.line.0) {
                lines.push(format!("{} was told to wait so at {line}", short(facts)));
            }
        }
    }
    lines.dedup();
    lines.truncate(4);
    lines
}

/// The program's own name.
pub(crate) fn process_name() -> String {
    let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    name.trim().to_owned()
}

/// The program's command line.
fn program() -> String {
    // Not of the process: that is empty once its first thread has ended.
    let bytes = std::fs::read("/proc/thread-self/cmdline").unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Adds a paragraph, each line of it at most [`WIDTH`] columns where words permit.
pub(crate) fn wrap(text: &mut String, indent: &str, paragraph: &str) {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let length = word.chars().count();
        if column == 0 {
            text.push_str(indent);
            column = indent.len();
        } else if column + 1 + length > WIDTH {
            let _ = write!(text, "\n{indent}  ");
            column = indent.len() + 2;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_80_columns() {
        let mut text = String::new();
        wrap(&mut text, "    ", &"stream waits ".repeat(30));
        assert!(text.lines().count() > 3);
        for line in text.lines() {
            assert!(line.len() <= WIDTH && line.starts_with("    "), "{line}");
        }
        assert_eq!(text.matches("stream").count(), 30);
    }
}
