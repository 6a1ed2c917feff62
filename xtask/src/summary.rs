//! Judges the results, and prints the summary.

use std::fmt::Write;
use std::time::Duration;

use crate::count::Tally;
use crate::run::Ended;
use crate::steps::{Count, Step};

/// How strictly skipping is judged.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    ci: bool,
    allowed: Vec<String>,
}

impl Policy {
    pub(crate) fn from_env() -> Self {
        let var = |name| std::env::var(name).unwrap_or_default();
        Self::new(&var("CI"), &var("FENCEPOST_ALLOW_SKIP"))
    }

    fn new(ci: &str, allowed: &str) -> Self {
        let names = allowed.split(',').map(str::trim);
        Self {
            ci: matches!(ci, "true" | "1"),
            allowed: names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
        }
    }

    fn allows(&self, name: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed == name)
    }
}

/// A table that a test adds to the summary.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) body: String,
}

/// One row of the summary, and what is printed about it below the rows.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    step: &'static str,
    device: &'static str,
    /// Whether there were tests to count.
    counted: bool,
    tally: Tally,
    /// The text in the row of a step that was not run.
    not_run: Option<&'static str>,
    failures: Vec<Failure>,
    skips: Vec<String>,
    pub(crate) tables: Vec<Table>,
    pub(crate) time: Duration,
}

#[derive(Debug, Default)]
struct Failure {
    what: String,
    /// The last lines that a test or a command printed.
    said: Vec<String>,
}

impl From<String> for Failure {
    fn from(what: String) -> Failure {
        let said = Vec::new();
        Failure { what, said }
    }
}

const ALLOWED: &str = "allowed by FENCEPOST_ALLOW_SKIP";

/// The outcome of a step that this machine cannot run.
pub(crate) fn not_run(step: &Step, reason: String, policy: &Policy) -> Outcome {
    let mut outcome = Outcome {
        step: step.name,
        device: step.device,
        not_run: Some("NOT RUN"),
        ..Outcome::default()
    };
    if policy.allows(step.name) {
        outcome.not_run = Some("NOT RUN (allowed by FENCEPOST_ALLOW_SKIP)");
        outcome.tally.skipped = 1;
        outcome.skips.push(reason);
    } else if policy.ci {
        outcome.tally.failed = 1;
        outcome
            .failures
            .push(format!("not run, which CI does not allow: {reason}").into());
    } else {
        outcome.tally.skipped = 1;
        outcome.skips.push(reason);
    }
    outcome
}

/// The outcome of a step whose commands have ended; `noted` are the skips that its tests left in
/// files.
pub(crate) fn judge(step: &Step, ended: &[Ended], noted: &[String], policy: &Policy) -> Outcome {
    let mut tally = Tally::default();
    let mut failures: Vec<Failure> = Vec::new();
    let mut skips: Vec<String> = Vec::new();

    for command in ended {
        let log = &command.log;
        let counted = match step.count {
            Count::Nothing => Tally::default(),
            Count::Libtest => log.libtest,
            Count::ClosingLine => log.closing.unwrap_or_default(),
            Count::EachTest => Tally {
                passed: usize::from(command.test && command.trouble.is_none()),
                ..Tally::default()
            },
        };
        tally += counted;
        failures.extend(log.failed_tests.iter().map(|test| Failure {
            what: test.clone(),
            said: log.said(test),
        }));
        let mut fails = |what| {
            let said = log.tail();
            failures.push(Failure { what, said });
        };
        match &command.trouble {
            // The build failed or a process died, so not every test printed its result.
            Some(trouble) if counted.failed == 0 => {
                tally.failed += 1;
                let colon = if command.command.is_empty() { "" } else { ": " };
                fails(format!("{trouble}{colon}{}", command.command));
            }
            _ if counted.failed > 0 && log.failed_tests.is_empty() => {
                fails(format!("{} failed: {}", counted.failed, command.command));
            }
            _ => {}
        }
        skips.extend(log.ignored.iter().map(|test| format!("ignored: {test}")));
    }
    // Before skips are subtracted: a test that skipped itself has run, too.
    if step.count != Count::Nothing && tally.passed + tally.failed == 0 {
        tally.failed += 1;
        failures.push("no test ran".to_owned().into());
    }

    let mut outcome = Outcome {
        step: step.name,
        device: step.device,
        counted: step.count != Count::Nothing,
        tally,
        failures,
        skips,
        ..Outcome::default()
    };
    let told = ended.iter().flat_map(|e| &e.log.skips).chain(noted);
    count_skips(step, &told.collect::<Vec<_>>(), policy, &mut outcome);
    outcome
}

