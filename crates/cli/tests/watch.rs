//! `fencepost watch` with programs that are stuck, on the stand-in for CUDA's driver and CUPTI.
#![cfg(target_os = "linux")]

#[path = "watch/cuda.rs"]
mod cuda;
#[path = "watch/programs.rs"]
mod programs;
#[path = "watch/running.rs"]
mod running;
#[path = "watch/trace.rs"]
mod trace;

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use programs::{Gpu, HOLDS_CUPTI, OTHERS, PROGRAMS};
use running::{
    CODE, DEADLINE, PROGRAM, STOP, ended, library, start, this_program, wait_for, watch,
    with_program,
};

/// No test, but the program that the tests watch: this executable again.
#[test]
fn the_program() {
    let all = PROGRAMS.iter().chain(OTHERS);
    running::be_the_program(all, Gpu::open, |code| std::process::exit(code));
}

#[test]
fn a_stuck_program_is_explained() {
    running::explained(PROGRAMS);
    assert!(PROGRAMS.len() >= 20);
}

#[test]
fn a_program_that_is_not_stuck_goes_on_and_its_exit_code_is_passed_through() {
    let folder = tempfile::tempdir().unwrap();
    for (name, code) in [
        ("ends_well", 0),
        ("destroys_busy_streams", 0),
        ("closes_everything", 3),
        ("forks", 4),
    ] {
        let options = ["--after", "0.5"];
        let ended = ended(&mut with_program(folder.path(), &options, name));
        assert_eq!(ended.0, Some(code), "{name}: {}", ended.1);
        assert!(!ended.1.contains("pending"), "{name}: {}", ended.1);
        if name == "ends_well" {
            assert!(ended.1.contains("nothing was stuck, in "), "{}", ended.1);
        }
    }
}

#[test]
fn a_program_without_cuda_is_said_to_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = ended(&mut watch(folder.path(), &[], &["sh", "-c", "exit 5"]));
    assert_eq!(code, Some(5));
    assert_eq!(
        said,
        "fencepost watch: no process was seen to use CUDA or Vulkan"
    );
    let (code, _) = ended(&mut watch(
        folder.path(),
        &[],
        &["sh", "-c", "kill -TERM $$"],
    ));
    assert_eq!(code, Some(128 + 15));
}

#[test]
fn a_program_that_the_library_does_not_reach_is_not_said_to_use_no_cuda() {
    let folder = tempfile::tempdir().unwrap();
    let driver = library("fencepost_sim_cuda");
    let variables = [
        format!("{PROGRAM}=ends_well"),
        format!("{STOP}=/nowhere/stop"),
        format!("FENCEPOST_CUDA_LIBRARY={}", driver.to_str().unwrap()),
    ];
    let program = this_program();
    let words = ["env", "-i"].into_iter();
    let words = words.chain(variables.iter().map(String::as_str));
    let words: Vec<_> = words.chain(program.iter().map(String::as_str)).collect();
    let (code, said) = ended(&mut watch(folder.path(), &[], &words));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        said,
        "fencepost watch: no process was seen to use CUDA or Vulkan"
    );
}

#[test]
fn a_long_temporary_folder_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("a_long_name".repeat(15));
    std::fs::create_dir(&long).unwrap();
    let (code, said) = ended(&mut watch(&long, &[], &["sh", "-c", "exit 5"]));
    assert_eq!(code, Some(5), "{said}");
    assert_eq!(std::fs::read_dir(&long).unwrap().count(), 0);
}

#[test]
fn a_relative_temporary_folder_is_found_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let program = this_program();
    let words = ["env", "-C", "/"].into_iter();
    let words: Vec<_> = words.chain(program.iter().map(String::as_str)).collect();
    let mut command = watch(folder.path(), &[], &words);
    command
        .current_dir(folder.path())
        .env("TMPDIR", ".")
        .env(PROGRAM, "ends_well");
    let (code, said) = ended(&mut command);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("nothing was stuck, in "), "{said}");
}

