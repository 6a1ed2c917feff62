//! Shared by several test files.
#![allow(dead_code)]

/// Leaves a table in a file for `cargo xtask test`: the output of a passing test is not shown.
pub(crate) fn write_table(name: &str, title: &str, text: &str) {
    println!("{title}\n{text}");
    if let Some(folder) = std::env::var_os("FENCEPOST_TABLE_DIR") {
        let file = std::path::Path::new(&folder).join(format!("{name}.txt"));
        std::fs::write(file, format!("{title}\n{text}")).expect("the table folder is writable");
    }
}

/// Notes in a file for `cargo xtask test` that a test cannot run here: the output of a passing test
/// is not shown.
pub(crate) fn skip(test: &str, reason: &str) {
    use std::io::Write as _;
    println!("SKIPPED: {test}: {reason}");
    if let Some(folder) = std::env::var_os("FENCEPOST_TABLE_DIR") {
        let file = std::path::Path::new(&folder).join("gpu.skip");
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .expect("the table folder is writable");
        writeln!(file, "{test}: {reason}").expect("the table folder is writable");
    }
}

/// The name of the test that this thread runs.
pub(crate) fn test_name() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

/// The variable that is set in a child process of a test.
pub(crate) const CHILD: &str = "FENCEPOST_TEST_CHILD";

/// A command that runs one test of this program in a child process.
pub(crate) fn child(test: &str) -> std::process::Command {
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test]).args(args);
        command
    };
    // A child without such a test would succeed.
    let listed = run(&["--list"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains(test),
        "no test is called {test}: with --test-threads=1 a test does not know its name"
    );
    let mut command = run(&["--nocapture", "--test-threads=1", "--include-ignored"]);
    command.env(CHILD, "1");
    command
}

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs `scenario` in a process of its own, by running this test there: for what ends a process or
/// leaves it changed.
pub(crate) fn in_a_process_of_its_own(scenario: impl FnOnce()) {
    in_a_process_with(&[], scenario);
}

/// The same, with these variables in the environment of that process.
pub(crate) fn in_a_process_with(variables: &[(&str, &str)], scenario: impl FnOnce()) {
    if is_child() {
        return scenario();
    }
    let name = test_name();
    let mut child = child(&name);
    child.envs(variables.iter().copied());
    let status = run(child);
    assert!(status.success(), "{name}: {status}");
}

/// Runs a child process of a test to its end. What it printed is a part of what this test prints,
/// with a mark before each line: a reader of the log would count its results as this program's.
pub(crate) fn run(mut child: std::process::Command) -> std::process::ExitStatus {
    let name = test_name();
    let file = format!(
        "fencepost-{}-{}",
        std::process::id(),
        name.replace("::", "-")
    );
    // Whoever outlives the child may keep the file open, while a pipe would never end.
    let file = std::env::temp_dir().join(file);
    let printed = std::fs::File::create(&file).unwrap();
    child.stdout(printed.try_clone().unwrap()).stderr(printed);
    let mut running = child.spawn().unwrap();
    drop(child);
    // Longer than what the child itself may wait for.
    let deadline = std::time::Instant::now() + fencepost_sim::HANG_TIMEOUT * 2;
    let mut hangs = false;
    let status = loop {
        if let Some(status) = running.try_wait().unwrap() {
            break status;
        }
        if !hangs && std::time::Instant::now() > deadline {
            hangs = true;
            running.kill().unwrap();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    let text = std::fs::read(&file).unwrap();
    let _ = std::fs::remove_file(&file);
    for line in String::from_utf8_lossy(&text).lines() {
        println!("| {line}");
    }
    assert!(!hangs, "{name} hangs");
    status
}

/// Sets the limit of this process's address space, and gives the old one.
#[cfg(target_os = "linux")]
pub(crate) fn limit_memory(bytes: libc::rlim_t) -> libc::rlim_t {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a place for the limit, and a limit.
    let results = unsafe {
        let asked = libc::getrlimit(libc::RLIMIT_AS, &raw mut limit);
        let new = libc::rlimit {
            rlim_cur: bytes,
            ..limit
        };
        (asked, libc::setrlimit(libc::RLIMIT_AS, &raw const new))
    };
    assert_eq!(results, (0, 0));
    limit.rlim_cur
}
