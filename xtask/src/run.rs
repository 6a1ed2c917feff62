//! Starts commands and listens to them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::count::Log;
use crate::steps::Step;
use crate::summary::{Outcome, Policy, Table, judge, not_run};

/// Prints a line. A reader that went away (`cargo xtask test | head`) is no reason to stop or to
/// panic.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// The same on stderr.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Where things are.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    cargo: OsString,
}

impl Workspace {
    pub(crate) fn find() -> Self {
        // The variable first: a binary that was built elsewhere still works on the checkout it is
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
            target,
            cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        }
    }

    pub(crate) fn cargo(&self, args: &str) -> Command {
        let mut command = self.command(&self.cargo);
        command.args(args.split_whitespace());
        command
    }

    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        // Nothing here asks questions.
        command.stdin(Stdio::null());
        // A row says which device it ran on; the caller's taste must not change that.
        command.env_remove("FENCEPOST_DEVICE");
        command.env_remove("CARGO_BUILD_TARGET");
        command
    }

    /// Where tests leave tables and skips, since cargo swallows what a passing test prints.
    pub(crate) fn notes(&self) -> PathBuf {
        self.target.join("tables")
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
    pub(crate) log: Log,
    /// Why it counts as failed, whatever its log says.
    pub(crate) trouble: Option<String>,
}

pub(crate) fn step(step: &Step, workspace: &Workspace, policy: &Policy) -> Outcome {
    let started = Instant::now();
    if let Err(reason) = (step.ready)() {
        say(&format!("NOT RUN: {reason}"));
        return not_run(step, reason, policy);
    }

    // A folder for each step, so that it is known who left what.
    let notes = workspace.notes().join(step.name);
    let ended = match fs::create_dir_all(&notes) {
        Ok(()) => match (step.commands)(workspace) {
            Ok(commands) => commands.into_iter().map(|c| run(c, &notes)).collect(),
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
    complain(&trouble);
    Ended {
        command: String::new(),
        log: Log::default(),
        trouble: Some(trouble),
    }
}

fn run(mut command: Command, notes: &Path) -> Ended {
    let shown = shown(&command);
    say(&format!("$ {shown}"));
    command.env("FENCEPOST_TABLE_DIR", notes);
    let mut log = Log::default();
    let trouble = stream(command, &mut log, &mut io::stdout())
        .unwrap_or_else(|error| Some(error.to_string()));
    if let Some(trouble) = &trouble {
        complain(&format!("{trouble}: {shown}"));
    }
    Ended {
        command: shown,
        log,
        trouble,
    }
}

/// Runs a command, passing on and reading each line as it comes. Gives the exit status if it was a
/// bad one.
fn stream(mut command: Command, log: &mut Log, out: &mut dyn Write) -> io::Result<Option<String>> {
    // One pipe for both, so that cargo's lines stay in order with those of the tests it runs.
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    // Cargo sees a pipe and would go grey, though a person is watching.
    if io::stdout().is_terminal() && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let child = command.spawn();
    // It holds our ends of the pipe, which would never close.
    drop(command);
    let mut child = child?;

    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let _ = out.write_all(&line).and_then(|()| out.flush());
        log.read(&String::from_utf8_lossy(&line));
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

/// The command as one would type it.
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
        // `cargo` is what one types, wherever the toolchain keeps it.
        Some(stem) if stem == "cargo" => stem,
        _ => program.as_os_str(),
    }));
    words.extend(command.get_args().map(quoted));
    words.join(" ")
}

/// What the tests of a step left behind: `*.txt`, a table under its title each, and `*.skip`, a
/// skip a line.
fn read_notes(folder: &Path) -> (Vec<Table>, Vec<String>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();

    let (mut tables, mut skips) = (Vec::new(), Vec::new());
    for path in paths {
        let text = || {
            // Unreadable is as suspect as a skip, and as little to be passed over.
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
        let mut log = Log::default();
        let command = Command::new("no-such-program-here");
        assert!(stream(command, &mut log, &mut io::sink()).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn both_outputs_are_read_and_a_bad_exit_is_told() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "echo 'SKIPPED: a'; echo 'SKIPPED: b' >&2; printf '1 passed, 0 failed, 0 skipped'; exit 3",
        ]);
        let mut log = Log::default();
        let mut passed_on = Vec::new();
        let trouble = stream(command, &mut log, &mut passed_on).unwrap();
        assert!(passed_on.ends_with(b"SKIPPED: b\n1 passed, 0 failed, 0 skipped"));
        assert_eq!(trouble.as_deref(), Some("exit status: 3"));
        assert_eq!(log.skips, ["a", "b"]);
        assert_eq!(log.closing.map(|tally| tally.passed), Some(1));
    }
}
