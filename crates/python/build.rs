fn main() {
    // Whether the interpreter has a GIL.
    pyo3_build_config::use_pyo3_cfgs();
    // On macOS the linker must be told that the interpreter's symbols stay undefined.
    pyo3_build_config::add_extension_module_link_args();
}
