//! The library as a layer of Vulkan: its manifest, and the variables by which Vulkan's loader finds
//! it:
//! <https://github.com/KhronosGroup/Vulkan-Loader/blob/main/docs/LoaderInterfaceArchitecture.md>.

use std::{
    ffi::{OsStr, OsString},
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

/// Whether the loader is told to leave layers out.
pub(super) fn is_disabled() -> bool {
    is_set("VK_LOADER_LAYERS_DISABLE")
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Whether the loader can be told of a folder.
pub(super) fn can_name(folder: &Path) -> bool {
    !folder.as_os_str().as_encoded_bytes().contains(&b':')
}

/// Writes the manifest into a folder, and returns the variables of the program. The error says why
/// calls of Vulkan cannot be followed, and what would help.
pub(super) fn variables(
    folder: &Path,
    library: &Path,
) -> Result<Vec<(&'static str, OsString)>, String> {
    if !can_name(folder) {
        return Err(format!(
            "Vulkan's loader cannot be told of {}, which has a colon: set TMPDIR to another folder",
            folder.display()
        ));
    }
    let Some(text) = library.to_str() else {
        return Err(format!(
            "Vulkan's loader needs a path that is text, and {} is none: move the library",
            library.display()
        ));
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
    let file = folder.join(MANIFEST);
    std::fs::write(&file, manifest.to_string()).map_err(|error| {
        format!(
            "{} cannot be written: {error}; set TMPDIR to another folder",
            file.display()
        )
    })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_the_loader_cannot_be_told_of_is_named_with_what_helps() {
        let told = variables(Path::new("/a:b"), Path::new("/library.so"));
        let told = told.unwrap_err();
        assert!(
            told.contains("/a:b, which has a colon: set TMPDIR"),
            "{told}"
        );
        let told = variables(Path::new("/none/such"), Path::new("/library.so"));
        let told = told.unwrap_err();
        assert!(
            told.starts_with("/none/such/layer.json cannot be written"),
            "{told}"
        );
    }
}
