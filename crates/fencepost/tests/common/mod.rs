//! What several test files use.
#![allow(dead_code)]

/// Leaves a table for whoever runs the tests to print: the text of a passing test is not shown.
pub(crate) fn write_table(name: &str, title: &str, text: &str) {
    println!("{title}\n{text}");
    if let Some(folder) = std::env::var_os("FENCEPOST_TABLE_DIR") {
        let file = std::path::Path::new(&folder).join(format!("{name}.txt"));
        std::fs::write(file, format!("{title}\n{text}")).expect("the table folder is writable");
    }
}
