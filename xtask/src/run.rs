//! Runs steps: starts their commands, prints and reads what these print.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use crate::count::Log;
use crate::programs::{self, Program};
use crate::steps::{Lane, Programs, Step, Task};
use crate::summary::{Outcome, Policy, Table, judge, not_run};

thread_local! {
    /// The label in front of each line that this thread prints.
    static LABEL: Cell<&'static str> = const { Cell::new("") };
}

/// As wide as the longest name of a step.
const LABEL_WIDTH: usize = 20;

/// Prints a line. A closed pipe (`cargo xtask test | head`) is no reason to stop or to panic.
pub(crate) fn say(line: &str) {
    say_bytes(line.as_bytes());
}

fn say_bytes(line: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = match LABEL.get() {
        "" => Ok(()),
        label => write!(out, "{label:LABEL_WIDTH$} | "),
    };
    let _ = out.write_all(line).and_then(|()| out.write_all(b"\n"));
}

/// The same on stderr.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

const NOTES: &str = "tables";

/// Where the sources, cargo and what it builds are.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    cargo: OsString,
    /// Whether no test was run in this target folder before.
    cold: bool,
}

impl Workspace {
    pub(crate) fn find() -> Self {
        // The variable first: a binary that was built elsewhere works on the checkout that it is
        // run in.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().unwrap_or(&manifest).to_owned();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
            || root.join("target"),
            |target| std::path::absolute(&target).unwrap_or_else(|_| PathBuf::from(target)),
        );
        Self {
            root,
            cold: !target.join(NOTES).exists(),
            target,
            cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        }
    }

    pub(crate) fn cargo(&self, args: &str) -> Command {
        let mut command = self.building(&self.cargo);
        command.args(args.split_whitespace());
        command
    }

    /// A command that compiles. Incremental compilation costs the first build a fifth of its time,
    /// so it is on from the second run.
    pub(crate) fn building(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command(program);
        if self.cold && std::env::var_os("CARGO_INCREMENTAL").is_none() {
            command.env("CARGO_INCREMENTAL", "0");
        }
        command
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        // No command here reads input.
        command.stdin(Stdio::null());
        // A row names the device that its step runs on: the caller must not choose another.
        command.env_remove("FENCEPOST_DEVICE");
        command.env_remove("CARGO_BUILD_TARGET");
        command
    }

    /// Where tests leave tables and skips, since cargo swallows what a passing test prints.
    pub(crate) fn notes(&self) -> PathBuf {
        self.target.join(NOTES)
    }

    pub(crate) fn clear_notes(&self) -> io::Result<()> {
        match fs::remove_dir_all(self.notes()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// How one command ended.
pub(crate) struct Ended {
    pub(crate) command: String,
    /// Whether it was a test, and not the preparation of one.
    pub(crate) test: bool,
    pub(crate) log: Log,
    /// Why it failed, whatever its log says.
    pub(crate) trouble: Option<String>,
}

/// Runs the steps of each lane in their order. The outcomes are in the order of all steps.
pub(crate) fn steps(chosen: &[&Step], workspace: &Workspace, policy: &Policy) -> Vec<Outcome> {
    let beside = chosen.iter().any(|step| step.lane == Lane::Beside)
        && chosen.iter().any(|step| step.lane == Lane::Main);
    let run_lane = |lane| {
        let numbered = chosen.iter().enumerate();
        numbered
            .filter(|(_, step)| step.lane == lane)
            .map(|(i, step)| {
                // Two lanes print into one log, so each line has the name of its step.
                LABEL.set(if beside { step.name } else { "" });
                say("");
                let number = format!("[{}/{}]", i + 1, chosen.len());
                say(&format!("=== {number} {}: {}", step.name, step.proves));
                let outcome = run_step(step, workspace, policy);
                LABEL.set("");
                (i, outcome)
            })
            .collect::<Vec<_>>()
    };
    let mut outcomes = thread::scope(|scope| {
        let other = scope.spawn(|| run_lane(Lane::Beside));
        let mut outcomes = run_lane(Lane::Main);
        match other.join() {
            Ok(others) => outcomes.extend(others),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        outcomes
    });
    outcomes.sort_by_key(|(i, _)| *i);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

fn run_step(step: &Step, workspace: &Workspace, policy: &Policy) -> Outcome {
    let started = Instant::now();
    if let Err(reason) = (step.ready)() {
        say(&format!("NOT RUN: {reason}"));
        return not_run(step, reason, policy);
    }

    // A folder for each step tells whose files they are.
    let notes = workspace.notes().join(step.name);
    let ended = match fs::create_dir_all(&notes) {
        Ok(()) => match (step.tasks)(workspace) {
            Ok(tasks) => {
                let run = |task| run_task(task, workspace, &notes);
                tasks.into_iter().flat_map(run).collect()
            }
            Err(trouble) => vec![not_started(trouble)],
        },
        Err(error) => vec![not_started(format!(
            "cannot create {}: {error}",
            notes.display()
        ))],
    };
    let (tables, skips) = read_notes(&notes);
    let mut outcome = judge(step, &ended, &skips, policy);
    outcome.tables = tables;
    outcome.time = started.elapsed();
    outcome
}

fn not_started(trouble: String) -> Ended {
    say(&trouble);
    Ended {
        command: String::new(),
        test: false,
        log: Log::default(),
        trouble: Some(trouble),
    }
}

fn run_task(task: Task, workspace: &Workspace, notes: &Path) -> Vec<Ended> {
    match task {
        Task::Build(command) => vec![run(command, false, workspace, notes).0],
        Task::Test(command) => vec![run(command, true, workspace, notes).0],
        Task::Programs(programs) => run_programs(programs, workspace, notes),
    }
}

fn run_programs(chosen: Programs, workspace: &Workspace, notes: &Path) -> Vec<Ended> {
    let mut build = chosen.build;
    build.arg("--message-format=json-render-diagnostics");
    let (built, programs) = run(build, false, workspace, notes);
    let mut ended = vec![built];
    for program in programs {
        let folder = &program.folder;
        let inside = folder.strip_prefix(&workspace.root).unwrap_or(folder);
        if !(chosen.chosen)(inside, &program.name) {
            continue;
        }
        let mut test = workspace.command(&program.executable);
        // The folder in which cargo would run it.
        test.current_dir(folder);
        test.env("CARGO_MANIFEST_DIR", folder);
        (chosen.prepare)(workspace, &mut test);
        ended.push(run(test, true, workspace, notes).0);
    }
    ended
}

fn run(
    mut command: Command,
    test: bool,
    workspace: &Workspace,
    notes: &Path,
) -> (Ended, Vec<Program>) {
    let shown = match command.get_current_dir() {
        Some(folder) if folder != workspace.root => {
            format!("cd {} && {}", folder.display(), shown(&command))
        }
        _ => shown(&command),
    };
    say(&format!("$ {shown}"));
    command.env("FENCEPOST_TABLE_DIR", notes);
    let mut log = Log::default();
    let mut programs = Vec::new();
    let mut read = |line: &[u8]| {
        let text = String::from_utf8_lossy(line);
        match programs::message(&text) {
            Some(program) => programs.extend(program),
            None => {
                say_bytes(line);
                log.read(&text);
            }
        }
    };
    let trouble = stream(command, &mut read).unwrap_or_else(|error| Some(error.to_string()));
    if let Some(trouble) = &trouble {
        say(&format!("{trouble}: {shown}"));
    }
    let ended = Ended {
        command: shown,
        test,
        log,
        trouble,
    };
    (ended, programs)
}

/// Runs a command, and calls `read` with each line that it prints. Returns the exit status if the
/// command failed.
fn stream(mut command: Command, read: &mut dyn FnMut(&[u8])) -> io::Result<Option<String>> {
    // One pipe for both, so that cargo's lines stay in order with those of the tests it runs.
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    // Cargo writes to a pipe and would use no colours, though a person may watch.
    if io::stdout().is_terminal() && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let child = command.spawn();
    // It holds this end of the pipe, which would never close.
    drop(command);
    let mut child = child?;

    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        read(line.strip_suffix(b"\n").unwrap_or(&line));
        line.clear();
    }
    let status = child.wait()?;
    Ok((!status.success()).then(|| status.to_string()))
}

/// Runs a command whose output needs no reading.
pub(crate) fn plainly(mut command: Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            complain(&format!("{}: {error}", shown(&command)));
            false
        }
    }
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let quoted = |text: &OsStr| {
        let text = text.to_string_lossy();
        if text.contains(' ') {
            format!("'{text}'")
        } else {
            text.into_owned()
        }
    };
    let mut words: Vec<String> = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))))
        .collect();
    let program = Path::new(command.get_program());
    words.push(quoted(match program.file_stem() {
        // People type `cargo`, whatever the path of the toolchain's own.
        Some(stem) if stem == "cargo" => stem,
        _ => program.as_os_str(),
    }));
    words.extend(command.get_args().map(quoted));
    words.join(" ")
}