/// Adds the skips that tests told of at run time, and takes them out of what was counted.
fn count_skips(step: &Step, told: &[&String], policy: &Policy, outcome: &mut Outcome) {
    let tally = &mut outcome.tally;
    for (at, &skip) in told.iter().enumerate() {
        // A test may both print a skip and leave it in a file.
        if told[..at].contains(&skip) {
            continue;
        }
        match step.count {
            // libtest knows no skip at run time, and counted the test as passed.
            Count::Libtest => tally.passed = tally.passed.saturating_sub(1),
            // The closing line counts it as skipped already.
            Count::ClosingLine => tally.skipped = tally.skipped.saturating_sub(1),
            Count::Nothing | Count::EachTest => {}
        }
        let test = skip.split(':').next().unwrap_or_default().trim();
        if policy.allows(step.name) || policy.allows(test) {
            tally.skipped += 1;
            outcome.skips.push(format!("{skip} ({ALLOWED})"));
        } else if policy.ci {
            tally.failed += 1;
            let failure = format!("skipped, which CI does not allow: {skip}");
            outcome.failures.push(failure.into());
        } else {
            tally.skipped += 1;
            outcome.skips.push(skip.clone());
        }
    }
}

fn total(outcomes: &[Outcome]) -> Tally {
    let mut total = Tally::default();
    for outcome in outcomes {
        total += outcome.tally;
    }
    total
}

pub(crate) fn failed(outcomes: &[Outcome]) -> bool {
    total(outcomes).failed > 0
}

pub(crate) fn closing_line(outcomes: &[Outcome]) -> String {
    let Tally {
        passed,
        failed,
        skipped,
    } = total(outcomes);
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

/// What is printed between the last step and the closing line.
pub(crate) fn render(outcomes: &[Outcome], time: Duration) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        for table in &outcome.tables {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(text, "\n=== {} ({})", table.title, outcome.step);
            let _ = writeln!(text, "{}", table.body);
        }
    }
    rows(&mut text, outcomes, time);
    let steps: Duration = outcomes.iter().map(|outcome| outcome.time).sum();
    if steps > time + Duration::from_secs(1) {
        let _ = writeln!(
            text,
            "\nSteps ran beside each other, so the total is less than the sum of their seconds."
        );
    }
    list(&mut text, "Skipped", outcomes, |outcome| {
        outcome
            .skips
            .iter()
            .map(|skip| (&**skip, &[][..]))
            .collect()
    });
    list(&mut text, "Failed", outcomes, |outcome| {
        let failures = outcome.failures.iter();
        failures.map(|f| (&*f.what, &*f.said)).collect()
    });
    text
}

