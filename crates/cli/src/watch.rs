//! `fencepost watch`: runs a program with the library of `crates/watch` in it, and prints what that
//! reports.

mod layer;
mod trace;

use std::{
    collections::BTreeMap,
    error::Error as _,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader, Write},
    os::unix::{
        fs::MetadataExt as _,
        net::{UnixListener, UnixStream},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, getpgid, getpgrp, kill_process};
use serde_json::Value;
use signal_hook::{
    consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2},
    iterator::{SignalsInfo, exfiltrator::WithRawSiginfo},
};

use crate::{Stop, run::refuse_unwritable};

/// Signals, with who sent them.
type Signals = SignalsInfo<WithRawSiginfo>;

/// Run a CUDA or Vulkan program, unchanged, and tell what it waits for when it is stuck
///
/// A library is loaded into the program, which follows its calls of CUDA's driver by CUPTI, and
/// those of Vulkan as a layer. When nothing has moved for a while although streams or queues are
/// busy, it reports each of them with work pending, what that waits for, the end of the chain of
/// waits, and the calls that threads do not return from. The program goes on undisturbed. Reports
/// go to the standard error.
#[derive(clap::Args)]
#[command(
    override_usage = "fencepost watch [OPTIONS] -- PROGRAM [ARGUMENTS]",
    after_help = "Exit codes: that of the program, 128 and the signal's number where a signal \
    ended it; 2 bad arguments, or the program cannot be started."
)]
pub(crate) struct Args {
    /// Report when nothing has moved for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = parse_after,
        allow_negative_numbers = true)]
    after: f64,

    /// Report whenever `fencepost watch` gets this signal: USR1 or USR2
    #[arg(long, value_name = "SIGNAL", default_value = "USR1", value_parser = parse_signal)]
    on: i32,

    /// Write reports to this file instead of the standard error
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write one JSON object a line instead of text
    #[arg(long)]
    json: bool,

    /// Tell the lines of a Python program that recorded, waited and launched; a call that submits
    /// work then takes some microseconds longer
    #[arg(long)]
    lines: bool,

    /// When the program ends, write what its threads called of CUDA to this file, with waits of
    /// streams as arrows: .pftrace for Perfetto, .json for Chrome, .svg for a picture. Each further
    /// process has a file of its own beside it, with its number in the name
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

fn parse_after(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds > 0.0 => Ok(seconds),
        _ => Err("a number of seconds above 0 is needed".into()),
    }
}

fn parse_signal(text: &str) -> Result<i32, String> {
    match text.strip_prefix("SIG").unwrap_or(text) {
        "USR1" => Ok(SIGUSR1),
        "USR2" => Ok(SIGUSR2),
        _ => Err("USR1 or USR2 is needed".into()),
    }
}

/// The name of the library.
const LIBRARY: &str = "libfencepost_watch.so";
/// The variable that names it, if it is not beside this program.
const NAMED: &str = "FENCEPOST_WATCH_LIBRARY";
/// The variable by which the driver loads it.
const INJECTION: &str = "CUDA_INJECTION64_PATH";

/// Returns the program's exit code.
pub(crate) fn run(args: &Args) -> Result<u8, Stop> {
    let Some((name, arguments)) = args.program.split_first() else {
        return Err(Stop::Usage("which program?".into()));
    };
    // clap takes what it does not know for the program.
    if name.as_encoded_bytes().starts_with(b"-") {
        return Err(Stop::Usage(format!(
            "{} is no option of watch, and the program comes behind all options; \
             see fencepost watch --help",
            name.display()
        )));
    }
    let program = find(name)?;
    if std::env::var_os(INJECTION).is_some_and(|path| !path.is_empty()) {
        return Err(Stop::Usage(format!(
            "{INJECTION} is set, so another tool watches the program; unset it"
        )));
    }
    let library = library()?;
    let output = output(args.output.as_deref())?;
    args.trace.as_deref().map_or(Ok(()), refuse_unwritable)?;
    let socket = Socket::open()?;
    let layer = layer::variables(&socket.folder, &library);
    let shared = Arc::new(Shared {
        output: Mutex::new(output),
        state: Mutex::default(),
        changed: Condvar::new(),
        json: args.json,
        lost: AtomicBool::new(false),
    });
    if let Err(why) = &layer {
        shared.say("trouble", &format!("no call of Vulkan is followed: {why}"));
    }
    // All that can fail is done before the program starts, which nobody would wait for otherwise.
    // And so no signal is missed.
    let signals = Signals::new(handled(args.on));
    let signals = signals.map_err(|error| failed("signals cannot be handled", &error))?;
    let started = pass_on(signals, args.on, &shared)?;
    listen(&socket, &shared)?;
    let child = Command::new(name)
        .args(arguments)
        .env(INJECTION, &library)
        .env("LD_PRELOAD", preload(&library))
        .envs(layer.unwrap_or_default())
        .env("FENCEPOST_WATCH_SOCKET", &socket.path)
        .env("FENCEPOST_WATCH_AFTER", args.after.to_string())
        .env("FENCEPOST_WATCH_LINES", number(args.lines))
        .env("FENCEPOST_WATCH_TRACE", number(args.trace.is_some()))
        .spawn();
    let mut child = child
        .map_err(|error| Stop::Usage(format!("{} cannot be started: {error}", name.display())))?;
    let _ = started.send(Pid::from_child(&child));
    let status = child.wait();
    let status = status.map_err(|error| failed("the program cannot be waited for", &error))?;
    shared.finish(&program, &socket);
    if let Some(path) = &args.trace {
        shared.save_traces(path);
    }
    Ok(code_of(status))
}

