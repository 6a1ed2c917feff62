"""The package: its types, docstrings, style, command line, and README."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import _C

HERE = Path(__file__).parent.parent


def tool(*args, **env):
    return subprocess.run(
        [sys.executable, "-m", *args],
        capture_output=True,
        text=True,
        cwd=HERE,
        env={**os.environ, **env},
        timeout=PATIENCE * 2,
    )


def passes(*args):
    done = tool(*args)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stubs_tell_what_the_modules_have():
    pytest.importorskip("mypy")
    passes(
        "mypy.stubtest",
        "fencepost",
        "--mypy-config-file",
        "pyproject.toml",
        "--ignore-disjoint-bases",
    )


def test_the_python_sources_are_typed():
    pytest.importorskip("mypy")
    passes("mypy", "--no-incremental", "--config-file", "pyproject.toml", "-p", "fencepost")


def test_the_python_sources_are_clean():
    pytest.importorskip("ruff")
    passes("ruff", "check", "--no-cache", ".")
    passes("ruff", "format", "--no-cache", "--check", ".")


def public(module):
    for name, value in vars(module).items():
        ours = str(getattr(value, "__module__", "")).startswith("fencepost")
        if (ours or inspect.isbuiltin(value)) and not inspect.ismodule(value):
            yield f"{module.__name__}.{name}", value


@pytest.mark.parametrize(
    "module", [fencepost, fencepost.mps, fencepost.cuda, _C], ids=lambda m: m.__name__
)
def test_everything_says_what_it_does(module):
    assert module.__doc__
    for name, value in public(module):
        assert inspect.getdoc(value), f"{name} has no docstring"
        if not inspect.isclass(value):
            continue
        for member, what in vars(value).items():
            if not member.startswith("_") and not isinstance(what, type):
                assert inspect.getdoc(what), f"{name}.{member} has no docstring"


def test_the_version_is_the_librarys():
    assert fencepost.__version__ in tool("fencepost", "--version").stdout


def test_the_command_line_is_the_binarys():
    done = tool("fencepost", "devices", "--json")
    assert done.returncode == 0, done.stderr
    assert "host" in done.stdout
    assert json.loads(done.stdout)
    bad = tool("fencepost", "no-such-command")
    assert bad.returncode == 2
    assert bad.stdout == ""
    assert bad.stderr.startswith("fencepost: ")
    assert len(bad.stderr.splitlines()) == 1
    few = tool("fencepost", "check", "--device", "host", "--filter", "record_again")
    assert few.returncode == 0, few.stdout + few.stderr


def test_no_mutant_of_the_conformance_suite_is_in_the_module():
    # The command line brings the suite's cases. Its mutants, devices that are wrong on purpose,
    # belong to the library's own tests.
    mutants = HERE.parent / "fencepost" / "src" / "testing" / "mutants.rs"
    names = re.findall(
        r"^        Mutant::(\w+),$", mutants.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert "WaitDoesNothing" in names
    module = Path(_C.__file__).read_bytes()
    assert b"query_is_true_without_a_record" in module, "names of cases are found in it"
    # "7mutants" is their Rust module in a symbol's name, for builds that are not stripped.
    assert [name for name in [*names, "7mutants"] if name.encode() in module] == []


def test_a_pipeline_runs_from_python(tmp_path):
    text = tmp_path / "input"
    text.write_bytes(os.urandom(100_000))
    done = tool("fencepost", "run", "--device", "host", "--input", str(text), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_importing_opens_no_device_and_starts_no_thread(child):
    done = child(
        """
import sys, threading
import fencepost, fencepost.mps, fencepost.cuda
print(len([1 for _ in open("/proc/self/maps") if "cuda" in _]) if sys.platform == "linux" else 0)
print(len(__import__("os").listdir("/proc/self/task")) if sys.platform == "linux" else 1)
print("torch" in sys.modules)
"""
    )
    assert done.stdout.split() == ["0", "1", "False"]


def test_the_readmes_examples_run_on_the_host(child, tmp_path):
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    # The others need kernels of another library.
    ours = [
        example
        for example in examples
        if not re.search(r"torch|fencepost\.cuda|like=|otel", example)
    ]
    assert len(ours) > 6
    there = f"import os; os.chdir({str(tmp_path)!r})"
    said = child("\n".join([there, *ours])).stdout.splitlines()
    assert (tmp_path / "run.svg").read_text(encoding="utf-8").startswith("<svg ")
    assert "a call in a row" in said[0]
    at = said.index("load")
    assert said[at + 1] == "compute, after the load"
    assert said[at + 2].endswith(" ms")
    # A callback prints too, on its own thread, so that what each print writes may be mixed.
    last = "\n".join(said[at + 3 :])
    assert last.count("<fencepost.Event") == last.count("is done") == 2


def test_the_readme_names_tests_that_exist():
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    sources = "".join(
        file.read_text(encoding="utf-8") for file in (HERE / "tests").glob("test_*.py")
    )
    named = re.findall(r"::(test_\w+)", readme)
    assert len(named) > 8
    assert [name for name in named if f"def {name}(" not in sources] == []


def test_the_package_brings_the_program_fencepost():
    from importlib import metadata

    try:
        scripts = metadata.distribution("fencepost").entry_points
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed, but found by its path")
    assert [(script.name, script.value) for script in scripts] == [
        ("fencepost", "fencepost.__main__:main")
    ]


def test_devices_are_listed_whatever_lies_beside_the_package(child, tmp_path):
    package = Path(fencepost.__file__).parent
    (tmp_path / "fencepost").symlink_to(package, target_is_directory=True)
    used = tmp_path / "used"
    for name in ["json", "subprocess", "contextlib", "importlib", "typing"]:
        (tmp_path / f"{name}.py").write_text(f"open({str(used)!r}, 'a').write({name!r})\n")
    child(
        f"""
import sys
sys.path[:] = [path for path in sys.path if "site-packages" not in path]
sys.path.append({str(tmp_path)!r})
import fencepost
assert fencepost.__file__.startswith({str(tmp_path)!r}), fencepost.__file__
names = [device.name for device in fencepost.devices()]
assert "host" in names, names
"""
    )
    assert not used.exists(), used.read_text()


def test_a_program_that_embeds_python_is_not_started_again_and_again(tmp_path):
    runs, program = tmp_path / "runs", tmp_path / "program"
    program.write_text(
        f"""#!{sys.executable}
import sys
sys.executable = {str(program)!r}
with open({str(runs)!r}, "a+") as log:
    log.write("run\\n")
    log.seek(0)
    if len(log.readlines()) > 5:
        sys.exit("started again and again")
import fencepost
names = [device.name for device in fencepost.devices()]
"""
    )
    program.chmod(0o755)
    subprocess.run([program], check=True, timeout=PATIENCE)
    # It starts itself once to list, and then asks on its own.
    assert runs.read_text() == "run\n" * 2
