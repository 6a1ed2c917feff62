//! Finds results in what commands print.

use std::collections::VecDeque;
use std::ops::AddAssign;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The results in one command's output.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// All `test result:` lines together.
    pub(crate) libtest: Tally,
    /// The last `N passed, N failed, N skipped` line.
    pub(crate) closing: Option<Tally>,
    pub(crate) failed_tests: Vec<String>,
    /// Ignored tests, with the reason if one was given.
    pub(crate) ignored: Vec<String>,
    /// The reasons of tests that skipped themselves while they ran.
    pub(crate) skips: Vec<String>,
    /// What failed tests printed, which libtest shows when all tests are over.
    said: Vec<(String, Tail)>,
    /// Whether the last of these is not over.
    is_saying: bool,
    /// The end of everything.
    tail: Tail,
}

/// The last lines of a text, without the frames of backtraces, which say less than the panic's
/// message in front of them.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<String>,
    in_backtrace: bool,
}

/// So many lines hold a panic with the values of a failed assertion, and some of what led to it.
const TAIL: usize = 15;

impl Tail {
    fn read(&mut self, line: &str) {
        // Tests mark so what their child processes print.
        let unmarked = line.strip_prefix("| ").unwrap_or(line);
        self.in_backtrace &= unmarked.starts_with(' ');
        self.in_backtrace |= unmarked == "stack backtrace:";
        if !self.in_backtrace && !unmarked.trim().is_empty() && !is_about_backtraces(unmarked) {
            if self.lines.len() == TAIL {
                self.lines.pop_front();
            }
            self.lines.push_back(line.trim_end().to_owned());
        }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

fn is_about_backtraces(line: &str) -> bool {
    line.starts_with("note: ") && line.contains("backtrace")
}

impl Log {
    pub(crate) fn read(&mut self, line: &str) {
        let line = without_colours(line);
        if self.read_said(&line) {
            return;
        }
        self.tail.read(&line);
        let line = line.trim();
        if let Some(results) = libtest_result(line) {
            self.libtest += results;
        } else if let Some(closing) = closing(line) {
            self.closing = Some(closing);
        } else if let Some((name, verdict)) = libtest_line(line) {
            if verdict == "FAILED" {
                self.failed_tests.push(name.to_owned());
            } else if let Some(reason) = verdict.strip_prefix("ignored") {
                self.ignored.push(format!("{name}{reason}"));
            } else if let Some(skip) = verdict.strip_prefix(SKIPPED) {
                // With one test thread, libtest leaves its line open while the test runs.
                self.skips.push(skip.to_owned());
            }
        } else if let Some(skip) = line.strip_prefix(SKIPPED) {
            self.skips.push(skip.to_owned());
        }
    }

    /// Whether the line is of what a failed test printed.
    fn read_said(&mut self, line: &str) -> bool {
        if let Some(name) = said_by(line) {
            self.said.push((name.to_owned(), Tail::default()));
            self.is_saying = true;
            return true;
        }
        self.is_saying &= line != "failures:";
        if let (true, Some((_, said))) = (self.is_saying, self.said.last_mut()) {
            said.read(line);
        }
        self.is_saying
    }

    /// The last lines that a failed test printed.
    pub(crate) fn said(&self, test: &str) -> Vec<String> {
        let said = self.said.iter().find(|(name, _)| name == test);
        said.map(|(_, said)| said.lines()).unwrap_or_default()
    }

    /// The last lines of everything.
    pub(crate) fn tail(&self) -> Vec<String> {
        self.tail.lines()
    }
}

const SKIPPED: &str = "SKIPPED: ";

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s`
fn libtest_result(line: &str) -> Option<Tally> {
    let (_verdict, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    tally(counts, "; ", "ignored")
}

/// `3 passed, 0 failed, 1 skipped`, and nothing else.
fn closing(line: &str) -> Option<Tally> {
    if line.split(", ").count() != 3 {
        return None;
    }
    tally(line, ", ", "skipped")
}

fn tally(counts: &str, separator: &str, skipped: &str) -> Option<Tally> {
    let mut counts = counts.split(separator);
    let mut next = |word| {
        let (number, found) = counts.next()?.split_once(' ')?;
        (found == word).then(|| number.parse().ok())?
    };
    Some(Tally {
        passed: next("passed")?,
        failed: next("failed")?,
        skipped: next(skipped)?,
    })
}

/// `test NAME ... VERDICT`
fn libtest_line(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

/// `---- NAME stdout ----`
fn said_by(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// CI services often ask cargo and libtest to colour their output.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // An escape sequence ends with a letter.
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Log {
        let mut log = Log::default();
        text.lines().for_each(|line| log.read(line));
        log
    }

    fn tally(passed: usize, failed: usize, skipped: usize) -> Tally {
        Tally {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn results_of_several_binaries_are_summed() {
        let log = read(
            "     Running unittests src/lib.rs (target/debug/deps/a-0)
running 3 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s
",
        );
        assert_eq!(log.libtest, tally(12, 3, 1));
    }

    #[test]
    fn coloured_results_count_too() {
        let log = read(
            "test result: \u{1b}[32mok\u{1b}(B\u{1b}[m. 4 passed; 0 failed; 0 ignored; 0 measured",
        );
        assert_eq!(log.libtest, tally(4, 0, 0));
    }

    #[test]
    fn failed_and_ignored_tests_are_named() {
        let log = read(
            "test marker::tests::completes ... ok
test marker::tests::fails ... FAILED
test slow ... ignored, needs an hour
test src/lib.rs - Device (line 12) ... ignored
",
        );
        assert_eq!(log.failed_tests, ["marker::tests::fails"]);
        assert_eq!(
            log.ignored,
            ["slow, needs an hour", "src/lib.rs - Device (line 12)"]
        );
    }

    #[test]
    fn skips_are_heard_at_a_line_start_and_on_an_open_test_line() {
        let log = read(
            "SKIPPED: two_devices: there is one
test fork ... SKIPPED: fork: no fork here
this mentions SKIPPED: in passing
",
        );
        assert_eq!(
            log.skips,
            ["two_devices: there is one", "fork: no fork here"]
        );
    }

    #[test]
    fn what_failed_tests_printed_is_kept_without_backtraces() {
        let log = read(
            "test a ... FAILED
test b ... FAILED
test c ... ok

failures:

---- a stdout ----
before
thread 'a' panicked at src/a.rs:1:2:
left: 1
stack backtrace:
   0: rust_begin_unwind
             at /rustc/panicking.rs:1:2
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.

---- b stdout ----
| stack backtrace:
|    0: rust_begin_unwind
| test b ... FAILED
| test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out

failures:
    a
    b

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out
",
        );
        let panic = "thread 'a' panicked at src/a.rs:1:2:";
        assert_eq!(log.said("a"), ["before", panic, "left: 1"]);
        assert_eq!(log.said("b").len(), 2);
        assert!(log.said("c").is_empty());
        assert_eq!(log.failed_tests, ["a", "b"]);
        assert_eq!(log.libtest, tally(1, 2, 0));
    }

    #[test]
    fn the_end_of_a_log_is_kept() {
        let mut log = Log::default();
        (0..40).for_each(|line| log.read(&format!("  \u{1b}[31mline {line}\u{1b}[m")));
        log.read("");
        let tail = log.tail();
        assert_eq!(tail.len(), TAIL);
        assert_eq!(tail.last().map(String::as_str), Some("  line 39"));
    }

    #[test]
    fn the_last_closing_line_counts() {
        let log = read("1 passed, 0 failed, 0 skipped\nmore\n41 passed, 1 failed, 2 skipped\n");
        assert_eq!(log.closing, Some(tally(41, 1, 2)));
    }

    #[test]
    fn what_only_looks_like_a_closing_line_does_not() {
        for line in [
            "41 passed, 1 failed",
            "41 passed, 1 failed, 2 skipped, 3 more",
            "about 41 passed, 1 failed, 2 skipped",
            "-1 passed, 1 failed, 2 skipped",
            "41 failed, 1 passed, 2 skipped",
        ] {
            assert_eq!(read(line).closing, None, "{line}");
        }
    }

    #[test]
    fn a_cut_off_result_line_is_not_a_result() {
        assert_eq!(
            read("test result: ok. 4 passed; 0 fai").libtest,
            tally(0, 0, 0)
        );
        assert_eq!(read("test result: ").libtest, tally(0, 0, 0));
        assert_eq!(read("\u{1b}[").libtest, tally(0, 0, 0));
    }
}
