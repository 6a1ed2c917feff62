//! `fencepost watch` with a program that is stuck: the test's executable itself.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

/// A program and, for each, lines that its report must have.
pub(crate) struct Program<G> {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&G),
    /// Variables of the program.
    pub(crate) set: &'static [(&'static str, &'static str)],
    pub(crate) told: &'static [&'static str],
}

/// Names the program to be, and the file that ends it.
pub(crate) const PROGRAM: &str = "FENCEPOST_TEST_PROGRAM";
pub(crate) const STOP: &str = "FENCEPOST_TEST_STOP";
/// With what it ends.
pub(crate) const CODE: i32 = 7;

/// Only a hang takes so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Becomes the program that the variable names; without it, does nothing. `leave` ends a program
/// that is stuck.
pub(crate) fn be_the_program<G: 'static>(
    mut all: impl Iterator<Item = &'static Program<G>>,
    open: impl FnOnce() -> G,
    leave: fn(i32) -> !,
) {
    let Ok(name) = std::env::var(PROGRAM) else {
        return;
    };
    let stop = std::env::var_os(STOP).expect("the file that ends the program");
    std::thread::spawn(move || {
        while !Path::new(&stop).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
        leave(CODE);
    });
    let program = all.find(|program| program.name == name);
    let program = program.expect("a program of this name");
    (program.run)(&open());
    loop {
        std::thread::park();
    }
}

pub(crate) fn library(crate_name: &str) -> PathBuf {
    let stand_in = fencepost_sim_cuda::library_path().expect("the stand-in is built");
    stand_in.with_file_name(format!("lib{crate_name}.so"))
}

/// `fencepost watch` with these options and a program.
pub(crate) fn watch(folder: &Path, options: &[&str], program: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fencepost"));
    command
        .arg("watch")
        .args(options)
        .arg("--")
        .args(program)
        .env("FENCEPOST_WATCH_LIBRARY", library("fencepost_watch"))
        .env("FENCEPOST_CUDA_LIBRARY", library("fencepost_sim_cuda"))
        .env("FENCEPOST_CUPTI_LIBRARY", library("fencepost_sim_cuda"))
        .env(STOP, folder.join("stop"))
        .env("TMPDIR", folder);
    command
}

/// The arguments of this executable that make it the program.
pub(crate) fn this_program() -> [String; 4] {
    let exe = std::env::current_exe().expect("this executable");
    let exe = exe.to_str().expect("a path that is text").to_owned();
    [
        exe,
        "--exact".into(),
        "the_program".into(),
        "--nocapture".into(),
    ]
}

pub(crate) fn with_program(folder: &Path, options: &[&str], name: &str) -> Command {
    let words = this_program();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = watch(folder, options, &words);
    command.env(PROGRAM, name);
    command
}

pub(crate) fn start<G>(folder: &Path, options: &[&str], program: &Program<G>) -> Child {
    let mut command = with_program(folder, options, program.name);
    command
        .envs(program.set.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().expect("fencepost starts")
}

/// Waits until the file has all of these, in one line each if the lines were not broken.
pub(crate) fn wait_for(file: &Path, told: &[&str]) -> Result<String, String> {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let unbroken: Vec<&str> = text.split_whitespace().collect();
        let unbroken = unbroken.join(" ");
        let missing = told.iter().find(|told| !unbroken.contains(**told));
        let Some(missing) = missing else {
            return Ok(text);
        };
        if begun.elapsed() > DEADLINE {
            return Err(format!("no \"{missing}\" in:\n{text}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs one program until its report is there. Returns the report.
fn report_of<G>(program: &Program<G>) -> Result<String, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join("report");
    let output = file.to_str().ok_or("a path that is no text")?;
    let options = ["--after", "0.5", "--output", output];
    let mut child = start(folder.path(), &options, program);
    let told = wait_for(&file, program.told);
    // Also ends a program whose report is missing.
    let stopped = std::fs::write(folder.path().join("stop"), "");
    let status = child.wait();
    stopped.map_err(|error| error.to_string())?;
    let status = status.map_err(|error| error.to_string())?;
    let text = told?;
    if status.code() != Some(CODE) {
        return Err(format!(
            "it ended with {status}, not with the program's {CODE}"
        ));
    }
    let pointer = text.lines().find(|line| line.contains("0x"));
    if let Some(line) = pointer.filter(|line| !line.contains('/')) {
        return Err(format!("a pointer in place of a name: {line}"));
    }
    let long = text.lines().find(|line| line.chars().count() > 80);
    match long.filter(|line| !line.contains('/')) {
        Some(line) => Err(format!("more than 80 columns: {line}")),
        None => Ok(text),
    }
}

/// The exit code, and the lines of the standard error that are `fencepost`'s own.
pub(crate) fn ended(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("fencepost starts");
    let said = String::from_utf8_lossy(&output.stderr);
    let own = said.lines().filter(|line| line.starts_with("fencepost"));
    (output.status.code(), own.collect::<Vec<_>>().join("\n"))
}

/// Runs all of them, and fails where a report lacks a line.
pub(crate) fn explained<G: 'static>(programs: &'static [Program<G>]) {
    let next = Mutex::new(programs.iter());
    let failures = Mutex::new(Vec::new());
    let shows = std::env::var_os("FENCEPOST_TEST_SHOW").is_some();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(program) = next.lock().unwrap().next() else {
                        return;
                    };
                    match report_of(program) {
                        Ok(text) if shows => println!("== {}\n{text}", program.name),
                        Ok(_) => {}
                        Err(why) => {
                            let failure = format!("== {}: {why}", program.name);
                            failures.lock().unwrap().push(failure);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