/// A switch, as a variable of the library.
fn number(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}

/// The signals to handle. One that was ignored on entry stays so, as `nohup` and shells want it:
/// if this process handled it, the program would start with the default.
fn handled(on: i32) -> Vec<i32> {
    let ignored = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = ignored
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let ignored = ignored.unwrap_or(0);
    let mut signals = vec![SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2];
    signals.retain(|&signal| signal == on || ignored >> (signal - 1) & 1 == 0);
    signals
}

fn failed(what: &str, error: &std::io::Error) -> Stop {
    Stop::Failed(format!("{what}: {error}"))
}

/// As a shell tells it.
fn code_of(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => 128_u8.saturating_add(signal.unwrap_or(0) as u8),
    }
}

/// The program's file, as the system finds it.
fn find(name: &OsStr) -> Result<PathBuf, Stop> {
    let is_program = |path: &Path| {
        let metadata = path.metadata();
        metadata.is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
    };
    if name.as_encoded_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match (is_program(&path), path.exists()) {
            (true, _) => Ok(path),
            (false, true) => Err(Stop::Usage(format!("{} is not executable", path.display()))),
            (false, false) => Err(not_found(name)),
        };
    }
    // As the C library searches where there is no such variable.
    let folders = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    let mut paths = std::env::split_paths(&folders).map(|folder| folder.join(name));
    let found = paths.find(|path| is_program(path));
    found.ok_or_else(|| not_found(name))
}

fn not_found(name: &OsStr) -> Stop {
    match name.is_empty() {
        true => Stop::Usage("the program's name is empty".into()),
        false => Stop::Usage(format!("the program {} is not found", name.display())),
    }
}

/// The library to load: the one that is named, or beside this program.
fn library() -> Result<PathBuf, Stop> {
    if let Some(named) = std::env::var_os(NAMED).filter(|named| !named.is_empty()) {
        let path = PathBuf::from(named);
        return match path.canonicalize() {
            Ok(path) => Ok(path),
            Err(error) => Err(Stop::Usage(format!("{NAMED}, {}: {error}", path.display()))),
        };
    }
    let folder = std::env::current_exe().ok();
    let folder = folder.as_deref().and_then(Path::parent);
    let places = ["", "deps", "../lib", "../lib/fencepost"];
    let paths = places
        .iter()
        .filter_map(|place| Some(folder?.join(place).join(LIBRARY)));
    let mut paths = paths.filter_map(|path| path.canonicalize().ok());
    paths.next().ok_or_else(|| {
        Stop::Failed(format!(
            "{LIBRARY} is not beside this program, since cargo installs programs alone: pip \
             install fencepost brings both, and {NAMED} can name the library, which cargo build \
             --release -p fencepost-watch builds in fencepost's repository"
        ))
    })
}

/// The library in front of what is preloaded anyway. Without the library where its path has what
/// separates paths there: then a profiler of the program cannot share CUPTI.
fn preload(library: &Path) -> OsString {
    let others = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty());
    let path = library.as_os_str();
    if path
        .as_encoded_bytes()
        .iter()
        .any(|byte| b": ".contains(byte))
    {
        return others.unwrap_or_default();
    }
    let mut all = path.to_owned();
    if let Some(others) = others {
        all.push(":");
        all.push(others);
    }
    all
}

