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

/// Tells whoever runs the tests that one could not run here: the text of a passing test is not shown.
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

/// Runs `scenario` in a process of its own: this test once more, told by a variable that it is the child.
/// For what a process does not survive, or what leaves it changed.
pub(crate) fn in_a_process_of_its_own(scenario: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return scenario();
    }
    let name = test_name();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
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
