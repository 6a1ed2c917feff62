//! What the wrapper for rustc changes, and what it leaves alone. `echo` stands for rustc.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LINK: &str = "\n#[link(name = \"Metal\", kind = \"framework\")]\n";
const ONLY_ON_MACOS: &str = "any(target_os = \"macos\", target_env = \"macabi\")";

/// A folder with something like objc2-metal's source in it.
fn source(name: &str, link: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // left by an earlier run
    let _ = fs::remove_dir_all(&folder);
    let file = |path: &str, text: &str| {
        let path = folder.join("src").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    file("lib.rs", "mod generated;\n");
    file(
        "generated/mod.rs",
        &format!("//! Metal{link}extern \"C\" {{}}\n"),
    );
    file(
        "device.rs",
        &format!("#[cfg({ONLY_ON_MACOS})]\n#[cfg(not({ONLY_ON_MACOS}))]\n"),
    );
    folder
}

fn wrapper(folder: &Path, crate_name: &str, cfg: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_metal-sim-rustc"))
        .args(["echo", "--crate-name", crate_name])
        .arg(folder.join("src/lib.rs"))
        .args(["--cfg", cfg, "-C", "extra-filename=-12ab", "--out-dir"])
        .arg(folder.join("out"))
        .output()
        .unwrap()
}

fn echoed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn objc2_metal_is_compiled_from_a_copy_without_the_framework() {
    let folder = source("changed", LINK);
    let echoed = echoed(&wrapper(&folder, "objc2_metal", "metal_sim"));
    let copy = folder.join("out/objc2-metal-for-metal-sim-12ab/src");
    assert!(
        echoed.contains(copy.join("lib.rs").to_str().unwrap()),
        "{echoed}"
    );
    let generated = fs::read_to_string(copy.join("generated/mod.rs")).unwrap();
    assert!(
        generated
            .contains("#[cfg_attr(not(metal_sim), link(name = \"Metal\", kind = \"framework\"))]")
    );
    let device = fs::read_to_string(copy.join("device.rs")).unwrap();
    assert_eq!(
        device
            .matches("target_env = \"macabi\", metal_sim)")
            .count(),
        2
    );
    // the registry's own is as it was
    assert!(
        fs::read_to_string(folder.join("src/generated/mod.rs"))
            .unwrap()
            .contains(LINK)
    );
    // and a second build of the same crate overwrites the copy
    assert!(
        wrapper(&folder, "objc2_metal", "metal_sim")
            .status
            .success()
    );
}

#[test]
fn everything_else_goes_to_rustc_as_it_came() {
    let folder = source("untouched", LINK);
    for (crate_name, cfg) in [("objc2_foundation", "metal_sim"), ("objc2_metal", "loom")] {
        let echoed = echoed(&wrapper(&folder, crate_name, cfg));
        assert!(
            echoed.contains(folder.join("src/lib.rs").to_str().unwrap()),
            "{echoed}"
        );
        assert!(!folder.join("out").exists());
    }
}

#[test]
fn a_source_of_another_shape_is_an_error_that_says_so() {
    let folder = source("unknown", "\n#[link(name = \"Metal2\")]\n");
    let output = wrapper(&folder, "objc2_metal", "metal_sim");
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains("this version of objc2-metal is not known"),
        "{stderr}"
    );
}

#[test]
fn rustcs_failure_is_the_wrappers() {
    let wrapper = || Command::new(env!("CARGO_BIN_EXE_metal-sim-rustc"));
    assert_eq!(
        wrapper()
            .args(["sh", "-c", "exit 3"])
            .status()
            .unwrap()
            .code(),
        Some(3)
    );
    assert!(
        !wrapper()
            .arg("no-such-rustc-anywhere")
            .output()
            .unwrap()
            .status
            .success()
    );
    assert_eq!(wrapper().output().unwrap().status.code(), Some(2));
}
