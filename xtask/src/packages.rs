//! Debian's packages that some steps need.

use std::path::Path;
use std::process::Command;

use crate::run::say;

/// Whether these packages are installed. Installs what is missing where nobody has to be asked: as
/// root, on Debian.
pub(crate) fn installed(packages: &[&str]) -> Result<(), String> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let remedy = format!("apt-get install {}", missing.join(" "));
    if !cfg!(target_os = "linux") || !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!(
            "missing what Debian's packages {} hold",
            missing.join(", ")
        ));
    }
    if !is_root() {
        return Err(format!("missing packages; as root: {remedy}"));
    }
    say(&format!("$ {remedy}"));
    let apt = |arguments: &[&str]| {
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o", "DPkg::Lock::Timeout=120"])
            .args(arguments)
            .output()
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(&missing);
    // Without network the lists that are there may be enough.
    let _ = apt(&["update"]);
    match apt(&install) {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(format!("'{remedy}' failed: {}", said.trim()))
        }
        Err(error) => Err(format!("apt-get does not start: {error}")),
    }
}

fn is_installed(package: &str) -> bool {
    let status = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output();
    status.is_ok_and(|output| output.stdout == b"installed")
}

/// Root may install without asking anyone.
pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
