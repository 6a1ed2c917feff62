//! What readers find in the files: every slice with its nesting, every mark, every arrow.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{
    flows::Flows,
    lanes::{Lane, Lanes, Step},
    names::{self, Keys},
    picture::*,
    samples::{self, Parts, parts},
    save::save,
};

/// The folder with `engine_bundle.js` and the WebAssembly beside it.
const PROCESSOR: &str = "FENCEPOST_TRACE_PROCESSOR";

/// Perfetto's trace_processor, in node, in a process of its own.
struct Processor {
    child: Child,
    answers: BufReader<ChildStdout>,
    folder: Folder,
}

impl Processor {
    fn start() -> Self {
        let bundle = std::env::var_os(PROCESSOR)
            .unwrap_or_else(|| panic!("{PROCESSOR} names no folder; run cargo xtask test trace"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trace/processor.js");
        let mut child = Command::new("node")
            .arg(script)
            .arg(bundle)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            answers,
            folder: Folder::new(),
        }
    }

    /// What it reads from these files, one behind the other.
    fn read(&mut self, files: &[PathBuf]) -> Json {
        let request = json!({ "files": files });
        writeln!(self.child.stdin.as_mut().unwrap(), "{request}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Json = serde_json::from_str(&line).expect("an answer");
        assert_eq!(answer["error"], Json::Null);
        assert_eq!(answer["problems"], json!([]), "{files:?}");
        answer
    }

    /// What it reads from a file of `picture`.
    fn read_picture(&mut self, picture: &Picture, suffix: &str) -> Json {
        let file = self.folder.0.join(format!("one.{suffix}"));
        save(picture, &file).unwrap();
        self.read(&[file])
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder that goes with its test.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        static LAST: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("fencepost-trace-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The slices of an answer by the process and the number that they have as an attribute. Marks are
/// slices without length there.
struct Found<'a> {
    answer: &'a Json,
    by_number: HashMap<(String, u64), &'a Json>,
    process: String,
    /// What texts of the picture are in the answer.
    shown: fn(&str) -> String,
    keys: Keys,
    /// Whether what takes no time nests in what is at the same time, whatever that is, and arrows
    /// are on one of the slices that begin at their time.
    loose: bool,
}

fn text(of: &Json) -> &str {
    of.as_str().unwrap_or_default()
}

fn number(of: &Json) -> i64 {
    text(of)
        .parse()
        .unwrap_or_else(|_| panic!("no number: {of}"))
}

impl<'a> Found<'a> {
    fn of(answer: &'a Json, picture: &Picture) -> Self {
        let mut by_number = HashMap::new();
        for slice in answer["slices"].as_array().unwrap() {
            let Some(own) = arg(slice, "number") else {
                continue;
            };
            let key = (process(answer, slice), own.parse().unwrap());
            let twice = by_number.insert(key, slice);
            assert!(twice.is_none(), "twice: {slice}");
        }
        Self {
            answer,
            by_number,
            process: picture.process.pid.to_string(),
            shown: str::to_owned,
            keys: Keys::new(picture, |name| name.replace(['.', '[', ']'], "_")),
            loose: false,
        }
    }

    fn get(&self, number: usize) -> &'a Json {
        let key = (self.process.clone(), number as u64);
        self.by_number
            .get(&key)
            .unwrap_or_else(|| panic!("{number} is missing"))
    }

    /// Whether an arrow is on this slice. In Chrome's format it is at a place, and the reader takes
    /// the innermost of several slices that begin there.
    fn same(&self, read: &Json, slice: &Json) -> bool {
        let place = |slice: &Json| (slice["track"].clone(), slice["ts"].clone());
        read["id"] == slice["id"] || (self.loose && place(read) == place(slice))
    }

    fn compare_name(&self, read: &Json, name: &str) {
        match text(&read["name"]) {
            // Chrome's format without a name.
            "[No name]" => assert_eq!(name, ""),
            shown => assert_eq!(shown, (self.shown)(name)),
        }
    }

    fn track(&self, slice: &Json) -> &'a Json {
        track(self.answer, slice)
    }
}

fn track<'a>(answer: &'a Json, slice: &Json) -> &'a Json {
    let tracks = answer["tracks"].as_array().unwrap();
    tracks
        .iter()
        .find(|track| track["id"] == slice["track"])
        .unwrap()
}