/// One row for each step, and their total.
fn rows(text: &mut String, outcomes: &[Outcome], time: Duration) {
    let _ = writeln!(text, "\n=== Summary");
    let width = |header: &str, of: fn(&Outcome) -> &str| {
        let cells = outcomes.iter().map(|outcome| of(outcome).chars().count());
        cells.fold(header.len(), usize::max)
    };
    let step = width("step", |outcome| outcome.step);
    let device = width("device", |outcome| outcome.device);
    let _ = writeln!(
        text,
        "{:step$}  {:device$}  {:>7}  {:>7}  {:>7}  {:>8}",
        "step", "device", "passed", "failed", "skipped", "seconds"
    );
    for outcome in outcomes {
        let _ = write!(text, "{:step$}  {:device$}", outcome.step, outcome.device);
        let _ = match (outcome.not_run, outcome.tally) {
            (Some(not_run), _) => writeln!(text, "  {not_run}"),
            (None, tally) => {
                let [passed, failed, skipped] =
                    [tally.passed, tally.failed, tally.skipped].map(|n| {
                        if outcome.counted || n > 0 {
                            n.to_string()
                        } else {
                            "-".to_owned()
                        }
                    });
                let seconds = outcome.time.as_secs_f64();
                writeln!(
                    text,
                    "  {passed:>7}  {failed:>7}  {skipped:>7}  {seconds:>8.1}"
                )
            }
        };
    }
    let all = total(outcomes);
    let _ = writeln!(
        text,
        "{:step$}  {:device$}  {:>7}  {:>7}  {:>7}  {:>8.1}",
        "total",
        "",
        all.passed,
        all.failed,
        all.skipped,
        time.as_secs_f64()
    );
}

/// A line of a list, and the lines below it.
type Item<'a> = (&'a str, &'a [String]);

