//! A `RUSTC_WRAPPER` for builds with `--cfg metal_sim`: it lets rustc compile objc2-metal where
//! there is no Metal.
//!
//! objc2-metal 0.3 links the framework whatever the target is, and off Apple rustc rejects that
//! (E0455). It also keeps `MTLCopyAllDevices` to macOS. No setting of cargo reaches into a
//! dependency's source, and a `[patch]` would change Cargo.lock for everybody. So when that one
//! crate is compiled, a copy of its source with those two places changed is compiled instead;
//! everything else goes to rustc as it came. It uses no network and writes only beside cargo's
//! output.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

/// The changes to the source. If a text is not there as often as it should be, the build fails: a
/// person has to look at that version of objc2-metal.
const CHANGES: &[Change] = &[
    Change {
        file: "generated/mod.rs",
        from: "\n#[link(name = \"Metal\", kind = \"framework\")]\n",
        to: "\n#[cfg_attr(not(metal_sim), link(name = \"Metal\", kind = \"framework\"))]\n",
        times: 1,
    },
    Change {
        file: "device.rs",
        from: "any(target_os = \"macos\", target_env = \"macabi\")",
        to: "any(target_os = \"macos\", target_env = \"macabi\", metal_sim)",
        times: 2,
    },
];

struct Change {
    file: &'static str,
    from: &'static str,
    to: &'static str,
    times: usize,
}

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.is_empty() {
        eprintln!(
            "metal-sim-rustc: cargo runs this as RUSTC_WRAPPER, with rustc and its arguments"
        );
        return ExitCode::from(2);
    }
    if is_for_the_stand_in(&arguments)
        && let Err(why) = replace_source(&mut arguments)
    {
        eprintln!("metal-sim-rustc: {why}");
        return ExitCode::FAILURE;
    }
    match Command::new(&arguments[0]).args(&arguments[1..]).status() {
        // killed by a signal: cargo only looks for success
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("metal-sim-rustc: cannot run {:?}: {error}", arguments[0]);
            ExitCode::FAILURE
        }
    }
}

/// The value that follows an option.
fn value<'a>(arguments: &'a [OsString], option: &str) -> Option<&'a OsStr> {
    let place = arguments.iter().position(|argument| argument == option)?;
    Some(arguments.get(place + 1)?.as_os_str())
}

fn is_for_the_stand_in(arguments: &[OsString]) -> bool {
    value(arguments, "--crate-name").is_some_and(|name| name == "objc2_metal")
        && arguments
            .windows(2)
            .any(|pair| pair[0] == "--cfg" && pair[1] == "metal_sim")
}

fn replace_source(arguments: &mut [OsString]) -> Result<(), String> {
    let out = PathBuf::from(value(arguments, "--out-dir").ok_or("rustc got no --out-dir")?);
    // two builds of the crate with different features must not write to one folder
    let name = arguments
        .iter()
        .filter_map(|argument| argument.to_str()?.strip_prefix("extra-filename="))
        .next_back()
        .unwrap_or_default()
        .to_owned();
    let root = arguments
        .iter_mut()
        .find(|argument| Path::new(argument).ends_with("src/lib.rs"))
        .ok_or("rustc got no src/lib.rs of objc2-metal")?;
    let source = Path::new(&*root)
        .parent()
        .ok_or("src/lib.rs has no folder")?
        .to_owned();
    let package = out.join(format!("objc2-metal-for-metal-sim{name}"));
    let copy = package.join("src");
    if package.exists() {
        fs::remove_dir_all(&package).map_err(|error| message(&package, &error))?;
    }
    copy_folder(&source, &copy)?;
    // the crate's documentation includes it
    let readme = source.join("../README.md");
    if readme.exists() {
        copy_file(&readme, &package.join("README.md")).map_err(|error| message(&readme, &error))?;
    }
    for change in CHANGES {
        let file = copy.join(change.file);
        let text = fs::read_to_string(&file).map_err(|error| message(&file, &error))?;
        let times = text.matches(change.from).count();
        if times != change.times {
            return Err(format!(
                "{}: {:?} is there {times} times, not {}: this version of objc2-metal is not known",
                file.display(),
                change.from,
                change.times
            ));
        }
        let changed = text.replace(change.from, change.to);
        file.metadata()
            .and_then(|data| write_aged(&file, changed.as_bytes(), data.modified()?))
            .map_err(|error| message(&file, &error))?;
    }
    *root = copy.join("lib.rs").into_os_string();
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|error| message(to, &error))?;
    for entry in fs::read_dir(from).map_err(|error| message(from, &error))? {
        let path = entry.map_err(|error| message(from, &error))?.path();
        let copy = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &copy)?;
        } else {
            copy_file(&path, &copy).map_err(|error| message(&path, &error))?;
        }
    }
    Ok(())
}

/// Writes a new file: `fs::copy` would copy the permissions, and a registry's files may be
/// read-only.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    write_aged(to, &fs::read(from)?, from.metadata()?.modified()?)
}

/// Gives the file the age of its original: cargo builds a crate again if a source is younger than
/// the last build.
fn write_aged(file: &Path, bytes: &[u8], age: SystemTime) -> io::Result<()> {
    let mut file = fs::File::create(file)?;
    file.write_all(bytes)?;
    file.set_modified(age)
}

fn message(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}