fn process(answer: &Json, slice: &Json) -> String {
    text(&track(answer, slice)["pid"]).to_owned()
}

/// An argument of a slice. Readers put the names into groups of their own.
fn arg<'a>(slice: &'a Json, name: &str) -> Option<&'a str> {
    let debug = format!("debug.{}", name.replace(['.', '[', ']'], "_"));
    let keys = [debug, format!("args.{name}")];
    let found = slice["args"]
        .as_array()
        .unwrap()
        .iter()
        .find(|arg| keys.iter().any(|k| arg[0] == *k));
    found.map(|arg| text(&arg[1]))
}

/// The lane of each slice, and what it is nested in.
fn nesting(picture: &Picture) -> Vec<(Lane, Option<u32>)> {
    let mut open: HashMap<(u32, u32), Vec<u32>> = HashMap::new();
    let mut found = vec![None; picture.slices.len()];
    Lanes::of(picture, |lane, step| {
        let stack = open.entry((lane.track, lane.number)).or_default();
        match step {
            Step::Begin(slice, _) => {
                found[slice as usize] = Some((lane, stack.last().copied()));
                stack.push(slice);
            }
            Step::End(slice) => assert_eq!(stack.pop(), Some(slice)),
            Step::Mark(..) => {}
        }
    });
    found.into_iter().map(Option::unwrap).collect()
}

fn named(picture: &Picture, name: u32, state: State) -> String {
    let suffix = match state {
        State::Complete => "",
        State::Failed(_) => " (failed)",
        State::Unfinished => " (unfinished)",
    };
    format!("{}{suffix}", picture.texts[name as usize])
}

/// Compares what a reader has found with the picture. `origin` is where its times begin.
fn compare(picture: &Picture, found: &Found<'_>, origin: i64) {
    let nesting = nesting(picture);
    for (own, slice) in picture.slices.iter().enumerate() {
        let read = found.get(own);
        assert_eq!(number(&read["ts"]) + origin, slice.start, "{read}");
        assert_eq!(number(&read["dur"]), slice.end - slice.start, "{read}");
        found.compare_name(read, &named(picture, slice.name, slice.state));
        compare_attributes(picture, found, slice.attributes.clone(), read);
        let (lane, parent) = nesting[own];
        let parent = parent.map(|parent| &found.get(parent as usize)["id"]);
        if !found.loose || slice.end > slice.start {
            assert_eq!(parent.unwrap_or(&Json::Null), &read["parent"], "{read}");
        }
        let track = &picture.tracks[lane.track as usize];
        assert!(
            text(&found.track(read)["name"]).contains(&track.name),
            "{read}"
        );
        let category = match slice.state {
            State::Complete => json!("complete"),
            State::Failed(_) => json!("failed"),
            State::Unfinished => json!("unfinished"),
        };
        assert_eq!(read["category"], category);
        if slice.uncertainty != 0 {
            assert_eq!(
                arg(read, "uncertainty_ns"),
                Some(&*slice.uncertainty.to_string())
            );
        }
        if let Some((start, end)) = slice.ticks {
            assert_eq!(arg(read, "start_ticks"), Some(&*start.to_string()));
            assert_eq!(arg(read, "end_ticks"), Some(&*end.to_string()));
        }
        if let State::Failed(why) = slice.state {
            let why = (found.shown)(&picture.texts[why as usize]);
            assert_eq!(arg(read, "failure"), Some(&*why));
        }
    }
    for (own, mark) in picture.marks.iter().enumerate() {
        let read = found.get(picture.slices.len() + own);
        assert_eq!(number(&read["ts"]) + origin, mark.time, "{read}");
        found.compare_name(read, &named(picture, mark.name, mark.state));
        compare_attributes(picture, found, mark.attributes.clone(), read);
    }
    compare_arrows(picture, found, origin);
}

