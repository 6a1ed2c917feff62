//! The built binary, end to end: what it prints where, and its exit codes.

use std::{
    fs,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The binary, started by the command line in `FENCEPOST_TEST_RUNNER` if it is set: a binary for
/// another processor needs an emulator.
fn fencepost(args: &[&str]) -> Command {
    let runner = std::env::var("FENCEPOST_TEST_RUNNER").unwrap_or_default();
    let mut words = runner
        .split_whitespace()
        .chain([env!("CARGO_BIN_EXE_fencepost")]);
    let mut command = Command::new(words.next().expect("the binary is the last word"));
    command
        .args(words)
        .args(args)
        .env_remove("FENCEPOST_DEVICE")
        .stdin(Stdio::null());
    command
}

fn output(mut command: Command) -> Output {
    command.output().expect("the binary starts")
}

fn stdout(out: &Output) -> String {
    String::from_utf8(out.stdout.clone()).expect("stdout is UTF-8")
}

fn stderr(out: &Output) -> String {
    String::from_utf8(out.stderr.clone()).expect("stderr is UTF-8")
}

/// It worked: exit code 0, and nothing on stderr, which is no terminal here.
#[track_caller]
fn good(command: Command) -> String {
    let out = output(command);
    assert_eq!(stderr(&out), "");
    assert_eq!(out.status.code(), Some(0), "{}", stdout(&out));
    stdout(&out)
}

#[track_caller]
fn json(args: &[&str]) -> Value {
    let text = good(fencepost(args));
    assert_eq!(text.lines().count(), 1, "one object on one line: {text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Refused: exit code 2, one line on stderr that holds all of `hints`, nothing on stdout.
#[track_caller]
fn refused(command: Command, hints: &[&str]) {
    let out = output(command);
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert_eq!(stdout(&out), "");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("fencepost: "), "{said}");
    for hint in hints {
        assert!(said.contains(hint), "no \"{hint}\" in: {said}");
    }
}

/// No line has more than 80 columns.
#[track_caller]
fn fits_a_terminal(text: &str) {
    let wide = text.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "{text}");
}

struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(TempDir::new().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a temporary file");
        path
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

#[test]
fn bad_arguments_are_refused_in_one_line() {
    for (args, hints) in [
        (
            &["--streams", "0"][..],
            &["--streams", "from 1 to 4096"][..],
        ),
        (&["--streams", "4097"], &["from 1 to 4096"]),
        (&["--streams", "99999999999999999999"], &["from 1 to 4096"]),
        (&["--streams", "-1"], &["from 1 to 4096"]),
        (&["--streams", "many"], &["from 1 to 4096"]),
        (&["--streams"], &["--streams"]),
        (&["--chunk", "-1"], &["from 1 to 1G"]),
        (&["--chunk", "0"], &["--chunk", "from 1 to 1G"]),
        (&["--chunk", "2G"], &["from 1 to 1G"]),
        (&["--chunk", "1073741825"], &["from 1 to 1G"]),
        (&["--chunk", "1X"], &["from 1 to 1G", "64K"]),
        (&["--chunk", ""], &["--chunk"]),
        (&["--sreams", "3"], &["--sreams", "--streams"]),
        (&["fly"], &["fly", "--help"]),
        (&["run", "fly"], &["fly", "--help"]),
        (&["check", "--input", "x"], &["--input"]),
        (&["bench", "--streams", "3"], &["--streams"]),
        (
            &["check", "--filter", "no such case"],
            &["no such case", "--filter"],
        ),
    ] {
        eprintln!("{args:?}");
        refused(fencepost(args), hints);
    }
}

#[test]
fn a_bad_device_is_refused_with_what_would_work() {
    for name in [
        "toaster",
        "",
        "host:1",
        "cuda:zero",
        "cuda:-1",
        "a\nb",
        "hôte",
    ] {
        for command in ["run", "check", "bench"] {
            eprintln!("{command} on {name:?}");
            refused(fencepost(&[command, "--device", name]), &["host"]);
            if !name.is_empty() {
                let mut command = fencepost(&[command]);
                command.env("FENCEPOST_DEVICE", name);
                refused(command, &["FENCEPOST_DEVICE", "host"]);
            }
        }
    }
}

#[cfg(not(feature = "wgpu30"))]
#[test]
fn a_backend_that_the_build_leaves_out_names_the_feature_to_build_with() {
    for command in ["run", "check", "bench"] {
        let hint = "cargo feature wgpu30";
        refused(fencepost(&[command, "--device", "wgpu30"]), &[hint]);
        let mut command = fencepost(&[command]);
        command.env("FENCEPOST_DEVICE", "wgpu30");
        refused(command, &["FENCEPOST_DEVICE", hint]);
    }
}

#[cfg(not(target_vendor = "apple"))] // There the default is Metal.
#[test]
fn a_driver_that_fails_is_no_bad_argument() {
    for command in ["run", "check", "bench"] {
        for device in [None, Some("")] {
            let mut command = fencepost(&[command]);
            command.env("FENCEPOST_CUDA_LIBRARY", "no-such-library");
            if let Some(device) = device {
                command.env("FENCEPOST_DEVICE", device);
            }
            let out = output(command);
            let said = stderr(&out);
            assert_eq!(out.status.code(), Some(1), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.contains("FENCEPOST_CUDA_LIBRARY"), "{said}");
            assert!(!said.contains("FENCEPOST_DEVICE"), "{said}");
        }
    }
}

#[test]
fn the_named_device_wins_over_the_environment() {
    let mut command = fencepost(&["check", "--device", "host"]);
    command.env("FENCEPOST_DEVICE", "toaster");
    good(command);
}

#[test]
fn an_input_that_is_no_readable_file_is_refused() {
    let files = Files::new();
    let folder = utf8(files.0.path());
    refused(
        fencepost(&["--input", folder]),
        &["directory", "regular file", "or - for the standard input"],
    );
    let missing = files.path("two\nlines");
    refused(fencepost(&["--input", utf8(&missing)]), &["regular file"]);
    refused(fencepost(&["--input", ""]), &["--input"]);
    let below = files.write("file", b"x").join("below");
    refused(fencepost(&["--input", utf8(&below)]), &["regular file"]);
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_is_refused_without_opening_it() {
    let files = Files::new();
    let pipe = files.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo is there").success());
    // Opening it would block for ever: nobody writes.
    refused(fencepost(&["--input", utf8(&pipe)]), &["pipe"]);
    refused(fencepost(&["--input", "/dev/zero"]), &["regular file"]);

    let dangling = files.path("dangling");
    std::os::unix::fs::symlink(files.path("nowhere"), &dangling).expect("a link");
    refused(fencepost(&["--input", utf8(&dangling)]), &["dangling"]);
}

/// Runs with `bytes` in a pipe as the standard input, which are written in parts.
fn output_of_piped(args: &[&str], bytes: &[u8]) -> Output {
    let mut child = fencepost(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut pipe = child.stdin.take().expect("stdin is piped");
    for part in bytes.chunks(777) {
        pipe.write_all(part).expect("it reads to the end");
    }
    drop(pipe);
    child.wait_with_output().expect("it ends")
}

#[test]
fn the_standard_input_is_read_to_its_end() {
    for len in [0, 1, 1000, 300_001] {
        let bytes = odd_bytes(len);
        let mut counts = vec![0_u64; 256];
        for &byte in &bytes {
            counts[byte as usize] += 1;
        }
        for (chunk, streams) in [("1000", "1"), ("4K", "2"), ("4097", "5"), ("1M", "4")] {
            let args = ["run", "--input", "-", "--json", "--chunk", chunk];
            let out = output_of_piped(&[&args[..], &["--streams", streams]].concat(), &bytes);
            assert_eq!(stderr(&out), "");
            let report: Value = serde_json::from_str(&stdout(&out)).expect("JSON");
            assert_eq!(report["input"], "standard input");
            assert_eq!(report["bytes"], len);
            assert_eq!(report["matches"], true);
            assert_eq!(report["histogram"], Value::from(counts.clone()));
            let n = len.div_ceil(report["chunk_bytes"].as_u64().unwrap() as usize);
            assert_eq!(report["chunks"], n);
            for stage in report["stages"].as_array().unwrap() {
                assert_eq!(stage["n"], n);
            }
            assert_eq!(report["wall_ns"].is_null(), n == 0);
        }
    }
    let text = stdout(&output_of_piped(&["--input", "-"], b"abbaabba"));
    assert!(text.contains("file: standard input\n"), "{text}");
    assert!(text.contains("entropy: 1.0000 bits"), "{text}");
    assert!(text.contains("matches a plain"), "{text}");
}

#[test]
fn the_standard_input_may_be_a_file() {
    let files = Files::new();
    let path = files.write("f", b"abbaabba");
    let mut command = fencepost(&["--input", "-"]);
    command.stdin(fs::File::open(path).expect("it was just written"));
    assert!(good(command).contains("bytes: 8 in 1 chunk of"));
    // At its end already.
    assert!(good(fencepost(&["--input", "-"])).contains("bytes: 0 in 0 chunks"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_standard_input_that_cannot_be_read_is_an_error_not_a_panic() {
    let files = Files::new();
    let mut command = fencepost(&["--input", "-"]);
    command.stdin(fs::File::open(files.0.path()).expect("a folder opens for reading"));
    let out = output(command);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(stdout(&out), "");
    let said = stderr(&out);
    assert!(
        said.starts_with("fencepost: reading standard input failed: "),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[cfg(unix)]
#[test]
fn arguments_that_are_no_text_are_refused() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let odd = OsStr::from_bytes(b"\xff\xfe");
    for option in ["--input", "--device", "--streams", "--chunk"] {
        let mut command = fencepost(&[option]);
        command.arg(odd);
        refused(command, &[]);
    }
}

#[test]
fn sizes_that_do_not_fit_together_are_refused() {
    let files = Files::new();
    // Sparse: it takes no room.
    let path = files.write("large", b"");
    let file = fs::OpenOptions::new().write(true).open(&path);
    file.and_then(|file| file.set_len(64 << 30))
        .expect("a sparse file");
    let input = utf8(&path);
    refused(
        fencepost(&["--input", input, "--chunk", "1G", "--streams", "5"]),
        &["5.00 GiB", "4.00 GiB"],
    );
    refused(
        fencepost(&["--input", input, "--chunk", "1"]),
        &["--chunk 16384 or more"],
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_cannot_be_read_after_all_is_an_error_not_a_panic() {
    // A regular file of no size, by its looks; reading it fails.
    let out = output(fencepost(&["--input", "/proc/self/mem"]));
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(stdout(&out), "");
    assert_eq!(stderr(&out).lines().count(), 1);
    // One that has more to read than its size says.
    let out = output(fencepost(&["--input", "/proc/version"]));
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(stdout(&out), "");
    assert!(stderr(&out).contains("now there is more"));
}

#[test]
fn the_main_job_runs_without_any_argument() {
    let text = good(fencepost(&[]));
    for part in [
        "load",
        "histogram",
        "reduce",
        "median",
        "overlap",
        "entropy",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(
        text.ends_with("histogram: matches a plain single-threaded count\n"),
        "{text}"
    );
    assert_eq!(
        good(fencepost(&["run"])).lines().count(),
        text.lines().count()
    );
}

#[test]
fn the_main_job_on_the_host_says_how_much_faster_its_streams_are_than_one_thread() {
    let files = Files::new();
    let (large, small) = (
        files.write("large", &odd_bytes(1 << 20)),
        files.write("small", &odd_bytes((1 << 20) - 1)),
    );
    let run = |path, json: &[&str]| {
        let mut args = vec!["run", "--device", "host", "--input", path];
        args.extend(json);
        good(fencepost(&args))
    };
    let text = run(utf8(&large), &[]);
    assert!(text.contains("times one thread"), "{text}");
    // The lines in front have names in them, of any length.
    fits_a_terminal(&text[text.find("\nbytes:").unwrap()..]);
    assert!(!run(utf8(&small), &[]).contains("times one thread"));

    let json: Value = serde_json::from_str(&run(utf8(&large), &["--json"])).unwrap();
    let compared = &json["one_thread"];
    assert_eq!(compared["bytes"], 1 << 20);
    let figure = |name: &str| {
        compared[name]
            .as_f64()
            .filter(|&figure| figure > 0.0)
            .unwrap()
    };
    let ratio = figure("streams_bytes_per_s") / figure("one_thread_bytes_per_s");
    assert!((figure("ratio") / ratio - 1.0).abs() < 1e-6, "{compared}");
    let json: Value = serde_json::from_str(&run(utf8(&small), &["--json"])).unwrap();
    assert!(json["one_thread"].is_null());
    // By default as many streams count as there are cores.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    assert_eq!(json["streams"], cores + 2);
}

/// Bytes without a pattern that chunks could line up with.
fn odd_bytes(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Skewed, so that the counts differ from each other.
        ((state >> 24) as u8) & ((state >> 16) as u8)
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn every_size_of_file_and_chunk_and_any_number_of_streams_counts_right() {
    let files = Files::new();
    for (len, chunks) in [
        (0, &["1", "1M"][..]),
        (1, &["1", "2", "1M"]),
        (1000, &["1", "7", "999", "1000", "1001", "1G"]),
        (
            3_000_017,
            &["4097", "64K", "1000000", "1m", "3000017", "4M"],
        ),
    ] {
        let bytes = odd_bytes(len);
        let path = files.write(&len.to_string(), &bytes);
        let mut counts = vec![0_u64; 256];
        for &byte in &bytes {
            counts[byte as usize] += 1;
        }
        for chunk in chunks {
            for streams in ["1", "2", "3", "8"] {
                eprintln!("{len} bytes in chunks of {chunk} on {streams} streams");
                let input = utf8(&path);
                let args = ["--input", input, "--chunk", chunk, "--streams", streams];
                let report = json(&[&args[..], &["--json"]].concat());
                assert_eq!(report["bytes"], len);
                assert_eq!(report["streams"].to_string(), streams);
                assert_eq!(report["matches"], true);
                assert_eq!(report["histogram"], Value::from(counts.clone()));
                let n = len.div_ceil(report["chunk_bytes"].as_u64().unwrap() as usize);
                assert_eq!(report["chunks"], n);
                let stages = report["stages"].as_array().unwrap();
                assert_eq!(stages.len(), 3);
                for stage in stages {
                    assert_eq!(stage["n"], n);
                    assert_eq!(stage["median_ns"].is_null(), n == 0);
                }
                assert_eq!(report["wall_ns"].is_null(), n == 0);
            }
        }
    }
}

#[test]
fn hundreds_of_streams_share_the_work() {
    let files = Files::new();
    let path = files.write("f", &odd_bytes(100_000));
    let args = ["--input", utf8(&path), "--chunk", "100", "--streams", "500"];
    let text = good(fencepost(&args));
    assert!(text.contains("on 500 streams"), "{text}");
    assert!(text.contains("matches a plain"), "{text}");
}

#[test]
fn entropy_of_known_files() {
    let files = Files::new();
    let every: Vec<u8> = (0..=255).cycle().take(256 * 100).collect();
    for (name, bytes, bits) in [
        ("every", &every[..], 8.0),
        ("constant", &[7; 10_000], 0.0),
        ("coin", b"abbaabba", 1.0),
        ("empty", b"", 0.0),
    ] {
        let path = files.write(name, bytes);
        let report = json(&["run", "--json", "--input", utf8(&path), "--chunk", "1000"]);
        assert_eq!(report["entropy_bits_per_byte"], bits, "{name}");
    }
}

#[test]
fn a_trace_of_the_main_job_shows_every_chunk_in_every_stage() {
    let files = Files::new();
    let input = files.write("input", &odd_bytes(10_000));
    for streams in ["1", "2", "4"] {
        let trace = files.path(&format!("{streams}.json"));
        let run = ["--device", "host", "--streams", streams, "--chunk", "1000"];
        let files = ["--input", utf8(&input), "--trace", utf8(&trace)];
        let report = json(&[&["run", "--json"], &run[..], &files[..]].concat());
        assert_eq!(report["trace"]["file"], utf8(&trace));
        assert_eq!(report["trace"]["finished"], 30);
        assert_eq!(report["trace"]["dropped"], 0);
        let text = fs::read_to_string(&trace).expect("it was written");
        let written: Value = serde_json::from_str(&text).expect("it is JSON");
        let events = written["traceEvents"].as_array().expect("there are events");
        for stage in ["load", "histogram", "reduce"] {
            let chunks = events.iter().filter(|event| event["name"] == stage);
            let mut chunks: Vec<_> = chunks
                .map(|event| event["args"]["chunk"].as_u64())
                .collect();
            chunks.sort_unstable();
            assert_eq!(chunks, (0..10).map(Some).collect::<Vec<_>>(), "{stage}");
        }
    }
    let svg = files.path("run.svg");
    let said = good(fencepost(&[
        "--device",
        "host",
        "--input",
        utf8(&input),
        "--trace",
        utf8(&svg),
    ]));
    assert!(said.contains("\ntrace: 3 spans in "), "{said}");
    let picture = fs::read_to_string(&svg).expect("it was written");
    assert!(picture.starts_with("<svg "), "{picture}");
}

#[test]
fn a_trace_does_not_replace_the_file_that_is_read() {
    let files = Files::new();
    let input = files.write("input.json", b"x");
    let run = ["run", "--device", "host", "--input", utf8(&input)];
    for trace in ["input.json", "./input.json"] {
        let trace = files.path(trace);
        let out = fencepost(&[&run[..], &["--trace", utf8(&trace)]].concat());
        refused(out, &["--trace", "input.json", "another"]);
    }
    assert_eq!(fs::read(&input).expect("it is there"), b"x");
}

#[test]
fn a_trace_that_cannot_be_written_is_refused_before_the_run() {
    let files = Files::new();
    let input = files.write("input", b"x");
    let refused_trace = |trace: &Path, hints: &[&str]| {
        let run = ["run", "--device", "host", "--input", utf8(&input)];
        refused(
            fencepost(&[&run[..], &["--trace", utf8(trace)]].concat()),
            hints,
        );
    };
    for name in ["run.txt", "run", ".svg"] {
        refused_trace(&files.path(name), &["--trace", ".pftrace", ".json", ".svg"]);
    }
    refused_trace(&files.path("nowhere/run.svg"), &["--trace", "run.svg"]);
    let folder = files.path("folder.svg");
    fs::create_dir(&folder).expect("a folder");
    refused_trace(&folder, &["--trace", "folder.svg"]);
    let left = fs::read_dir(files.0.path()).expect("it is there");
    assert_eq!(left.count(), 2, "nothing is left behind");
}

#[test]
fn the_stages_that_overlapped_least_are_named() {
    let files = Files::new();
    let input = files.write("input", &odd_bytes(1 << 20));
    let args = [
        "--device",
        "host",
        "--chunk",
        "64K",
        "--input",
        utf8(&input),
    ];
    let report = json(&[&["run", "--json"], &args[..]].concat());
    let overlaps = report["overlaps"]
        .as_array()
        .expect("there are three pairs");
    assert_eq!(overlaps.len(), 3);
    let shares: Vec<_> = overlaps
        .iter()
        .map(|overlap| overlap["share"].as_f64().expect("a number"))
        .collect();
    assert!(shares.is_sorted(), "{shares:?}");
    assert!(
        shares
            .iter()
            .all(|share| (0.0..=1.0 + 1e-9).contains(share))
    );
    assert_eq!(report["trace"], Value::Null);

    let said = good(fencepost(&args));
    assert!(said.contains("\nleast: "), "{said}");
    let said = good(fencepost(&[&args[..], &["--streams", "1"]].concat()));
    assert!(!said.contains("\nleast: "), "{said}");
    let one = json(&[&["run", "--json", "--streams", "1"], &args[..]].concat());
    for overlap in one["overlaps"].as_array().expect("there are three pairs") {
        assert_eq!(overlap["both_ns"], 0.0);
    }
}

#[test]
fn an_empty_file_reads_well_too() {
    let files = Files::new();
    let path = files.write("empty", b"");
    let text = good(fencepost(&["--input", utf8(&path)]));
    assert!(text.contains("bytes: 0 in 0 chunks"), "{text}");
    assert!(text.contains("entropy: 0.0000 bits"), "{text}");
    assert!(text.contains("matches a plain"), "{text}");
}

#[test]
fn devices_tells_of_every_backend() {
    let text = good(fencepost(&["devices"]));
    fits_a_terminal(&text);
    let names = ["metal", "cuda", "vulkan", "opencl", "host"];
    for backend in names {
        assert!(text.contains(backend), "{text}");
    }
    let report = json(&["devices", "--json"]);
    let backends = report["backends"].as_array().unwrap();
    assert_eq!(backends.len(), names.len());
    let host = backends.iter().find(|b| b["backend"] == "host").unwrap();
    assert_eq!(host["devices"][0]["name"], "host");
    assert!(
        host["devices"][0]["clock"]["resolution_ns"]
            .as_u64()
            .unwrap()
            > 0
    );
    for backend in backends {
        let devices = backend["devices"].as_array().unwrap();
        assert_eq!(devices.is_empty(), !backend["missing"].is_null());
    }
}

#[test]
fn devices_marks_the_one_that_other_commands_take() {
    let default = &json(&["devices", "--json"])["default"];
    let taken = json(&["run", "--json", "--chunk", "64M"]);
    assert_eq!(default, &taken["device"]);
    let mark = format!("{} (default)", default.as_str().unwrap());
    let text = good(fencepost(&["devices"]));
    assert_eq!(text.matches("(default)").count(), 1, "{text}");
    assert!(text.contains(&mark), "{text}");

    let mut chosen = fencepost(&["devices"]);
    chosen.env("FENCEPOST_DEVICE", "host");
    let text = good(chosen);
    assert!(text.contains("host (default)"), "{text}");
}

#[test]
fn devices_lists_whatever_the_environment_says() {
    for name in ["toaster", "metal:7", "two\nlines"] {
        let mut command = fencepost(&["devices"]);
        command.env("FENCEPOST_DEVICE", name);
        let text = good(command);
        fits_a_terminal(&text);
        assert!(!text.contains("(default)"), "{text}");
        assert!(
            text.contains("no default device: FENCEPOST_DEVICE"),
            "{text}"
        );

        let mut command = fencepost(&["devices", "--json"]);
        command.env("FENCEPOST_DEVICE", name);
        let report: Value = serde_json::from_str(&good(command)).expect("JSON");
        assert!(report["default"].is_null(), "{report}");
        assert!(report["no_default"].is_string(), "{report}");
    }
}

#[test]
fn check_ends_with_its_counts() {
    let text = good(fencepost(&["check", "--device", "host"]));
    let last = text.lines().last().unwrap();
    let words: Vec<_> = last.split([' ', ',']).filter(|w| !w.is_empty()).collect();
    let [passed, "passed", "0", "failed", skipped, "skipped"] = words[..] else {
        panic!("{last}");
    };
    let cases = passed.parse::<usize>().unwrap() + skipped.parse::<usize>().unwrap();
    assert_eq!(cases, fencepost::testing::cases().count());
    // The device, the cases, the counts.
    assert_eq!(text.lines().count(), cases + 2);
}

#[test]
fn check_tells_every_case_as_json() {
    let report = json(&["check", "--device", "host", "--json"]);
    assert_eq!(report["device"], "host");
    assert!(report["clock_resolution_ns"].as_u64().unwrap() > 0);
    let cases = report["cases"].as_array().unwrap();
    let named: Vec<_> = cases.iter().map(|case| &case["name"]).collect();
    let all: Vec<_> = fencepost::testing::cases().map(|case| case.name).collect();
    assert_eq!(named, all);
    for (result, has_reason) in [("passed", false), ("failed", true), ("skipped", true)] {
        let ended: Vec<_> = cases.iter().filter(|c| c["result"] == result).collect();
        assert_eq!(report["summary"][result], ended.len(), "{result}");
        for case in ended {
            assert_eq!(case["reason"].is_string(), has_reason, "{case}");
            assert!(case["seconds"].as_f64().unwrap() >= 0.0, "{case}");
        }
    }
    assert_eq!(report["summary"]["failed"], 0);

    let one = json(&["check", "--device", "host", "--json", "--filter", all[0]]);
    assert_eq!(one["cases"][0]["name"], all[0]);
    let none = ["check", "--json", "--filter", "no such case"];
    refused(fencepost(&none), &["no such case"]);
}

#[test]
fn a_filter_picks_cases() {
    let case = fencepost::testing::cases().next().expect("there are cases");
    let text = good(fencepost(&[
        "check", "--device", "host", "--filter", case.name,
    ]));
    assert!(text.contains(case.name), "{text}");
}

#[test]
fn bench_measures_every_row() {
    let report = json(&["bench", "--quick", "--json"]);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 17);
    for row in rows {
        assert!(row["median_ns"].as_f64().unwrap() > 0.0, "{row}");
        for base in row["against"].as_array().unwrap() {
            let ratio = row["median_ns"].as_f64().unwrap() / base["median_ns"].as_f64().unwrap();
            let told = base["ratio"].as_f64().unwrap();
            assert!((told / ratio - 1.0).abs() < 1e-9, "{row}");
            assert_eq!(base["bound"].is_null(), base["verdict"].is_null(), "{row}");
        }
    }
}

#[test]
fn the_bench_table_fits_a_terminal() {
    let text = good(fencepost(&["bench", "--quick"]));
    fits_a_terminal(&text);
    assert!(text.contains("few rounds"), "{text}");
    let debug = text.contains("debug build");
    assert_eq!(debug, cfg!(debug_assertions), "{text}");
}

#[test]
fn help_and_version_go_to_stdout() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["run", "--help"],
        &["bench", "--help"],
        &["check", "--help"],
        &["devices", "--help"],
    ] {
        let text = good(fencepost(args));
        assert!(text.contains("Usage:"));
        fits_a_terminal(&text);
    }
    assert!(good(fencepost(&["--help"])).contains("entropy_bits_per_byte"));
    let version = concat!("fencepost ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(good(fencepost(&["--version"])), version);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for args in [
        &["devices"][..],
        &["devices", "--json"],
        &["run"],
        &["check"],
        &["check", "--json", "--filter", "query"],
        &["--help"],
    ] {
        let mut child = fencepost(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(child.stdout.take());
        let mut said = String::new();
        let mut pipe = child.stderr.take().expect("stderr is piped");
        pipe.read_to_string(&mut said).expect("stderr is UTF-8");
        assert_eq!(said, "", "{args:?}");
        assert!(child.wait().expect("it ends").success(), "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_not_a_panic() {
    for args in [
        &["devices"][..],
        &["run", "--json"],
        &["check"],
        &["check", "--json", "--filter", "query"],
    ] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        let mut command = fencepost(args);
        command.stdout(full.expect("/dev/full is there"));
        let out = output(command);
        assert_eq!(out.status.code(), Some(1), "{args:?}");
        assert_eq!(stderr(&out).lines().count(), 1, "{args:?}");
    }
}
