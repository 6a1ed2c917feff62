fn main() {
    // Symbols of the interpreter stay open on macOS, as they do elsewhere without being asked.
    pyo3_build_config::add_extension_module_link_args();
}