fn compare_arrows(picture: &Picture, found: &Found<'_>, origin: i64) {
    let on = |end: ArrowEnd| match end.on {
        On::Slice(slice) => found.get(slice as usize),
        On::Mark(mark) => found.get(picture.slices.len() + mark as usize),
    };
    let slices = found.answer["slices"].as_array().unwrap();
    let by_id = |id: &Json| slices.iter().find(|slice| slice["id"] == *id).unwrap();
    let mut read: Vec<(&Json, &Json)> = found.answer["flows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|flow| (by_id(&flow["from"]), by_id(&flow["to"])))
        .filter(|(from, _)| process(found.answer, from) == found.process)
        .collect();
    let late = Flows::of(picture).late;
    for (own, arrow) in picture.arrows.iter().enumerate() {
        let late = late.iter().find(|late| late.arrow == own as u32);
        let place = read.iter().position(|(from, to)| {
            found.same(from, on(arrow.from))
                && match late {
                    None => found.same(to, on(arrow.to)),
                    Some(late) => {
                        to["category"] == "wait" && number(&to["ts"]) + origin == late.time
                    }
                }
        });
        let place = place.unwrap_or_else(|| panic!("{arrow:?} is missing, {late:?}: {read:#?}"));
        read.swap_remove(place);
    }
    assert!(read.is_empty(), "arrows that nobody drew: {read:#?}");
}

/// The values of a slice's attributes, under the names that they have in the answer.
fn compare_attributes(picture: &Picture, found: &Found<'_>, range: Range<u32>, read: &Json) {
    let attributes = names::attributes(picture, range);
    for (number, attribute) in attributes.iter().enumerate() {
        let name = &picture.texts[attribute.name as usize];
        let key = match found.keys.before(attributes, number) {
            0 => name.clone(),
            before => names::again(name, before),
        };
        let value = arg(read, &(found.shown)(&key));
        let value = value.unwrap_or_else(|| panic!("{key} is missing: {read}"));
        match attribute.value {
            Value::Signed(number) => assert_eq!(value, number.to_string()),
            Value::Unsigned(number) => assert_eq!(value, number.to_string()),
            Value::Bool(known) => assert_eq!(value, known.to_string()),
            Value::Text(text) => assert_eq!(value, (found.shown)(&picture.texts[text as usize])),
            // The reader has a form of its own for it.
            Value::Float(_) => {}
        }
    }
}

/// What Perfetto's reader makes of a text in JSON: of all escapes it decodes that of the quote.
fn undecoded(text: &str) -> String {
    let written = serde_json::to_string(text).unwrap();
    let inner = &written[1..written.len() - 1];
    let marked = inner.replace("\\\\", "\0").replace("\\\"", "\"");
    marked.replace('\0', "\\u005c")
}

/// Readers of Chrome's format refuse the whole file for one event without these.
#[test]
fn in_chromes_format_each_event_has_what_readers_ask_of_it() {
    let mut picture = samples::pipeline(6);
    picture.marks.push(Mark {
        track: 0,
        name: 0,
        time: picture.slices[0].start,
        state: State::Complete,
        ticks: None,
        uncertainty: 0,
        attributes: 0..0,
    });
    let mut file = Vec::new();
    super::json::write(&picture, &mut file).unwrap();
    let file: Json = serde_json::from_slice(&file).unwrap();
    let events = file["traceEvents"].as_array().unwrap();
    for phase in ["M", "X", "i", "s", "f"] {
        assert!(events.iter().any(|event| event["ph"] == phase), "{phase}");
    }
    for event in events {
        for text in ["ph", "name", "cat"] {
            assert!(event[text].is_string(), "{text} of {event}");
        }
        for number in ["pid", "tid", "ts"] {
            assert!(event[number].is_number(), "{number} of {event}");
        }
        // One reader shows them behind the name.
        assert_ne!(event["args"], json!({}), "{event}");
        assert_eq!(event["dur"].is_number(), event["ph"] == "X", "{event}");
    }
}

/// Runs `test` on so many random pictures.
fn on_pictures(cases: u32, test: impl Fn(&Parts)) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&parts(), |parts| {
        test(&parts);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
#[cfg_attr(miri, ignore = "13 s for each picture")]
fn the_slices_of_a_lane_nest_and_come_in_order() {
    on_pictures(200, |parts| {
        let picture = parts.picture(1);
        let mut last: HashMap<(u32, u32), i64> = HashMap::new();
        let mut seen = (0, 0);
        let lanes = Lanes::of(&picture, |lane, step| {
            let time = match step {
                Step::Begin(slice, _) => picture.slices[slice as usize].start,
                Step::End(slice) => picture.slices[slice as usize].end,
                Step::Mark(mark, _) => picture.marks[mark as usize].time,
            };
            let last = last.entry((lane.track, lane.number)).or_insert(time);
            assert!(*last <= time);
            *last = time;
            match step {
                Step::Begin(..) => seen.0 += 1,
                Step::Mark(..) => seen.1 += 1,
                Step::End(_) => {}
            }
        });
        assert_eq!(seen, (picture.slices.len(), picture.marks.len()));
        // It asserts that ends meet the innermost slice.
        for (own, (lane, _)) in nesting(&picture).into_iter().enumerate() {
            assert_eq!(lanes.lanes[lanes.of_slice(own as u32)], lane);
        }
    });
}

#[test]
#[ignore = "needs node and the trace_processor of a wheel; run cargo xtask test trace"]
fn perfetto_finds_every_slice_and_arrow() {
    let processor = Mutex::new(Processor::start());
    on_pictures(60, |parts| {
        let picture = parts.picture(1);
        let mut processor = processor.lock().unwrap_or_else(|held| held.into_inner());
        let answer = processor.read_picture(&picture, "pftrace");
        compare(&picture, &Found::of(&answer, &picture), 0);
    });
}

#[test]
#[ignore = "needs node and the trace_processor of a wheel; run cargo xtask test trace"]
fn perfetto_finds_the_same_in_chromes_format() {
    let processor = Mutex::new(Processor::start());
    on_pictures(60, |parts| {
        let picture = parts.picture(1);
        let mut processor = processor.lock().unwrap_or_else(|held| held.into_inner());
        let answer = processor.read_picture(&picture, "json");
        let origin = super::json::origin(&picture);
        let mut found = Found::of(&answer, &picture);
        found.shown = undecoded;
        found.loose = true;
        found.keys = Keys::new(&picture, str::to_owned);
        compare(&picture, &found, origin);
    });
}

#[test]
#[ignore = "needs node and the trace_processor of a wheel; run cargo xtask test trace"]
fn files_of_two_processes_join_in_any_order() {
    let processor = Mutex::new(Processor::start());
    on_pictures(20, |parts| {
        let (first, mut second) = (parts.picture(1), parts.picture(2));
        // The same numbers stand for other names, and the second one began later.
        second.texts.rotate_left(1);
        for attribute in &mut second.attributes {
            attribute.name = match attribute.name {
                0 => second.texts.len() as u32 - 1,
                name => name,
            };
        }
        second.clocks.boottime += 5_000_000;
        second.clocks.monotonic += 5_000_040;
        second.clocks.realtime += 4_999_960;
        let mut processor = processor.lock().unwrap_or_else(|held| held.into_inner());
        let files = ["first.pftrace", "second.pftrace"].map(|name| processor.folder.0.join(name));
        save(&first, &files[0]).unwrap();
        save(&second, &files[1]).unwrap();
        for order in [[0, 1], [1, 0]] {
            let answer = processor.read(&order.map(|file| files[file].clone()));
            compare(&first, &Found::of(&answer, &first), 0);
            compare(&second, &Found::of(&answer, &second), 0);
        }
    });
}

/// The file that a child of the test below saves its trace as.
const CHILD: &str = "FENCEPOST_TRACE_CHILD";

/// So many chunks go from one stream to another there.
const CHUNKS: usize = 20;

#[test]
#[ignore = "needs node and the trace_processor of a wheel; run cargo xtask test trace"]
fn traces_of_two_processes_are_on_one_axis_in_any_order() {
    if let Some(path) = std::env::var_os(CHILD) {
        return trace_two_streams(Path::new(&path));
    }
    let mut processor = Processor::start();
    let files = ["first.pftrace", "second.pftrace"].map(|name| processor.folder.0.join(name));
    let child = |file: &PathBuf| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--include-ignored", "--exact", "--test-threads=1"])
            .arg("trace::tests::traces_of_two_processes_are_on_one_axis_in_any_order")
            .env(CHILD, file)
            .spawn()
            .unwrap();
        assert!(child.wait().unwrap().success());
        child.id()
    };
    let pids = [child(&files[0]), child(&files[1])].map(|pid| pid.to_string());
    for order in [[0, 1], [1, 0]] {
        let answer = processor.read(&order.map(|file| files[file].clone()));
        let slices = answer["slices"].as_array().unwrap();
        let named = |pid: &str, name: &str| -> Vec<&Json> {
            let own = slices.iter().filter(|slice| process(&answer, slice) == pid);
            own.filter(|slice| slice["name"] == name).collect()
        };
        for pid in &pids {
            for name in ["load", "count", "submit"] {
                assert_eq!(named(pid, name).len(), CHUNKS, "{name}: {answer:#}");
            }
        }
        let flows = answer["flows"].as_array().unwrap();
        assert!(flows.len() >= 2 * CHUNKS, "{flows:?}");
        // The first process was over when the second one began.
        let end = |slice: &&Json| number(&slice["ts"]) + number(&slice["dur"]);
        let last = named(&pids[0], "count").iter().map(end).max().unwrap();
        let first = named(&pids[1], "submit");
        let first = first
            .iter()
            .map(|slice| number(&slice["ts"]))
            .min()
            .unwrap();
        assert!(last < first, "{last} {first}");
    }
}

/// Traces two streams of the host, the one behind the other, and saves that.
fn trace_two_streams(path: &Path) {
    let device = crate::Device::open("host").unwrap();
    let (load, count) = (device.new_stream().unwrap(), device.new_stream().unwrap());
    let (trace, loaded) = (super::Trace::new(), crate::Event::new(&device));
    for chunk in 0..CHUNKS as i64 {
        let _submit = trace.host_span("submit").with("number", chunk);
        trace.scope("load", &load, || load.launch(|| ())).unwrap();
        loaded.record(&load).unwrap();
        count.wait_event(&loaded).unwrap();
        trace
            .scope("count", &count, || count.launch(|| ()))
            .unwrap();
    }
    count.synchronize().unwrap();
    trace.save(path).unwrap();
}

#[test]
fn a_trace_is_kept_where_it_cannot_be_saved() {
    let (folder, trace) = (Folder::new(), super::Trace::new());
    trace.host_span("step").end();
    trace
        .save(folder.0.join("no folder").join("trace.svg"))
        .unwrap_err();
    trace.save(folder.0.join("trace.png")).unwrap_err();
    assert_eq!(trace.summary().finished, 1);
    let path = folder.0.join("trace.svg");
    trace.save(&path).unwrap();
    assert!(fs::read_to_string(path).unwrap().contains(">step<"));
}

#[test]
fn a_suffix_that_names_no_format_is_answered_with_those_that_do() {
    let folder = Folder::new();
    for name in ["trace", "trace.txt", "trace.svgz"] {
        let error = save(&samples::process(1), &folder.0.join(name)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(".pftrace (Perfetto)"), "{error}");
    }
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 0);
    save(&samples::process(1), &folder.0.join("trace.PFTRACE")).unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "Miri's texts of errors have a number of their own")]