type Output = Box<dyn Write + Send>;

fn output(path: Option<&Path>) -> Result<Output, Stop> {
    let Some(path) = path else {
        return Ok(Box::new(std::io::stderr()));
    };
    match File::create(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(Stop::Usage(format!(
            "{} cannot be written: {error}",
            path.display()
        ))),
    }
}

/// A socket in a folder that only this user can enter.
struct Socket {
    folder: PathBuf,
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    fn open() -> Result<Socket, Stop> {
        // A socket's path has at most 107 bytes, which a temporary folder may exceed.
        let (folder, other) = (std::env::temp_dir(), Path::new("/tmp"));
        // The program may change to another folder before it uses a driver.
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let (first, second) = match layer::can_name(&folder) {
            true => (&*folder, other),
            false => (other, &*folder),
        };
        let opened = Socket::open_in(first).or_else(|_| Socket::open_in(second));
        opened.map_err(|error| failed("no socket can be opened for the reports", &error))
    }

    fn open_in(parent: &Path) -> std::io::Result<Socket> {
        let folder = parent.join(format!("fencepost-watch-{}", std::process::id()));
        private_folder(&folder)?;
        let path = folder.join("socket");
        match UnixListener::bind(&path) {
            Ok(listener) => Ok(Socket {
                folder,
                path,
                listener,
            }),
            Err(error) => {
                remove(&folder);
                Err(error)
            }
        }
    }
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;

    // Left over from a process of the same number.
    remove(folder);
    std::fs::DirBuilder::new().mode(0o700).create(folder)
}

/// Removes the folder, if it has nothing but what is put there.
fn remove(folder: &Path) {
    for name in ["socket", layer::MANIFEST] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    let _ = std::fs::remove_dir(folder);
}

impl Drop for Socket {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

/// What all threads share.
struct Shared {
    output: Mutex<Output>,
    state: Mutex<State>,
    changed: Condvar,
    json: bool,
    /// Whether it was said that a report is lost.
    lost: AtomicBool,
}

#[derive(Default)]
struct State {
    /// One for each process that uses CUDA or Vulkan now, by their order.
    connections: BTreeMap<usize, Arc<UnixStream>>,
    /// How many there were.
    seen: usize,
    reports: usize,
    /// How many processes have told of their end.
    ends: usize,
    /// Whether it was said of one that it cannot be watched.
    is_troubled: bool,
    calls: u64,
    /// Whether all have been taken that connected before the program's end.
    is_last: bool,
    /// For a trace, by connection.
    traced: BTreeMap<usize, trace::Calls>,
}

/// How long the last messages may take after the program has ended.
const LAST: Duration = Duration::from_secs(1);
/// How long the thread that takes connections may have to wait for a processor.
const STARVED: Duration = Duration::from_secs(10);
/// What this process sends to itself behind the last connection of the program.
const MARK: &str = r#"{"kind":"mark"}"#;

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines. Where that first fails, the standard error is told.
    fn write(&self, text: &str) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let written = output
            .write_all(text.as_bytes())
            .and_then(|()| output.flush());
        drop(output);
        if let Err(error) = written
            && !self.lost.swap(true, Ordering::Relaxed)
        {
            // The standard error may be what cannot be written.
            let _ = writeln!(
                std::io::stderr(),
                "fencepost watch: a report is lost: {error}"
            );
        }
    }

    fn say(&self, kind: &str, text: &str) {
        match self.json {
            true => self.write(&format!(
                "{}\n",
                serde_json::json!({ "kind": kind, "message": text })
            )),
            false => self.write(&format!("fencepost watch: {text}\n")),
        }
    }

    /// One message of a watched process.
    fn take(&self, number: usize, line: &str) {
        if line == MARK {
            let mut state = self.state();
            state.seen -= 1;
            state.is_last = true;
            return;
        }
        if line.starts_with(trace::BEGIN) {
            if let Ok(message) = serde_json::from_str(line) {
                self.state().traced.entry(number).or_default().add(message);
            }
            return;
        }
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let kind = message["kind"].as_str().unwrap_or_default();
        let content = &message["message"];
        let is_report = kind == "report" || kind == "end" && content["pending"] == true;
        {
            let mut state = self.state();
            state.calls += content["calls"].as_u64().unwrap_or(0);
            state.reports += usize::from(is_report);
            state.ends += usize::from(kind == "end");
            state.is_troubled |= kind == "trouble";
        }
        if self.json {
            self.write(&format!("{line}\n"));
        } else if is_report {
            let text = content["text"].as_str().unwrap_or_default();
            self.write(&format!("fencepost watch: {text}"));
        } else if kind == "trouble" {
            let pid = &message["pid"];
            let why = content.as_str().unwrap_or_default();
            self.say(kind, &format!("process {pid} cannot be watched: {why}"));
        }
    }

    /// Writes a file for each process of which calls are known.
    fn save_traces(&self, path: &Path) {
        let traced = std::mem::take(&mut self.state().traced);
        if traced.is_empty() {
            self.say("trace", "no trace is saved, since no call of CUDA was seen");
        }
        let traced: Vec<_> = traced.into_values().collect();
        let files = trace::files(path, &traced);
        for (calls, file) in traced.into_iter().zip(files) {
            let text = match calls.save(&file) {
                Ok(()) => format!("the trace is in {}", file.display()),
                Err(error) => {
                    let why = error
                        .source()
                        .map_or(error.to_string(), ToString::to_string);
                    format!("the trace is not saved as {}: {why}", file.display())
                }
            };
            self.say("trace", &text);
        }
    }

    /// A process has ended its connection.
    fn leaves(&self, number: usize) {
        self.state().connections.remove(&number);
        self.changed.notify_all();
    }

    /// Waits until the state is so, for a while.
    fn wait(&self, limit: Duration, is_so: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.state();
        let waited = self
            .changed
            .wait_timeout_while(state, limit, |state| !is_so(state));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Says at the end what was not said before.
    fn finish(&self, program: &Path, socket: &Socket) {
        // Connections are taken in their order, so that all of the program's are known behind one
        // that is made now, also where the program has ended before its own were taken.
        if let Ok(mut mark) = UnixStream::connect(&socket.path)
            && writeln!(mark, "{MARK}").is_ok()
        {
            drop(mark);
            drop(self.wait(STARVED, |state| state.is_last));
        }
        let state = self.wait(LAST, |state| state.connections.is_empty());
        let (seen, reports) = (state.seen, state.reports);
        let (ends, calls, is_troubled) = (state.ends, state.calls, state.is_troubled);
        drop(state);
        if seen == 0 {
            let why = cannot_be_watched(program).unwrap_or_default();
            self.say(
                "unused",
                &format!("no process was seen to use CUDA or Vulkan{why}"),
            );
        } else if reports == 0 && (calls > 0 || !is_troubled) {
            self.say("summary", &without_a_report(seen, ends, calls));
        }
    }
}

