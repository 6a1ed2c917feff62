//! The toolchains, components and targets that rustup has.

use std::process::Command;

use crate::packages::is_root;
use crate::run::{Workspace, say, shown};

pub(crate) const NIGHTLY: &str = "nightly";

/// Whether the nightly toolchain is installed with these components. Adds missing components, but
/// installs no toolchain: the owner of the machine decides that.
pub(crate) fn nightly_with(components: &[&str]) -> Result<(), String> {
    let remedy = format!(
        "rustup toolchain install {NIGHTLY} --component {}",
        components.join(",")
    );
    let list = Command::new("rustup")
        .args(["component", "list", "--installed", "--toolchain", NIGHTLY])
        .output()
        .map_err(|error| {
            format!(
                "rustup does not start ({error}); get it from https://rustup.rs, then: {remedy}"
            )
        })?;
    if !list.status.success() {
        return Err(format!("no {NIGHTLY} toolchain; install it: {remedy}"));
    }
    let installed = String::from_utf8_lossy(&list.stdout).into_owned();
    let missing = missing_components(&installed, components);
    if missing.is_empty() {
        return Ok(());
    }

    let mut add = Command::new("rustup");
    add.args(["component", "add", "--toolchain", NIGHTLY]);
    add.args(&missing);
    match add_quietly(add) {
        true => Ok(()),
        false => Err(format!(
            "{NIGHTLY} lacks {} and rustup could not add it; install it: {remedy}",
            missing.join(", ")
        )),
    }
}

/// rustup lists a component as its name, followed by a target triple where it depends on one.
fn missing_components<'a>(installed: &str, wanted: &[&'a str]) -> Vec<&'a str> {
    let has = |component: &str| {
        installed.lines().any(|line| {
            line.strip_prefix(component)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        })
    };
    wanted.iter().copied().filter(|c| !has(c)).collect()
}

/// Whether rustup has the standard library for all of these targets.
pub(crate) fn has_targets(targets: &[&str]) -> bool {
    let list = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output();
    list.is_ok_and(|list| {
        let installed = String::from_utf8_lossy(&list.stdout).into_owned();
        let has = |target: &&str| installed.lines().any(|line| line == *target);
        targets.iter().all(has)
    })
}

/// Whether rustup has them, after an attempt to add them where nobody has to be asked: in CI, and
/// as root.
pub(crate) fn bring_targets(targets: &[&str]) -> bool {
    if has_targets(targets) {
        return true;
    }
    let in_ci = std::env::var("CI").is_ok_and(|ci| matches!(&*ci, "true" | "1"));
    if !in_ci && !is_root() {
        return false;
    }
    let mut add = Command::new("rustup");
    add.args(["target", "add"]).args(targets);
    add_quietly(add)
}

/// Runs it, and shows its output only if it fails.
fn add_quietly(mut add: Command) -> bool {
    // rustup would print a stack trace for a failed download.
    add.env_remove("RUST_BACKTRACE");
    say(&format!("$ {}", shown(&add)));
    match add.output() {
        Ok(output) => {
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                said.lines().for_each(say);
            }
            output.status.success()
        }
        Err(error) => {
            say(&format!("rustup does not start: {error}"));
            false
        }
    }
}

/// The target that this machine's own toolchain builds for.
pub(crate) fn host_triple() -> Result<String, String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .map_err(|error| format!("rustc does not start: {error}"))?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .ok_or_else(|| "`rustc -vV` names no host".to_owned())
}

impl Workspace {
    /// A command of the nightly toolchain's cargo.
    pub(crate) fn nightly(&self, args: &str) -> Command {
        // Not `cargo +nightly`: under `cargo xtask` the first cargo in PATH need not be rustup's.
        let mut command = self.building("rustup");
        command.args(["run", NIGHTLY, "cargo"]);
        command.args(args.split_whitespace());
        // The cargo that runs xtask sets them, for its own toolchain.
        command.env_remove("CARGO").env_remove("RUSTC");
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_found_with_and_without_a_triple() {
        let installed = "cargo-x86_64-unknown-linux-gnu\nmiri-x86_64-unknown-linux-gnu\nrust-src\n";
        assert!(missing_components(installed, &["miri", "rust-src"]).is_empty());
        assert_eq!(missing_components("cargo\n", &["miri"]), ["miri"]);
        assert_eq!(missing_components("mirinda\n", &["miri"]), ["miri"]);
    }
}
