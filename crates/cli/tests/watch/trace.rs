//! What `fencepost watch --trace` writes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use super::{
    programs::{PROGRAMS, Program},
    running::{CODE, start, wait_for},
};

/// The folder of Perfetto's trace_processor.
const PROCESSOR: &str = "FENCEPOST_TRACE_PROCESSOR";

fn program(name: &str) -> &'static Program {
    let mut programs = PROGRAMS.iter();
    programs.find(|program| program.name == name).unwrap()
}

/// Runs a program that is stuck until its report is there, and ends it by `end`. Returns its exit
/// code and the file of its trace.
fn traced(folder: &Path, name: &str, suffix: &str, end: impl FnOnce(u32)) -> (i32, PathBuf) {
    let (report, file) = (
        folder.join("report"),
        folder.join(format!("calls.{suffix}")),
    );
    let paths = [&report, &file].map(|path| path.to_str().unwrap());
    let options = ["--after", "0.5", "--output", paths[0], "--trace", paths[1]];
    let program = program(name);
    let mut child = start(folder, &options, program);
    let told = wait_for(&report, program.told);
    end(child.id());
    std::fs::write(folder.join("stop"), "").unwrap();
    let code = child.wait().unwrap().code().unwrap();
    told.unwrap();
    let said = std::fs::read_to_string(&report).unwrap();
    assert!(said.contains("the trace is in"), "{said}");
    (code, file)
}

/// The events of a file in Chrome's format.
fn events(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    file["traceEvents"].as_array().unwrap().clone()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    let events = events.iter();
    events.filter(|event| event["name"] == name).collect()
}

#[test]
fn a_trace_has_every_call_and_an_arrow_for_each_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (code, file) = traced(folder.path(), "chain", "json", |_| ());
    assert_eq!(code, CODE);
    let events = events(&file);
    let count = |name| named(&events, name).len();
    assert_eq!((count("cuEventRecord"), count("cuStreamWaitEvent")), (2, 2));
    assert_eq!(count("cuStreamCreate"), 3);
    for launch in named(&events, "cuLaunchKernel") {
        assert_eq!(launch["args"]["kernel"], "fencepost_spin");
    }
    let streams = |name, of: &str| -> Vec<Value> {
        let calls = named(&events, name).into_iter();
        calls.map(|call| call["args"][of].clone()).collect()
    };
    assert_eq!(streams("cuLaunchKernel", "stream"), [2, 3]);
    assert_eq!(streams("cuEventRecord", "stream"), [1, 2]);
    assert_eq!(streams("cuEventRecord", "marker"), [1, 1]);
    let awaited = ["marker 1 of stream 1", "marker 1 of stream 2"];
    assert_eq!(streams("cuStreamWaitEvent", "waits_for"), awaited);
    let ends = |ph: &str| events.iter().filter(|event| event["ph"] == ph).count();
    assert_eq!((ends("s"), ends("f")), (2, 2));
    let stuck = named(&events, "cuStreamSynchronize (unfinished)");
    assert_eq!(stuck.len(), 1);
    assert_eq!(stuck[0]["args"]["stream"], 3);
}

#[test]
fn a_program_that_a_signal_ends_has_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (code, file) = traced(folder.path(), "forgotten_gate", "json", |fencepost| {
        // SAFETY: the process is our child, which was not waited for
        unsafe { libc::kill(fencepost as i32, libc::SIGTERM) };
    });
    // The file that ends the program is there soon, too.
    assert!([CODE, 128 + 15].contains(&code), "{code}");
    let events = events(&file);
    assert_eq!(named(&events, "cuStreamWaitValue32_v2").len(), 1);
    assert_eq!(named(&events, "cuStreamSynchronize (unfinished)").len(), 1);
}

#[test]
#[ignore = "needs node and the trace_processor of a wheel; run cargo xtask test trace"]
fn perfetto_finds_the_calls_and_the_arrows() {
    let folder = tempfile::tempdir().unwrap();
    let (_, file) = traced(folder.path(), "chain", "pftrace", |_| ());
    let bundle = std::env::var_os(PROCESSOR).expect("the folder of trace_processor");
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut processor = Command::new("node")
        .arg(own.join("../fencepost/tests/trace/processor.js"))
        .arg(bundle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut requests = processor.stdin.take().unwrap();
    writeln!(requests, "{}", json!({ "files": [file] })).unwrap();
    let mut line = String::new();
    let mut answers = BufReader::new(processor.stdout.take().unwrap());
    answers.read_line(&mut line).unwrap();
    drop(requests);
    processor.wait().unwrap();
    let answer: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(answer["error"], Value::Null);
    assert_eq!(answer["problems"], json!([]));
    let slices = answer["slices"].as_array().unwrap();
    for (name, count) in [
        ("cuEventRecord", 2),
        ("cuStreamWaitEvent", 2),
        ("cuLaunchKernel", 2),
        ("cuStreamSynchronize (unfinished)", 1),
    ] {
        assert_eq!(named(slices, name).len(), count, "{name}");
    }
    assert_eq!(answer["flows"].as_array().unwrap().len(), 2);
}