/// What is said where nothing was reported, of as many programs as were seen.
fn without_a_report(seen: usize, ends: usize, calls: u64) -> String {
    let mut said = match (ends, calls) {
        (0, _) => return "no last report was made: the program was ended, or called _exit".into(),
        (_, 0) => "nothing was stuck: no call that submits or waits was seen".into(),
        (_, 1) => "nothing was stuck, in 1 call of the driver".into(),
        (_, calls) => format!("nothing was stuck, in {calls} calls of the driver"),
    };
    if ends < seen {
        let _ = write!(
            said,
            "; {} of {seen} programs made no last report: they run on, were ended, or called _exit \
             or exec",
            seen - ends
        );
    }
    said
}

/// Why a program that uses one of them may not have been seen to.
fn cannot_be_watched(program: &Path) -> Option<&'static str> {
    let mode = program.metadata().map_or(0, |found| found.mode());
    if mode & 0o6000 != 0 {
        return Some(
            ": the program runs with another user's rights, so the system loads nothing into it",
        );
    }
    if is_static(program) {
        return Some(": the program is linked statically, so nothing can be loaded into it");
    }
    layer::is_disabled().then_some(
        ": VK_LOADER_LAYERS_DISABLE is set, by which Vulkan's loader leaves layers out, also the \
         one that watches",
    )
}

/// Whether an ELF file names no loader.
fn is_static(program: &Path) -> bool {
    const SEGMENT: usize = 56;
    const INTERPRETER: &[u8] = &[3, 0, 0, 0];
    let Ok(bytes) = std::fs::read(program) else {
        return false;
    };
    let number = |at: usize, len: usize| {
        let field = bytes.get(at..at + len)?;
        let digits = field.iter().rev();
        Some(digits.fold(0_usize, |number, &byte| number << 8 | usize::from(byte)))
    };
    // Of 64 bits, and little-endian.
    let (Some(first), Some(count)) = (number(32, 8), number(56, 2)) else {
        return false;
    };
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return false;
    }
    let segments = bytes.get(first..).unwrap_or_default();
    let mut segments = segments.chunks(SEGMENT).take(count);
    !segments.any(|segment| segment.starts_with(INTERPRETER))
}