fn what_cannot_be_written_leaves_the_old_file_and_nothing_else() {
    let folder = Folder::new();
    let missing = folder.0.join("no such folder").join("trace.pftrace");
    let error = save(&samples::process(1), &missing).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.contains("no such folder"), "{text}");
    assert!(!text.contains("os error"), "{text}");
    let of_system = fs::File::create(&missing).unwrap_err();
    assert_eq!(number_of(&error), of_system.raw_os_error());

    // A folder cannot be replaced by a file.
    let taken = folder.0.join("taken.pftrace");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("kept"), "kept").unwrap();
    let error = save(&samples::process(1), &taken).unwrap_err();
    assert!(error.to_string().contains("taken.pftrace"), "{error}");
    assert!(number_of(&error).is_some(), "{error}");
    assert_eq!(fs::read_to_string(taken.join("kept")).unwrap(), "kept");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

/// The system's own number of an error of `save`.
fn number_of(error: &std::io::Error) -> Option<i32> {
    let source = std::error::Error::source(error)?;
    source.downcast_ref::<std::io::Error>()?.raw_os_error()
}

#[cfg(unix)]
#[test]
#[cfg_attr(miri, ignore = "Miri has no fchown")]
fn a_file_keeps_the_mode_and_owner_of_the_one_that_it_replaces() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let folder = Folder::new();
    let path = folder.0.join("trace.json");
    // Also what a mask would take away.
    for mode in [0o600, 0o666, 0o444] {
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        // Root alone may.
        let _ = chown(&path, Some(1), Some(1));
        let old = fs::metadata(&path).unwrap();
        save(&samples::process(1), &path).unwrap();
        assert_ne!(fs::read(&path).unwrap(), b"old");
        let new = fs::metadata(&path).unwrap();
        assert_eq!([new.uid(), new.gid()], [old.uid(), old.gid()]);
        assert_eq!(new.mode() & 0o7777, mode, "{:o} for {mode:o}", new.mode());
        fs::remove_file(&path).unwrap();
    }
}

