//! The command line of fencepost as a library, for programs that include it: the Python package
//! runs it as `python -m fencepost`.
#![deny(missing_docs, unsafe_code)]

use std::{
    ffi::OsString,
    fmt::Write as _,
    io::{ErrorKind, IsTerminal as _, Write},
};

use clap::{Parser, Subcommand};
use fencepost::{Device, Error, testing::work};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

mod bench;
mod check;
mod devices;
mod gpu;
mod pipeline;
mod run;
mod stats;
mod units;
#[cfg(target_os = "linux")]
mod watch;
#[cfg(feature = "wgpu30")]
mod wgpu;

/// How wide help and tables are at most, in columns.
const WIDTH: usize = 80;

/// Device events on this machine: run a pipeline that they order, list devices, check what the
/// events promise, measure what they cost, and tell what a GPU program waits for.
///
/// Without a command, `fencepost` does the same as `fencepost run`, with its options.
#[derive(Parser)]
#[command(
    name = "fencepost",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = WIDTH
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Args,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Devices(devices::Args),
    Check(check::Args),
    Bench(bench::Args),
    #[cfg(target_os = "linux")]
    Watch(watch::Args),
}

/// Why a command ended before its result.
enum Stop {
    /// The arguments cannot work: exit code 2.
    Usage(String),
    /// A check, a device or the machine failed: exit code 1.
    Failed(String),
    /// Exit code 1. The output says why.
    Reported,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error.to_string())
    }
}

/// Runs the command that `args` name and returns its exit code: 0 for success, 1 if a check or a
/// device failed, 2 for bad arguments; `watch` returns that of the program. The first of `args` is
/// the program's name.
///
/// Writes to the standard output and error of the process, and blocks until the command is done.
///
/// ```
/// assert_eq!(fencepost_cli::run(["fencepost", "devices", "--json"]), 0);
/// assert_eq!(fencepost_cli::run(["fencepost", "no-such-command"]), 2);
/// ```
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help or the version, asked for. Where it cannot be written, no message can be.
            let _ = error.print();
            return 0;
        }
        Err(error) => return end(&Stop::Usage(one_line(&error.render().to_string()))),
    };
    let result = match cli.command {
        None => run::run(&cli.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Devices(args)) => devices::run(&args),
        Some(Command::Check(args)) => check::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        #[cfg(target_os = "linux")]
        Some(Command::Watch(args)) => {
            return watch::run(&args).unwrap_or_else(|stop| end(&stop));
        }
    };
    let code = match result {
        Ok(()) => 0,
        Err(stop) => end(&stop),
    };
    work::settle();
    code
}

fn end(stop: &Stop) -> u8 {
    let (code, text) = match stop {
        Stop::Usage(text) => (2, text),
        Stop::Failed(text) => (1, text),
        Stop::Reported => return 1,
    };
    // Not `eprintln!`, which panics when stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "fencepost: {}", printable(text));
    code
}

/// clap's message in one line: the reason and the hints, without the usage.
fn one_line(rendered: &str) -> String {
    let (said, usage) = rendered
        .split_once("\nUsage: ")
        .unwrap_or((rendered, "fencepost"));
    let said = said
        .lines()
        .map(|line| line.trim().trim_start_matches("error: "))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let mut text = said.collect::<Vec<_>>().join("; ");
    // The command itself, in front of its options.
    let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    let command: Vec<_> = usage.split_whitespace().take_while(is_name).collect();
    let _ = write!(text, "; see {} --help", command.join(" "));
    // What a line with a colon introduces is in the lines behind it.
    text.replace(":; ", ": ")
}

/// Escapes control characters: names of files and devices may hold any, and a message is one line.
fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => {
                let _ = write!(line, "{}", c.escape_default());
            }
            false => line.push(c),
        }
    }
    line
}

/// Writes to stdout at once.
fn print(text: &str) -> Result<(), Stop> {
    write_to(std::io::stdout().lock(), text)
}