/// How long to wait where no descriptor is left for a connection.
const FULL: Duration = Duration::from_millis(100);

/// Takes the messages of each process that connects, on threads of their own.
fn listen(socket: &Socket, shared: &Arc<Shared>) -> Result<(), Stop> {
    let listener = socket.listener.try_clone();
    let listener = listener.map_err(|error| failed("no socket", &error))?;
    let shared = shared.clone();
    let accept = move || {
        loop {
            match listener.accept() {
                Ok((stream, _)) => read_from(Arc::new(stream), &shared),
                Err(_) => std::thread::sleep(FULL),
            }
        }
    };
    spawn(accept)
}

/// Takes the messages of a process until it ends.
fn read_from(stream: Arc<UnixStream>, shared: &Arc<Shared>) {
    let number = {
        let mut state = shared.state();
        state.seen += 1;
        let number = state.seen;
        state.connections.insert(number, stream.clone());
        number
    };
    let reader = shared.clone();
    let read = move || {
        for line in BufReader::new(&*stream).lines().map_while(Result::ok) {
            reader.take(number, &line);
        }
        reader.leaves(number);
    };
    if spawn(read).is_err() {
        shared.leaves(number);
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) -> Result<(), Stop> {
    let thread = std::thread::Builder::new().spawn(body);
    let thread = thread.map_err(|error| failed("no thread can be started", &error));
    thread.map(drop)
}

/// Asks for reports on one signal, and passes the others on to the program, once it is told of it.
fn pass_on(mut signals: Signals, on: i32, shared: &Arc<Shared>) -> Result<Sender<Pid>, Stop> {
    let (started, program) = channel();
    let shared = shared.clone();
    let passes = move || {
        let Ok(pid) = program.recv() else {
            return;
        };
        for signal in &mut signals {
            // As `SI_FROMUSER` of Linux. What a terminal sends, the kernel sends to all processes
            // of its foreground's group, so also to the program, unless that has left the group.
            let is_sent_here =
                signal.si_code <= 0 || getpgid(Some(pid)).is_ok_and(|group| group != getpgrp());
            let signal = match signal.si_signo {
                signal if signal == on => {
                    for connection in shared.state().connections.values() {
                        let _ = (&**connection).write_all(b"report\n");
                    }
                    continue;
                }
                SIGTERM => Signal::TERM,
                SIGHUP => Signal::HUP,
                SIGUSR1 => Signal::USR1,
                SIGUSR2 => Signal::USR2,
                SIGINT if is_sent_here => Signal::INT,
                SIGQUIT if is_sent_here => Signal::QUIT,
                _ => continue,
            };
            let _ = kill_process(pid, signal);
        }
    };
    spawn(passes).map(|()| started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_a_program_is_not_said_to_be_well() {
        assert_eq!(
            without_a_report(1, 1, 5),
            "nothing was stuck, in 5 calls of the driver"
        );
        let said = without_a_report(3, 1, 5);
        assert!(
            said.contains("; 2 of 3 programs made no last report"),
            "{said}"
        );
        let said = without_a_report(1, 0, 0);
        assert!(said.starts_with("no last report was made"), "{said}");
    }

    #[test]
    fn a_process_that_ended_before_its_connection_was_taken_was_seen() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let socket = Socket::open_in(folder.path()).unwrap();
        let shared = Arc::new(Shared {
            output: Mutex::new(Box::new(File::create(&said).unwrap())),
            state: Mutex::default(),
            changed: Condvar::new(),
            json: false,
            lost: AtomicBool::new(false),
        });
        let mut process = UnixStream::connect(&socket.path).unwrap();
        writeln!(
            process,
            r#"{{"kind":"end","pid":1,"message":{{"calls":2}}}}"#
        )
        .unwrap();
        drop(process);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // As where all processors are busy.
                std::thread::sleep(Duration::from_millis(100));
                listen(&socket, &shared).map_err(drop).unwrap();
            });
            shared.finish(Path::new("/none"), &socket);
        });
        let said = std::fs::read_to_string(said).unwrap();
        assert_eq!(
            said,
            "fencepost watch: nothing was stuck, in 2 calls of the driver\n"
        );
    }
}
