//! What several test files use.
#![allow(dead_code)]

/// Leaves a table for whoever runs the tests to print: the text of a passing test is not shown.
pub(crate) fn write_table(name: &str, title: &str, text: &str) {
    println!("{title}\n{text}");
    if let Some(folder) = std::env::var_os("FENCEPOST_TABLE_DIR") {
        let file = std::path::Path::new(&folder).join(format!("{name}.txt"));
        std::fs::write(file, format!("{title}\n{text}")).expect("the table folder is writable");
    }
}

/// Tells whoever runs the tests that one could not run here: the text of a passing test is not
/// shown.
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

/// Says to a child which test it is to run.
pub(crate) const CHILD: &str = "FENCEPOST_TEST_CHILD";

/// This test program again, running one test, which is told by a variable that it is the child.
pub(crate) fn child(test: &str) -> std::process::Command {
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test]).args(args);
        command
    };
    // A child that has no such test would end well.
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

/// Runs `scenario` in a process of its own: this test once more. For what a process does not
/// survive, or what leaves it changed.
pub(crate) fn in_a_process_of_its_own(scenario: impl FnOnce()) {
    if is_child() {
        return scenario();
    }
    let name = test_name();
    let mut child = child(&name).spawn().unwrap();
    // A deadline against hanging, not for speed.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(400);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if std::time::Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{name} hangs");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    assert!(status.success(), "{name}: {status}");
}