/// A reader that has closed the pipe is no error. The command goes on, because its exit code is a
/// result too.
fn write_to(mut out: impl Write, text: &str) -> Result<(), Stop> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Stop::Failed(format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// One JSON object on a line of its own.
fn print_json(value: &impl serde::Serialize) -> Result<(), Stop> {
    match serde_json::to_string(value) {
        Ok(text) => print(&(text + "\n")),
        Err(error) => Err(Stop::Failed(format!("cannot write the result: {error}"))),
    }
}

/// The device of this name; without a name, the one that `Device::open_best` chooses.
fn open(name: Option<&str>) -> Result<Device, Stop> {
    #[cfg(feature = "wgpu30")]
    if let Some(opened) = wgpu::open_named(name) {
        return opened;
    }
    let opened = match name {
        Some(name) => Device::open(name),
        None => Device::open_best(),
    };
    let by_variable = std::env::var_os("FENCEPOST_DEVICE").is_some_and(|named| !named.is_empty());
    opened.map_err(|error| match (&error, name) {
        (Error::UnknownDevice { .. } | Error::Unavailable { .. }, Some(_)) => {
            Stop::Usage(error.to_string())
        }
        (Error::UnknownDevice { .. } | Error::Unavailable { .. }, None) if by_variable => {
            Stop::Usage(format!("FENCEPOST_DEVICE: {error}"))
        }
        // Nobody has named a device: a driver has failed.
        _ => error.into(),
    })
}

/// Shows progress on a terminal, and nothing elsewhere. `None` where nobody knows how much there is
/// to do.
fn progress_bar(len: impl Into<Option<u64>>, template: &str) -> ProgressBar {
    let bar = match (std::io::stderr().is_terminal(), len.into()) {
        (true, Some(len)) => ProgressBar::new(len),
        (true, None) => ProgressBar::no_length(),
        (false, _) => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_finish(ProgressFinish::AndClear)
}

/// A table without lines between its cells. It is the same on a terminal and in a file, whatever
/// width the terminal reports: some report 0.
fn table<const N: usize>(header: [&str; N]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Breaks `text` at spaces into lines of at most `width` columns, where it has spaces enough.
fn wrap(text: &str, width: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        let wide = word.chars().count();
        if column > 0 {
            let fits = column + 1 + wide <= width;
            wrapped.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        wrapped.push_str(word);
        column += wide;
    }
    wrapped
}

/// Aligns the columns from the `first` on to the right.
fn align_numbers(table: &mut comfy_table::Table, first: usize) {
    for column in table.column_iter_mut().skip(first) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn no_table_of_a_help_text_is_wrapped() {
        use clap::CommandFactory as _;
        for command in Cli::command().get_subcommands() {
            let text = command.get_after_help().map(ToString::to_string);
            let table = text.iter().flat_map(|text| text.lines());
            let mut table = table.filter(|line| line.starts_with("  "));
            assert_eq!(table.find(|line| line.len() > WIDTH), None);
        }
    }

    #[test]
    fn a_closed_pipe_changes_no_exit_code() {
        struct Fails(ErrorKind);

        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        // A command returns a failure behind its last line. So the write must be no reason to stop.
        assert!(write_to(Fails(ErrorKind::BrokenPipe), "1 failed").is_ok());
        let full = write_to(Fails(ErrorKind::StorageFull), "1 failed");
        assert!(matches!(full, Err(Stop::Failed(text)) if text.contains("cannot write")));
    }

    #[test]
    fn what_is_wrong_with_the_arguments_is_one_sentence_of_clap() {
        let missing = "error: the following required arguments were not provided:\n  \
            <PROGRAM>...\n\nUsage: fencepost watch\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(missing),
            "the following required arguments were not provided: <PROGRAM>...; \
             see fencepost watch --help"
        );
        let unknown =
            "error: unexpected argument '-x' found\n\n  tip: use '--x'\n\nUsage: fencepost\n";
        assert_eq!(
            one_line(unknown),
            "unexpected argument '-x' found; tip: use '--x'; see fencepost --help"
        );
    }

    #[test]
    fn control_characters_stay_in_their_line() {
        assert_eq!(printable("a\nb\u{1b}[31mc µ"), "a\\nb\\u{1b}[31mc µ");
    }
}
