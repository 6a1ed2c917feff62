//! objc2, dispatch2 and objc2-foundation ask the linker for `-lobjc`, `-ldispatch` and
//! `-lgnustep-base`. Every symbol that they need from there is in this crate, so the linker gets
//! empty archives by those names.

use std::error::Error;
use std::fs;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_CFG_METAL_SIM").is_none() {
        return Ok(());
    }
    let out = std::env::var("OUT_DIR")?;
    for library in ["objc", "dispatch", "gnustep-base"] {
        // the whole of an archive without members
        fs::write(Path::new(&out).join(format!("lib{library}.a")), "!<arch>\n")?;
    }
    println!("cargo::rustc-link-search=native={out}");
    Ok(())
}
