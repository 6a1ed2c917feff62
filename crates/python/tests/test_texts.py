"""The texts of the library's errors speak of what Python has.

What a text says to programs in Rust, ``TERMS`` in ``src/error.rs`` replaces. Here every text in the
library's source is read, after those replacements, for words that only Rust has.
"""

import re
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[1]
LIBRARY = PYTHON.parent / "fencepost" / "src"

# Paths, and names of what Python lacks or calls by another name.
OF_RUST = re.compile(
    r"\w::\w|record_timed|with_timing|_timeout\(|submitted\(\)|\belapsed\(\)|from_raw|_into\b|"
    r"panick|try_launch|exec\(\)|cargo|\breserv|\b(Arc|Instant|Duration|HostOptions|unwrap)\b"
)

# Folders whose texts reach no program in Python: tests, pages for Rust programs, and a backend that
# the package is built without, since its devices are objects of Rust programs.
NOT_FOR_PYTHON = {"testing", "guide", "wgpu30"}

# Why a text that has such a word never reaches a program in Python. By a part of it.
UNREACHED = {
    "has no timing; make it with": "in_python_terms() has a text of its own",
    "call submitted() on its reservation": "NotSubmitted: programs have no reservations",
    "its reservation dropped without submitted()": "Abandoned: programs have no reservations",
    "a reservation that is dropped": "for the compiler of Rust programs",
    "a completion callback panicked": "an exception in a callback goes to sys.unraisablehook",
    "launched at {at} panicked": "an exception in launched work is one that it raised",
    "mark your command buffers with metal::": "Python wraps no queue of Metal",
    "let QueueLock::locked call": "Python gives no lock of its own for a queue",
    "pass yours to fencepost::wgpu30::stream": "the package is built without wgpu",
    "build with the cargo feature": "the package is built with every backend",
}


def literals(source):
    """The texts in the source of a module, with the parts that format! fills in as they stand."""
    # Tests are at the end of a file.
    source = re.split(r"\n#\[cfg\((?:all\()?(?:test|loom)", source)[0]
    source = re.sub(r"^\s*//.*$", "", source, flags=re.MULTILINE)
    for literal in re.finditer(r'"((?:[^"\\]|\\.)*)"', source, flags=re.DOTALL):
        text = re.sub(r"\\\n\s*", "", literal[1]).replace('\\"', '"')
        if " " in text:
            yield text


def terms():
    table = (PYTHON / "src" / "error.rs").read_text().split("const TERMS")[1].split("];")[0]
    pairs = re.findall(r'"((?:[^"\\]|\\.)*)",\s*"((?:[^"\\]|\\.)*)"', table, flags=re.DOTALL)
    assert pairs
    return [(rust, python.replace('\\"', '"')) for rust, python in pairs]


def library_texts():
    if not LIBRARY.is_dir():
        pytest.skip("the library's source is not beside this package")
    for file in sorted(LIBRARY.rglob("*.rs")):
        of_tests = file.stem in ("tests", "loom_tests") or file.stem.endswith("_tests")
        if not of_tests and not NOT_FOR_PYTHON & set(file.parts):
            for text in literals(file.read_text(encoding="utf-8")):
                yield file.relative_to(LIBRARY), text


def test_no_text_of_an_error_names_what_only_rust_has():
    replaced, unused, wrong = terms(), set(UNREACHED), []
    for file, text in library_texts():
        for rust, python in replaced:
            text = text.replace(rust, python)
        if not OF_RUST.search(text):
            continue
        known = [part for part in UNREACHED if part in text]
        unused.difference_update(known)
        if not known:
            wrong.append(f"{file}: {text}")
    assert not wrong, "a line in TERMS of src/error.rs is missing for:\n" + "\n".join(wrong)
    assert not unused, f"no text of the library has these any more: {unused}"


def test_every_term_is_in_a_text_of_the_library():
    texts = [text for _, text in library_texts()]
    # This one is made of the name of a call and of " failed".
    texts.append("std::thread::Builder::spawn failed")
    unused = [rust for rust, _ in terms() if not any(rust in text for text in texts)]
    assert not unused


def test_no_program_in_python_has_a_reservation():
    """So NotSubmitted and Abandoned, whose texts name them, reach none.

    The calls on PyTorch's MPS stream make one, and submit it before anybody has its marker.
    """
    word = re.compile(r"\breserv", re.IGNORECASE)
    files = sorted((PYTHON / "src").rglob("*.rs"))
    with_one = [file for file in files if word.search(file.read_text(encoding="utf-8"))]
    assert [file.name for file in with_one] == ["torch_stream.rs"]
    assert "reservation.submitted()" in with_one[0].read_text(encoding="utf-8")