#[test]
fn the_other_signal_for_users_reaches_the_program() {
    for (on, signal) in [("USR1", libc::SIGUSR2), ("USR2", libc::SIGUSR1)] {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let script = "trap 'exit 9' USR1 USR2; echo > \"$1\"; while :; do sleep 0.02; done";
        let program = ["sh", "-c", script, "sh", ready.to_str().unwrap()];
        let mut child = watch(folder.path(), &["--on", on], &program)
            .spawn()
            .unwrap();
        wait_for_file(&ready);
        // SAFETY: the process is our child, which was not waited for
        unsafe { libc::kill(child.id() as i32, signal) };
        assert_eq!(child.wait().unwrap().code(), Some(9));
    }
}

/// A program that counts interrupts from its first on, and ends with their number and 20.
const COUNTS_INTERRUPTS: &str = "n=20; trap 'n=$((n + 1))' INT QUIT; echo > \"$1\"; \
    while [ $n = 20 ]; do sleep 0.02; done; sleep 0.5; exit $n";

/// Sets the signals to their defaults, whoever ignored them.
fn with_default_signals(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;

    let reset = || {
        for signal in [libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: it sets no handler
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec, only `signal` is called, which is permitted there
    unsafe { command.pre_exec(reset) };
}

fn wait_for_file(file: &Path) {
    let begun = Instant::now();
    while !file.exists() {
        assert!(begun.elapsed() < DEADLINE, "no {}", file.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupt_that_a_process_sends_reaches_the_program() {
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let program = ["sh", "-c", COUNTS_INTERRUPTS, "sh", ready.to_str().unwrap()];
        let mut command = watch(folder.path(), &[], &program);
        with_default_signals(&mut command);
        let mut child = command.spawn().unwrap();
        wait_for_file(&ready);
        // SAFETY: the process is our child, which was not waited for
        unsafe { libc::kill(child.id() as i32, signal) };
        assert_eq!(child.wait().unwrap().code(), Some(21));
    }
}

/// Types Ctrl-C while the program runs, and returns how `fencepost watch` has ended. `before` is
/// what starts the program.
fn interrupted_at_a_terminal(before: &[&str]) -> Option<i32> {
    use std::os::{fd::FromRawFd as _, unix::process::CommandExt as _};

    let (mut terminal, mut end) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: the pointers are to descriptors, or null, which the function permits
    let code = unsafe {
        libc::openpty(
            &raw mut terminal,
            &raw mut end,
            null,
            null.cast(),
            null.cast(),
        )
    };
    assert_eq!(code, 0);
    // SAFETY: the descriptors are new, and nobody else's
    let (mut terminal, end) = unsafe {
        (
            std::fs::File::from_raw_fd(terminal),
            std::fs::File::from_raw_fd(end),
        )
    };
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    let program = ["sh", "-c", COUNTS_INTERRUPTS, "sh", ready.to_str().unwrap()];
    let mut command = watch(folder.path(), &[], &[before, &program].concat());
    command.stdin(end);
    with_default_signals(&mut command);
    let controls = || {
        // SAFETY: the process is new, and its standard input a terminal
        unsafe {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
        }
        Ok(())
    };
    // SAFETY: between fork and exec, only system calls are made
    unsafe { command.pre_exec(controls) };
    let mut child = command.spawn().unwrap();
    wait_for_file(&ready);
    std::io::Write::write_all(&mut terminal, b"\x03").unwrap();
    child.wait().unwrap().code()
}

#[test]
fn an_interrupt_of_the_terminal_reaches_the_program_once() {
    assert_eq!(interrupted_at_a_terminal(&[]), Some(21));
}

#[test]
fn an_interrupt_of_the_terminal_reaches_a_program_that_has_left_it() {
    assert_eq!(interrupted_at_a_terminal(&["setsid"]), Some(21));
}

#[test]
fn processes_that_come_and_go_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = with_program(folder.path(), &[], "comes_and_goes");
    let (code, said) = ended(&mut command);
    assert_eq!(code, Some(6), "{said}");
}

#[test]
fn the_program_ignores_the_signals_that_were_ignored_on_entry() {
    use std::os::unix::process::CommandExt as _;

    let ignored = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];
    let folder = tempfile::tempdir().unwrap();
    let program = ["grep", "SigIgn", "/proc/self/status"];
    let mut command = watch(folder.path(), &[], &program);
    let ignore = move || {
        for signal in ignored {
            // SAFETY: it sets no handler
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec, only `signal` is called, which is permitted there
    unsafe { command.pre_exec(ignore) };
    let output = command.output().expect("fencepost starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let mask = said.split_whitespace().last().unwrap_or_default();
    let mask = u64::from_str_radix(mask, 16).expect("the signals that it ignores");
    for signal in ignored {
        assert_ne!(mask & 1 << (signal - 1), 0, "{signal}: {said}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_said_to_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--output", "/dev/full"];
    let (code, said) = ended(&mut watch(folder.path(), &options, &["sh", "-c", "exit 5"]));
    assert_eq!(code, Some(5));
    assert!(
        said.lines().count() == 1 && said.contains("a report is lost: "),
        "{said}"
    );
}

#[test]
fn without_cupti_one_line_says_so_and_the_program_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = with_program(folder.path(), &[], "ends_well");
    command.env("FENCEPOST_CUPTI_LIBRARY", "/nowhere/libcupti.so");
    let (code, said) = ended(&mut command);
    assert_eq!(code, Some(0));
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("cannot be watched: libcupti was not found"),
        "{said}"
    );
}

#[test]
fn where_another_tool_holds_cupti_one_line_says_so_and_the_program_runs_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = with_program(folder.path(), &[], "ends_well");
    command.env(HOLDS_CUPTI, "1");
    let (code, said) = ended(&mut command);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("cannot be watched: another tool holds CUPTI"),
        "{said}"
    );
}

#[test]
fn work_that_is_pending_at_the_end_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--after", "3600"];
    let mut command = with_program(folder.path(), &options, "ends_with_work");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(8));
    let said = String::from_utf8_lossy(&output.stderr);
    for told in [
        "fencepost watch: at the end: process ",
        "stream 1 of cuda:0: 2 pieces of work pending, 0 of 0 markers complete",
        "waits for a value in memory (cuStreamWaitValue)",
    ] {
        assert!(said.contains(told), "no \"{told}\" in: {said}");
    }
}

