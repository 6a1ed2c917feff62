fn main() {
    // On macOS the linker must be told that the interpreter's symbols stay undefined.
    pyo3_build_config::add_extension_module_link_args();
}