#[cfg(unix)]
#[test]
#[cfg_attr(miri, ignore = "Miri has no fchown")]
fn a_link_stays_and_the_file_behind_it_is_replaced() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let path = |name: &str| folder.0.join(name);
    fs::create_dir(path("behind")).unwrap();
    symlink("behind/inner.json", path("link.json")).unwrap();
    symlink("target", path("behind/inner.json")).unwrap();
    // The file that is pointed to is made where there is none.
    for old in [None, Some("old")] {
        if let Some(old) = old {
            fs::write(path("behind/target"), old).unwrap();
        }
        super::save::can_save(&path("link.json")).unwrap();
        save(&samples::process(1), &path("link.json")).unwrap();
        let saved = fs::read_to_string(path("behind/target")).unwrap();
        assert!(saved.contains("traceEvents"), "{saved}");
        for link in ["link.json", "behind/inner.json"] {
            assert!(fs::symlink_metadata(path(link)).unwrap().is_symlink());
        }
    }
    assert_eq!(fs::read_dir(path("behind")).unwrap().count(), 2);

    symlink("round.svg", path("round.svg")).unwrap();
    let error = save(&samples::process(1), &path("round.svg")).unwrap_err();
    assert!(number_of(&error).is_some(), "{error}");
    super::save::can_save(&path("round.svg")).unwrap_err();
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_behind_a_link_is_written_to_and_not_replaced() {
    let folder = Folder::new();
    let path = folder.0.join("full.pftrace");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    super::save::can_save(&path).unwrap();
    let error = save(&samples::process(1), &path).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(number_of(&error), Some(28), "{error}");
    assert!(!fs::metadata("/dev/full").unwrap().is_file());
}