/// Threads submit, make and destroy what they like, and calls fail, while reports are asked for all
/// the time. The program ends with 1 where the library has asked the driver for what was destroyed.
#[test]
fn a_program_of_any_schedule_and_with_failing_calls_is_not_disturbed() {
    std::thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn(move || {
                let folder = tempfile::tempdir().unwrap();
                let options = ["--after", "0.05", "--output", "/dev/null"];
                let mut command = with_program(folder.path(), &options, "does_anything");
                command.env("FENCEPOST_SIM_SEED", seed.to_string());
                let output = command.output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(0), "seed {seed}: {said}");
            });
        }
    });
}

#[test]
fn a_program_into_which_nothing_can_be_loaded_is_told_why() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let other_rights = std::fs::copy("/bin/true", &program).and_then(|_| {
        let mode = std::fs::Permissions::from_mode(0o4755);
        std::fs::set_permissions(&program, mode)
    });
    other_rights.unwrap();
    let path = program.to_str().unwrap();
    let (code, said) = ended(&mut watch(folder.path(), &[], &[path]));
    assert!(
        code == Some(0) && said.contains("runs with another user's rights"),
        "{said}"
    );
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_program_that_is_linked_statically_is_told_so() {
    use std::os::unix::fs::PermissionsExt as _;

    /// Where it is in memory, behind its header and its one segment's.
    const START: u64 = 0x40_0000;
    /// `exit(21)`
    const CODE: &[u8] = &[0xbf, 21, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    let half = |file: &mut Vec<u8>, number: u16| file.extend(number.to_le_bytes());
    let long = |file: &mut Vec<u8>, number: u64| file.extend(number.to_le_bytes());
    // An executable file of x86-64.
    half(&mut file, 2);
    half(&mut file, 62);
    file.extend(1_u32.to_le_bytes());
    for number in [START + 120, 64, 0] {
        long(&mut file, number);
    }
    file.extend(0_u32.to_le_bytes());
    for number in [64, 56, 1, 64, 0, 0] {
        half(&mut file, number);
    }
    // A segment to load, to be read and executed.
    file.extend(1_u32.to_le_bytes());
    file.extend(5_u32.to_le_bytes());
    let len = 120 + CODE.len() as u64;
    for number in [0, START, START, len, len, 0x1000] {
        long(&mut file, number);
    }
    file.extend(CODE);
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::fs::write(&program, file).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = program.to_str().unwrap();
    let (code, said) = ended(&mut watch(folder.path(), &[], &[path]));
    assert!(
        code == Some(21) && said.contains("is linked statically"),
        "{code:?}, {said}"
    );
}

#[test]
fn bad_arguments_get_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (options, program, told) in [
        (&["--after", "0"][..], "true", "a number of seconds above 0"),
        (&["--after", "-1"], "true", "a number of seconds above 0"),
        (&["--on", "KILL"], "true", "USR1 or USR2"),
        (
            &["--output", "/nowhere/report"],
            "true",
            "cannot be written",
        ),
        (
            &[],
            "no-such-program",
            "the program no-such-program is not found",
        ),
        (&[], "./Cargo.toml", "./Cargo.toml is not executable"),
        (&[], "./nowhere", "the program ./nowhere is not found"),
        (
            &["--device", "host"],
            "true",
            "--device is no option of watch, and the program comes behind all options; \
             see fencepost watch --help",
        ),
        (&[], "", "the program's name is empty"),
        (
            &["--trace", "/nowhere/x.json"],
            "true",
            "cannot write /nowhere/x.json",
        ),
        (&["--trace", "x.txt"], "true", "names no format of a trace"),
    ] {
        let (code, said) = ended(&mut watch(folder.path(), options, &[program]));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.lines().count() == 1 && said.contains(told), "{said}");
    }
    let mut command = watch(folder.path(), &[], &["true"]);
    command.env("CUDA_INJECTION64_PATH", "/other/tool.so");
    let (code, said) = ended(&mut command);
    assert!(code == Some(2) && said.contains("another tool"), "{said}");
    let (code, said) = ended(&mut watch(folder.path(), &[], &[]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("not provided: <PROGRAM>...; see "), "{said}");
}

