//! The test programs that cargo built, as it lists them with `--message-format=json`.

use std::path::{Path, PathBuf};

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The target's name: that of its file in `tests/`, or of the library or binary.
    pub(crate) name: String,
    /// The folder of its package, where cargo runs it.
    pub(crate) folder: PathBuf,
    pub(crate) executable: PathBuf,
}

/// Reads one line of cargo's output. `None` is a line for people; `Some(None)` is a message of
/// cargo about anything but a test program.
pub(crate) fn message(line: &str) -> Option<Option<Program>> {
    let line = line.trim();
    line.starts_with(r#"{"reason":"#)
        .then(|| test_program(line))
}

fn test_program(message: &str) -> Option<Program> {
    if !message.starts_with(r#"{"reason":"compiler-artifact""#) {
        return None;
    }
    // Cargo links tests into benchmarks too, and into targets that its manifest exempts from tests.
    let target = object(message, "target")?;
    let profile = object(message, "profile")?;
    if ![target, profile]
        .iter()
        .all(|o| o.contains(r#""test":true"#))
    {
        return None;
    }
    let manifest = PathBuf::from(text(message, "manifest_path")?);
    Some(Program {
        name: text(target, "name")?,
        folder: manifest.parent().unwrap_or(Path::new("")).to_owned(),
        // Null if nothing was linked.
        executable: text(message, "executable")?.into(),
    })
}

/// The text between the braces of a member that holds no other object.
fn object<'a>(json: &'a str, member: &str) -> Option<&'a str> {
    let start = format!(r#""{member}":{{"#);
    let (_, rest) = json.split_once(&start)?;
    rest.split_once('}').map(|(object, _)| object)
}

/// The text of the first member of this name in `json`. It reads names and paths, whose only
/// escapes are those of `\` and `"`.
fn text(json: &str, member: &str) -> Option<String> {
    let start = format!(r#""{member}":""#);
    let (_, rest) = json.split_once(&start)?;
    let mut text = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEST: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/sim#s@0.1.0","manifest_path":"/w/sim/Cargo.toml","target":{"kind":["test"],"name":"clocks","test":true},"profile":{"opt_level":"0","test":true},"filenames":["/w/t/clocks-1"],"executable":"/w/t/clocks-1","fresh":true}"#;

    #[test]
    fn a_test_program_is_known_by_its_profile() {
        let program = message(TEST).unwrap().unwrap();
        assert_eq!(program.name, "clocks");
        assert_eq!(program.folder, Path::new("/w/sim"));
        assert_eq!(program.executable, Path::new("/w/t/clocks-1"));

        let library = TEST.replace(r#""0","test":true"#, r#""0","test":false"#);
        assert_eq!(message(&library), Some(None));
        let exempt = TEST.replace(r#""clocks","test":true"#, r#""clocks","test":false"#);
        assert_eq!(message(&exempt), Some(None));
        let nothing_linked = TEST.replace(r#""/w/t/clocks-1","fresh"#, r#"null,"fresh"#);
        assert_eq!(message(&nothing_linked), Some(None));
    }

    #[test]
    fn what_is_for_people_is_no_message() {
        assert_eq!(message("   Compiling xtask v0.1.0"), None);
        let finished = r#"{"reason":"build-finished","success":true}"#;
        assert_eq!(message(finished), Some(None));
    }

    #[test]
    fn paths_may_hold_what_json_escapes() {
        let json = r#"{"executable":"C:\\w\\a \"b\".exe"}"#;
        assert_eq!(text(json, "executable").unwrap(), r#"C:\w\a "b".exe"#);
        assert_eq!(text(json, "manifest_path"), None);
        assert_eq!(text(r#"{"executable":"cut off"#, "executable"), None);
    }
}
