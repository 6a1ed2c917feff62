//! `cargo xtask lint`: format, lints, and the width of lines.

use std::fs;
use std::process::Command;

use crate::run::{Workspace, complain, plainly, say, shown};
use crate::steps::host::{FEATURE_SETS, library_with};

/// How many columns a line may have.
const WIDTH: usize = 100;
/// The files whose lines are measured, as patterns of git; "." is the whole tree.
const MEASURED: &[&str] = &["."];
/// Files among them that others have written, people or programs.
const NOT_MEASURED: &[&str] = &[
    ":!*.lock",
    ":!*.ptx",
    ":!*.ipynb",
    ":!*.svg",
    ":!LICENSE*",
    ":!*/LICENSE*",
    ":!fuzz/corpus",
];

/// Runs every check, even after a failure, so that one run shows everything there is to fix.
pub(crate) fn lint(w: &Workspace) -> bool {
    let mut good = true;
    for command in commands(w) {
        say(&format!("\n=== {}", shown(&command)));
        good &= plainly(command);
    }
    say(&format!("\n=== no line over {WIDTH} columns"));
    good & no_line_is_too_long(w)
}

fn commands(w: &Workspace) -> Vec<Command> {
    let mut lints = vec![
        w.cargo("fmt --all --check"),
        w.cargo("clippy --workspace --all-targets --locked"),
    ];
    // The whole workspace turns every feature on, which hides code that is unused without one.
    lints.extend(FEATURE_SETS.iter().map(|f| library_with(w, "clippy", f)));
    for clippy in &mut lints[1..] {
        clippy.args(["--", "-D", "warnings"]);
    }
    lints
}

fn no_line_is_too_long(w: &Workspace) -> bool {
    let mut list = w.command("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    list.args(MEASURED).args(NOT_MEASURED);
    let listed = match list.output() {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => {
            complain(&String::from_utf8_lossy(&output.stderr));
            return false;
        }
        Err(error) => {
            complain(&format!("{}: {error}", shown(&list)));
            return false;
        }
    };
    let mut good = true;
    for file in String::from_utf8_lossy(&listed).lines() {
        // Deleted but not yet committed, or no text.
        let Ok(text) = fs::read_to_string(w.root.join(file)) else {
            continue;
        };
        for line in long_lines(&text, file.ends_with(".md")) {
            complain(&format!("{file}:{line}: over {WIDTH} columns"));
            good = false;
        }
    }
    good
}

/// The numbers of the lines that are too long and could be broken.
fn long_lines(text: &str, markdown: bool) -> Vec<usize> {
    let numbered = text.lines().enumerate();
    let long = numbered.filter(|(_, line)| line.chars().count() > WIDTH);
    long.filter(|(_, line)| !cannot_be_broken(line, markdown))
        .map(|(i, _)| i + 1)
        .collect()
}

/// A line with a URL, a row of a table, or a string that has no place to break it.
fn cannot_be_broken(line: &str, markdown: bool) -> bool {
    line.contains("://")
        || is_row_of_a_table(line, markdown)
        || (!markdown && holds_an_unbreakable_string(line))
}

/// In Markdown, or in a comment.
fn is_row_of_a_table(line: &str, markdown: bool) -> bool {
    let line = line.trim_start();
    let text = line.trim_start_matches(['/', '!', '#']);
    let is_comment = text.len() < line.len();
    (markdown || is_comment) && text.trim_start().starts_with('|')
}

/// A raw string has no line continuation, and any other needs a space to continue at.
fn holds_an_unbreakable_string(line: &str) -> bool {
    if begins_a_raw_string(line) {
        return true;
    }
    match (line.find('"'), line.rfind('"')) {
        (Some(start), Some(end)) if start < end => !line[start..end].contains(' '),
        _ => false,
    }
}

/// An `r` at the end of a word begins none.
fn begins_a_raw_string(line: &str) -> bool {
    let starts = line.match_indices("r\"").chain(line.match_indices("r#\""));
    let mut before = starts.map(|(at, _)| line[..at].chars().next_back());
    before.any(|c| !c.is_some_and(|c| c.is_alphanumeric() || c == '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `start`, filled up to `width` columns with what may be broken.
    fn line(start: &str, width: usize) -> String {
        let filler = "é ".chars().cycle();
        let missing = width - start.chars().count();
        start.chars().chain(filler.take(missing)).collect()
    }

    #[test]
    fn columns_are_counted_and_not_bytes() {
        let text = [line("// ", WIDTH), line("// ", WIDTH + 1), line("", 3)].join("\n");
        assert_eq!(long_lines(&text, false), [2]);
    }

    #[test]
    fn a_url_and_a_row_of_a_table_stay_whole() {
        let long = |start: &str, markdown| long_lines(&line(start, WIDTH + 1), markdown).len();
        assert_eq!(long("see https://example.org/", false), 0);
        assert_eq!(long("see https://example.org/", true), 0);
        assert_eq!(long("| a row | ", true), 0);
        assert_eq!(long("/// | a row | ", false), 0);
        assert_eq!(long("# | a row | ", false), 0);
        assert_eq!(long("| a pattern | ", false), 1);
        assert_eq!(long("a sentence ", true), 1);
    }

    #[test]
    fn a_string_is_broken_at_a_space_if_it_has_one() {
        let long = |string: &str| long_lines(&format!("let text = {string};"), false).len();
        let words = "words ".repeat(20);
        assert_eq!(long(&format!("\"{words}\"")), 1);
        assert_eq!(long(&format!("r#\"{words}\"#")), 0);
        assert_eq!(long(&format!("[\"for\", \"{words}\"]")), 1);
        assert_eq!(long(&format!("\"{}\"", words.replace(' ', "_"))), 0);
    }
}