fn list(text: &mut String, title: &str, outcomes: &[Outcome], of: fn(&Outcome) -> Vec<Item<'_>>) {
    if outcomes.iter().all(|outcome| of(outcome).is_empty()) {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for outcome in outcomes {
        for (line, below) in of(outcome) {
            let _ = writeln!(text, "  {}: {line}", outcome.step);
            for line in below {
                let _ = writeln!(text, "      {line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::Log;
    use crate::steps::Lane;

    fn render(outcomes: &[Outcome]) -> String {
        super::render(outcomes, Duration::from_secs(90))
    }

    fn step(count: Count) -> Step {
        Step {
            name: "tests",
            parts: &["host"],
            device: "host",
            proves: "something",
            count,
            lane: Lane::Main,
            ready: || Ok(()),
            tasks: |_| Ok(Vec::new()),
        }
    }

    fn ended(log: &str, trouble: Option<&str>) -> Ended {
        let mut read = Log::default();
        log.lines().for_each(|line| read.read(line));
        Ended {
            command: "cargo test".to_owned(),
            test: true,
            log: read,
            trouble: trouble.map(str::to_owned),
        }
    }

    fn judged(count: Count, log: &str, trouble: Option<&str>, policy: &Policy) -> Outcome {
        judge(&step(count), &[ended(log, trouble)], &[], policy)
    }

    fn here() -> Policy {
        Policy::default()
    }

    fn ci() -> Policy {
        Policy::new("true", "")
    }

    const GOOD: &str = "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
    const NONE: &str = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out";

    #[test]
    fn good_tests_pass_and_ignored_ones_are_skipped() {
        let outcomes = [judged(Count::Libtest, GOOD, None, &ci())];
        assert_eq!(closing_line(&outcomes), "4 passed, 0 failed, 1 skipped");
        assert!(!failed(&outcomes));
    }

    #[test]
    fn a_failed_test_is_named_and_counted_once() {
        let log = "test a ... FAILED
test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        let outcomes = [judged(
            Count::Libtest,
            log,
            Some("exit status: 101"),
            &here(),
        )];
        assert_eq!(closing_line(&outcomes), "4 passed, 1 failed, 0 skipped");
        assert!(render(&outcomes).ends_with("\nFailed:\n  tests: a\n"));
    }

    #[test]
    fn what_a_failed_test_printed_stands_below_its_name() {
        let log = "test a ... FAILED
failures:
---- a stdout ----
thread 'a' panicked at src/a.rs:1:2:
too late
failures:
    a
test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        let trouble = Some("exit status: 101");
        let text = render(&[judged(Count::Libtest, log, trouble, &here())]);
        let end = "
Failed:
  tests: a
      thread 'a' panicked at src/a.rs:1:2:
      too late
";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn the_last_lines_of_a_command_that_names_no_test_stand_below_it() {
        let log = "FAILED tests/test_wait.py::test_any - TimeoutError
40 passed, 1 failed, 0 skipped";
        let text = render(&[judged(
            Count::ClosingLine,
            log,
            Some("exit status: 1"),
            &here(),
        )]);
        let end = "
  tests: 1 failed: cargo test
      FAILED tests/test_wait.py::test_any - TimeoutError
      40 passed, 1 failed, 0 skipped
";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_command_that_dies_after_good_tests_is_a_failure() {
        let outcomes = [judged(Count::Libtest, GOOD, Some("signal: 11"), &here())];
        assert_eq!(closing_line(&outcomes), "4 passed, 1 failed, 1 skipped");
        assert!(render(&outcomes).contains("tests: signal: 11: cargo test"));
    }

    #[test]
    fn running_no_test_is_a_failure() {
        for count in [Count::Libtest, Count::ClosingLine] {
            let outcomes = [judged(count, NONE, None, &here())];
            assert_eq!(closing_line(&outcomes), "0 passed, 1 failed, 0 skipped");
            assert!(render(&outcomes).contains("no test ran"));
        }
        let nothing = [judge(&step(Count::EachTest), &[], &[], &here())];
        assert!(failed(&nothing));
    }

    #[test]
    fn a_step_without_tests_counts_only_when_it_fails() {
        let good = [judged(Count::Nothing, "", None, &here())];
        assert_eq!(closing_line(&good), "0 passed, 0 failed, 0 skipped");
        let bad = [judged(Count::Nothing, "", Some("exit status: 1"), &here())];
        assert_eq!(closing_line(&bad), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn each_example_counts() {
        let both = [ended("", None), ended("", Some("exit status: 1"))];
        let outcomes = [judge(&step(Count::EachTest), &both, &[], &here())];
        assert_eq!(closing_line(&outcomes), "1 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_build_counts_only_when_it_fails() {
        let outcome = |trouble| {
            let mut build = ended("", trouble);
            build.test = false;
            let commands = [build, ended("", None)];
            closing_line(&[judge(&step(Count::EachTest), &commands, &[], &here())])
        };
        assert_eq!(outcome(None), "1 passed, 0 failed, 0 skipped");
        let broken = Some("exit status: 101");
        assert_eq!(outcome(broken), "1 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn the_total_is_what_the_clock_showed() {
        let mut outcomes = [GOOD, GOOD].map(|log| judged(Count::Libtest, log, None, &here()));
        outcomes
            .iter_mut()
            .for_each(|outcome| outcome.time = Duration::from_secs(60));
        let text = render(&outcomes);
        let total = text.lines().find(|line| line.starts_with("total")).unwrap();
        let words: Vec<_> = total.split_whitespace().collect();
        assert_eq!(words, ["total", "8", "0", "2", "90.0"]);
        assert!(text.contains("beside each other"), "{text}");
    }

    #[test]
    fn a_closing_line_is_taken_over_even_if_the_exit_code_hides_it() {
        let log = "40 passed, 2 failed, 1 skipped";
        for trouble in [None, Some("exit status: 1")] {
            let outcomes = [judged(Count::ClosingLine, log, trouble, &here())];
            assert_eq!(closing_line(&outcomes), log);
            assert!(failed(&outcomes));
            assert!(render(&outcomes).contains("tests: 2 failed: cargo test"));
        }
    }

    #[test]
    fn a_test_that_skips_itself_did_not_pass_and_fails_in_ci() {
        let log = format!("SKIPPED: fork: no fork here\n{GOOD}");
        let line = |policy| closing_line(&[judged(Count::Libtest, &log, None, &policy)]);
        assert_eq!(line(here()), "3 passed, 0 failed, 2 skipped");
        assert_eq!(line(ci()), "3 passed, 1 failed, 1 skipped");
        // By the name of the test, or of the step.
        for allowed in ["fork", "tests", "miri, fork"] {
            let policy = Policy::new("1", allowed);
            assert_eq!(line(policy), "3 passed, 0 failed, 2 skipped");
        }
        assert_eq!(
            line(Policy::new("true", "miri")),
            "3 passed, 1 failed, 1 skipped"
        );
    }

    #[test]
    fn a_skip_both_printed_and_noted_counts_once() {
        let commands = [ended(&format!("SKIPPED: fork: no\n{GOOD}"), None)];
        let noted = ["fork: no".to_owned(), "clock: none".to_owned()];
        let outcomes = [judge(&step(Count::Libtest), &commands, &noted, &here())];
        assert_eq!(closing_line(&outcomes), "2 passed, 0 failed, 3 skipped");
        let text = render(&outcomes);
        assert!(text.contains("tests: fork: no\n"), "{text}");
        assert!(text.contains("tests: clock: none\n"), "{text}");
    }

    #[test]
    fn a_skip_in_a_closing_line_is_not_counted_twice() {
        let log = "SKIPPED: fork: no\n4 passed, 0 failed, 1 skipped";
        let line = |policy| closing_line(&[judged(Count::ClosingLine, log, None, &policy)]);
        assert_eq!(line(here()), "4 passed, 0 failed, 1 skipped");
        assert_eq!(line(ci()), "4 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_step_not_run_is_skipped_here_and_fails_in_ci_unless_allowed() {
        let outcome = |policy| not_run(&step(Count::Libtest), "no nightly".to_owned(), &policy);

        let skipped = [outcome(here())];
        assert_eq!(closing_line(&skipped), "0 passed, 0 failed, 1 skipped");
        assert!(render(&skipped).contains("Skipped:\n  tests: no nightly"));

        let fatal = [outcome(ci())];
        assert_eq!(closing_line(&fatal), "0 passed, 1 failed, 0 skipped");
        assert!(render(&fatal).contains("not run, which CI does not allow: no nightly"));

        let allowed = [outcome(Policy::new("true", "tests"))];
        assert_eq!(closing_line(&allowed), "0 passed, 0 failed, 1 skipped");
        assert!(render(&allowed).contains("NOT RUN (allowed by FENCEPOST_ALLOW_SKIP)"));
    }

    #[test]
    fn only_true_and_1_mean_ci() {
        for (value, ci) in [("true", true), ("1", true), ("", false), ("false", false)] {
            assert_eq!(Policy::new(value, "").ci, ci, "{value}");
        }
    }

    #[test]
    fn the_table_is_aligned_and_fits_80_columns() {
        let mut wide = step(Count::Libtest);
        wide.name = "vulkan-tests";
        wide.device = "vulkan:llvmpipe";
        let outcomes = [
            judged(Count::Nothing, "", None, &here()),
            judge(&wide, &[ended(GOOD, None)], &[], &here()),
            not_run(&wide, String::new(), &Policy::new("", "vulkan-tests")),
        ];
        let text = render(&outcomes);
        let table: Vec<&str> = text
            .lines()
            .skip_while(|line| !line.starts_with("step"))
            .take(4)
            .collect();
        assert!(table.iter().all(|line| line.len() <= 80), "{text}");
        assert_eq!(table[0].len(), table[1].len(), "{text}");
        assert_eq!(table[0].len(), table[2].len(), "{text}");
        assert!(table[1].contains("      -        -        -"), "{text}");
    }

    #[test]
    fn tables_stand_under_their_titles() {
        let mut outcome = judged(Count::Libtest, GOOD, None, &here());
        outcome.tables.push(Table {
            title: "Mutants".to_owned(),
            body: "a  killed".to_owned(),
        });
        assert!(
            render(&[outcome]).starts_with("\n=== Mutants (tests)\na  killed\n\n=== Summary\n")
        );
    }
}