/// The files that the tests of a step left: a `*.txt` is a table under its title, a `*.skip` has a
/// skip on each line.
fn read_notes(folder: &Path) -> (Vec<Table>, Vec<String>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();

    let (mut tables, mut skips) = (Vec::new(), Vec::new());
    for path in paths {
        let text = || {
            // A file that cannot be read is shown, as a skip is.
            fs::read(&path).map_or_else(
                |error| format!("cannot read {}: {error}", path.display()),
                |bytes| String::from_utf8_lossy(&bytes).into_owned(),
            )
        };
        match path.extension().and_then(OsStr::to_str) {
            Some("txt") => {
                let text = text();
                let (title, body) = text.split_once('\n').unwrap_or((&text, ""));
                tables.push(Table {
                    title: title.trim().to_owned(),
                    body: body.trim_end().to_owned(),
                });
            }
            Some("skip") => {
                let text = text();
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                skips.extend(lines.map(str::to_owned));
            }
            _ => {}
        }
    }
    (tables, skips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_typed() {
        let mut command = Command::new("/somewhere/bin/cargo");
        command.args(["test", "--", "a b"]);
        command.env("RUSTFLAGS", "--cfg loom").env_remove("CARGO");
        assert_eq!(
            shown(&command),
            "RUSTFLAGS='--cfg loom' cargo test -- 'a b'"
        );
    }

    #[test]
    fn notes_are_read_by_their_kind() {
        let folder = std::env::temp_dir().join(format!("xtask-notes-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("kill.txt"), "Mutants\na  killed\nb  killed\n").unwrap();
        fs::write(folder.join("title-only.txt"), "Alone").unwrap();
        fs::write(folder.join("a.skip"), "fork: no fork here\n\n").unwrap();
        fs::write(folder.join("other"), "x").unwrap();
        let (tables, skips) = read_notes(&folder);
        fs::remove_dir_all(&folder).unwrap();

        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].title, "Mutants");
        assert_eq!(tables[0].body, "a  killed\nb  killed");
        assert_eq!((&*tables[1].title, &*tables[1].body), ("Alone", ""));
        assert_eq!(skips, ["fork: no fork here"]);
        assert!(read_notes(&folder).0.is_empty());
    }

    #[test]
    fn a_command_that_is_not_there_is_trouble_and_no_panic() {
        let command = Command::new("no-such-program-here");
        assert!(stream(command, &mut |_| ()).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn both_outputs_are_read_and_a_bad_exit_is_told() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'SKIPPED: a'; echo 'SKIPPED: b' >&2; printf '1 passed, 0 failed, 0 skipped'; \
             exit 3",
        ]);
        let mut log = Log::default();
        let mut lines = Vec::new();
        let trouble = stream(command, &mut |line| {
            let line = String::from_utf8_lossy(line).into_owned();
            log.read(&line);
            lines.push(line);
        })
        .unwrap();
        assert!(lines.ends_with(&["SKIPPED: b".into(), "1 passed, 0 failed, 0 skipped".into()]));
        assert_eq!(trouble.as_deref(), Some("exit status: 3"));
        assert_eq!(log.skips, ["a", "b"]);
        assert_eq!(log.closing.map(|tally| tally.passed), Some(1));
    }
}
