//! The library as a layer of Vulkan: its manifest, and the variables by which Vulkan's loader finds
//! it:
//! <https://github.com/KhronosGroup/Vulkan-Loader/blob/main/docs/LoaderInterfaceArchitecture.md>.

use std::{
    ffi::{OsStr, OsString},
    io::Result,
    path::Path,
};

/// The manifest's file.
pub(super) const MANIFEST: &str = "layer.json";
/// The layer's name.
const NAME: &str = "VK_LAYER_FENCEPOST_watch";

/// Where the loader looks for layers, and only there.
const ONLY: &str = "VK_LAYER_PATH";
/// Where it looks too, from its version 1.3.207 on, unless `ONLY` is set.
const TOO: &str = "VK_ADD_LAYER_PATH";
/// The layers that it loads into every program.
const LAYERS: &str = "VK_INSTANCE_LAYERS";

/// Writes the manifest into a folder, and returns the variables of the program. There are none
/// where the library's path is no text, which a manifest must be.
pub(super) fn variables(folder: &Path, library: &Path) -> Result<Vec<(&'static str, OsString)>> {
    let Some(text) = library.to_str() else {
        return Ok(Vec::new());
    };
    let manifest = serde_json::json!({
        "file_format_version": "1.2.0",
        "layer": {
            "name": NAME,
            "type": "INSTANCE",
            "library_path": text,
            "api_version": "1.4.0",
            "implementation_version": "1",
            "description": "Tells what the program waits for when it is stuck",
        },
    });
    std::fs::write(folder.join(MANIFEST), manifest.to_string())?;
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let path = if is_set(ONLY) { ONLY } else { TOO };
    Ok(vec![
        (path, in_front(folder.as_os_str(), path)),
        (LAYERS, in_front(OsStr::new(NAME), LAYERS)),
    ])
}

/// The entry in front of those that the variable has.
fn in_front(entry: &OsStr, variable: &str) -> OsString {
    let mut all = entry.to_owned();
    if let Some(others) = std::env::var_os(variable).filter(|others| !others.is_empty()) {
        all.push(":");
        all.push(others);
    }
    all
}