// Elsewhere the path would be too long, not the name.
#[cfg(unix)]
#[test]
fn a_file_may_have_the_longest_name_there_is() {
    let folder = Folder::new();
    let name = format!("{}.json", "n".repeat(250));
    save(&samples::process(1), &folder.0.join(name)).unwrap();
}

// On Windows a file that somebody has open may refuse to be replaced.
#[cfg(unix)]
#[test]
#[cfg_attr(miri, ignore = "Miri has no fchown")]
fn a_file_is_replaced_at_once() {
    let folder = Folder::new();
    let path = folder.0.join("trace.pftrace");
    fs::write(&path, "old").unwrap();
    let kept = fs::File::open(&path).unwrap();
    save(&samples::process(1), &path).unwrap();
    // Whoever has the old file open still reads the old one.
    assert_eq!(std::io::read_to_string(kept).unwrap(), "old");
    assert_ne!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn in_chromes_format_slices_that_touch_do_not_overlap_as_floats() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let times = (0..1i64 << 50, prop_oneof![0..3_000i64, 0..1i64 << 44]);
    let result = runner.run(&times, |(start, length)| {
        let microseconds = |time: i64| time as f64 / 1e3;
        let (start, end) = (microseconds(start), microseconds(start + length));
        let read = super::json::length(start, end);
        prop_assert_eq!(start + read, end);
        // What a reader of whole nanoseconds has.
        prop_assert_eq!((read * 1e3).round() as i64, length);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn drawn(picture: &Picture) -> String {
    let folder = Folder::new();
    let path = folder.0.join("trace.svg");
    save(picture, &path).unwrap();
    fs::read_to_string(path).unwrap()
}

#[test]
#[cfg_attr(miri, ignore = "16 s")]
fn a_picture_has_every_row_and_name_and_no_colour_alone_tells_a_failure() {
    let svg = drawn(&samples::pipeline(6));
    keep("pipeline", &samples::pipeline(6));
    for text in [
        "host stream 1 &quot;load&quot;".replace("&quot;", "\""),
        ">count<".to_owned(),
        "count (failed), 120 µs: no more paper".to_owned(),
        "prefers-color-scheme:dark".to_owned(),
        "url(#hatched)".to_owned(),
        "time in \u{b5}s".to_owned(),
        ", 2 more are missing</text>".to_owned(),
    ] {
        assert!(svg.contains(&text), "{text}: {svg}");
    }
    assert_eq!(svg.matches("marker-end").count(), 12 + 1);
}

#[test]
#[cfg_attr(miri, ignore = "20,000 rounds")]
fn a_picture_of_a_long_trace_is_as_large_as_that_of_a_short_one() {
    let svg = drawn(&samples::pipeline(20_000));
    assert!(svg.len() < 200_000, "{} bytes", svg.len());
    assert!(svg.contains("20000 × count (1 failed)"), "{svg}");
    assert!(svg.contains("40000 arrows are not shown"), "{svg}");
    keep("long", &samples::pipeline(20_000));
}

#[test]
#[cfg_attr(miri, ignore = "more than 700 s for texts of 200 KB")]
fn a_picture_is_small_however_long_its_texts_are() {
    let mut picture = samples::pipeline(200);
    for text in &mut picture.texts {
        text.push_str(&"&\u{1f980}".repeat(50_000));
    }
    for track in &mut picture.tracks {
        track.name.push_str(&"<".repeat(100_000));
    }
    picture.process.name = ">".repeat(100_000);
    let svg = drawn(&picture);
    assert!(svg.len() < 2_000_000, "{} bytes", svg.len());
    // What stands behind a long name is there.
    assert!(svg.contains("… (failed), "), "{svg}");
}

#[test]
#[cfg_attr(miri, ignore = "19 s for each picture")]
fn pictures_are_well_formed_whatever_is_in_them() {
    on_pictures(200, |parts| {
        let picture = parts.picture(1);
        keep(&format!("random-{}", picture.slices.len()), &picture);
        let svg = drawn(&picture);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for wrong in ["NaN", "inf", "\u{1}", "<name>"] {
            assert!(!svg.contains(wrong), "{wrong}: {svg}");
        }
        // Every tag is closed, in the order of opening.
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let tag = tag.split_once('>').expect("a tag ends").0;
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.push(tag.split(' ').next().unwrap_or_default()),
            }
        }
        assert!(open.is_empty(), "{open:?}");
    });
}

/// Keeps files to look at, in the folder that a variable names.
fn keep(name: &str, picture: &Picture) {
    if let Some(folder) = std::env::var_os("FENCEPOST_KEEP_PICTURES") {
        for suffix in ["svg", "json", "pftrace"] {
            save(
                picture,
                &Path::new(&folder).join(format!("{name}.{suffix}")),
            )
            .unwrap();
        }
    }
}