#[test]
fn a_program_that_cannot_be_watched_for_want_of_descriptors_is_not_started() {
    let folder = tempfile::tempdir().unwrap();
    for descriptors in 3..16 {
        let ran = folder.path().join(descriptors.to_string());
        let mut command = watch(folder.path(), &[], &["touch", ran.to_str().unwrap()]);
        let limit = libc::rlimit {
            rlim_cur: descriptors,
            rlim_max: descriptors,
        };
        let lower = move || {
            // SAFETY: the pointer is to a limit
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
            Ok(())
        };
        // SAFETY: between fork and exec, only `setrlimit` is called, which is permitted there
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, lower) };
        let Ok(output) = command.output() else {
            continue;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(0) {
            assert!(!ran.exists(), "{descriptors}: {said}");
        }
    }
}

#[test]
fn without_the_library_the_message_says_where_to_get_it() {
    let exe = Path::new(env!("CARGO_BIN_EXE_fencepost"));
    let folder = tempfile::tempdir_in(exe.parent().unwrap()).unwrap();
    let alone = folder.path().join("fencepost");
    std::fs::hard_link(exe, &alone).unwrap();
    let mut command = Command::new(alone);
    command
        .args(["watch", "--", "true"])
        .env_remove("FENCEPOST_WATCH_LIBRARY");
    let (code, said) = ended(&mut command);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.lines().count() == 1 && said.contains("pip install fencepost"),
        "{said}"
    );
}

#[test]
fn a_report_is_made_on_the_signal_and_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report");
    let output = file.to_str().unwrap();
    let program = PROGRAMS
        .iter()
        .find(|program| program.name == "chain")
        .unwrap();
    let options = ["--after", "3600", "--json", "--output", output];
    let mut child = start(folder.path(), &options, program);
    let begun = Instant::now();
    // Before fencepost handles the signal, it would be ended by it.
    wait_for(&file, &["\"start\""]).unwrap();
    while !std::fs::read_to_string(&file)
        .unwrap_or_default()
        .contains("stuck is stream 1")
    {
        assert!(begun.elapsed() < DEADLINE, "no report");
        // SAFETY: the process is our child, which was not waited for
        unsafe { libc::kill(child.id() as i32, libc::SIGUSR1) };
        std::thread::sleep(Duration::from_millis(100));
    }
    std::fs::write(folder.path().join("stop"), "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(CODE));
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let messages: Vec<serde_json::Value> = lines.collect();
    // An earlier signal may have come before the program submitted all of it.
    let tells_all = |message: &&serde_json::Value| {
        let text = message["message"]["text"].as_str().unwrap_or_default();
        message["kind"] == "report" && text.contains("stuck is stream 1")
    };
    let report = messages.iter().find(tells_all).unwrap();
    let streams = &report["message"]["report"]["streams"];
    assert_eq!(streams.as_array().unwrap().len(), 3);
    assert_eq!(streams[0]["stream"], "stream 1 of cuda:0");
    let handle = streams[0]["handle"].as_str().unwrap();
    assert!(handle.starts_with("0x") && handle != "0x0", "{handle}");
    assert_eq!(
        streams[2]["waits_for"],
        "waits for marker 1 of stream 2 of cuda:0"
    );
    assert_eq!(messages.last().unwrap()["kind"], "end");
}

/// The version of a Python, if there is one of this name.
fn version(python: &str) -> Option<(u32, u32)> {
    let print = "import sys; print(*sys.version_info[:2])";
    let output = Command::new(python).args(["-c", print]).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let (major, minor) = said.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn lines_of_a_python_program_are_told_where_they_are_asked_for() {
    if version("python3").is_none() {
        return skipped("lines_of_a_python_program_are_told_where_they_are_asked_for");
    }
    // Others tell theirs in other ways, or not at all.
    for python in ["python3", "python3.10", "python3.13"] {
        if let Some(version) = version(python) {
            lines_are_told(python, version);
        }
    }
}

fn lines_are_told(python: &str, version: (u32, u32)) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report");
    let output = file.to_str().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/watch/lines.py");
    let options = ["--after", "0.5", "--lines", "--output", output];
    let mut command = watch(folder.path(), &options, &[python, script]);
    let mut child = command.spawn().unwrap();
    let lines = [
        "lines.py:24: ".to_owned(),
        format!("waits for marker 1 of stream 1 of cuda:0, recorded at {script}:31"),
        format!("told to at {script}:41"),
        format!("last submitted: kernel fencepost_spin, submitted at {script}:37"),
    ];
    let told = match version {
        (3, 11..=13) => wait_for(&file, &lines.each_ref().map(|line| &**line)),
        _ => wait_for(&file, &["Note: this Python does not tell its lines"]),
    };
    std::fs::write(folder.path().join("stop"), "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(CODE));
    told.unwrap();
}

/// Says in the summary of the tests that this one could not run.
fn skipped(test: &str) {
    if let Some(folder) = std::env::var_os("FENCEPOST_TABLE_DIR") {
        let line = format!("{test}: there is no python3\n");
        std::fs::write(Path::new(&folder).join("watch-lines.skip"), line).unwrap();
    }
}
