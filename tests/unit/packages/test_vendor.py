"""What is packed of ``vendor/``, and which copy of a library runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from builders import archive

from cloaca.errors import AgreementError, BuildError
from cloaca.packages.archive import read_archive, unpack
from cloaca.packages.build import build_package
from cloaca.packages.host import host_warnings
from cloaca.packages.inspection import inspect_package
from cloaca.packages.versions import python_fault

PYPROJECT = '[project]\nname = "demo"\nversion = "1.0.0"\n[tool.cloaca]\nentry_module = "demo"\n'
CODE = """
import cloaca
{imports}
with cloaca.WorkflowBuilder("demo"):
    @cloaca.task()
    def work(context):
        pass
"""


def project(root: Path, imports: str = "", code: str = CODE, **vendored: str | bytes) -> Path:
    """A folder to pack; ``vendored`` has files below ``vendor/``."""
    files: dict[str, str | bytes] = {
        "pyproject.toml": PYPROJECT,
        "demo/__init__.py": code.replace("{imports}", imports),
    }
    for path, content in {**files, **{f"vendor/{path}": content for path, content in vendored.items()}}.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


RATELIB = {
    "ratelib/__init__.py": 'from importlib.metadata import version\n__version__ = version("ratelib")\n',
    "ratelib-2.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: ratelib\nVersion: 2.1\n",
    "ratelib-2.1.dist-info/entry_points.txt": "[rates]\nfixed = ratelib:fixed\n",
    "ratelib-2.1.dist-info/RECORD": (
        "../../bin/rate,sha256=abc,200\n"
        "ratelib-2.1.dist-info/INSTALLER,sha256=def,4\n"
        "ratelib-2.1.dist-info/METADATA,sha256=ghi,50\n"
        "ratelib-2.1.dist-info/RECORD,,\n"
        "ratelib/__init__.py,sha256=jkl,70\n"
        "ratelib/__pycache__/__init__.cpython-311.pyc,,\n"
    ),
    "ratelib-2.1.dist-info/INSTALLER": "pip\n",
    "ratelib-2.1.dist-info/direct_url.json": '{"url": "file:///home/somebody/ratelib"}',
}


def test_a_vendored_library_finds_its_version_and_its_entry_points(tmp_path: Path) -> None:
    imports = (
        "from importlib.metadata import entry_points\nimport ratelib\n"
        "assert ratelib.__version__ == '2.1', ratelib.__version__\n"
        "assert [it.value for it in entry_points(group='rates')] == ['ratelib:fixed']\n"
    )
    built = build_package(project(tmp_path / "p", imports, **RATELIB), tmp_path)
    unpack(built.path.read_bytes(), tmp_path / "unpacked")
    inspect_package(tmp_path / "unpacked", "demo")  # what is deployed finds them too
    kept = tmp_path / "unpacked/vendor/ratelib-2.1.dist-info"
    assert sorted(path.name for path in kept.iterdir()) == ["METADATA", "RECORD", "entry_points.txt"]
    assert (kept / "RECORD").read_text() == (
        "ratelib-2.1.dist-info/METADATA,sha256=ghi,50\n"
        "ratelib-2.1.dist-info/RECORD,,\n"
        "ratelib/__init__.py,sha256=jkl,70\n"
    )


def test_a_copy_of_a_library_that_we_load_ourselves_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    vendored = {
        "pydantic/__init__.py": "VERSION = '1.0'\n",
        "pydantic-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: pydantic\nVersion: 1.0\n",
        "PyYAML-5.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: PyYAML\nVersion: 5.0\n",
    }
    built = build_package(project(tmp_path / "p", "import pydantic", **vendored), tmp_path)
    assert read_archive(built.path.read_bytes()).files == ("demo/__init__.py", "manifest.json")
    said = [warning.partition(", which")[0] for warning in built.warnings]
    assert said == ["vendor/ has a copy of PyYAML", "vendor/ has a copy of pydantic"]


def test_an_archive_with_such_a_copy_gets_the_installed_one_where_nothing_has_loaded_it_yet(tmp_path: Path) -> None:
    root = tmp_path / "package"
    files = {
        "demo/__init__.py": CODE.replace(
            "{imports}", "import pydantic\nassert pydantic.VERSION != '1.0', 'the copy'\n"
        ),
        "vendor/pydantic/__init__.py": "VERSION = '1.0'\n",
    }
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    assert [workflow.name for workflow in inspect_package(root, "demo").workflows] == ["demo"]
    assert len(host_warnings(files)) == 1


def test_file_names_that_are_not_utf_8_are_listed(tmp_path: Path) -> None:
    root = project(tmp_path / "p")
    for name in (b"caf\xe9.txt", b"na\xefve.txt"):
        Path(os.fsdecode(os.fsencode(root / "demo") + b"/" + name)).write_text("x")
    with pytest.raises(BuildError, match="not UTF-8") as refused:
        build_package(root, tmp_path)
    assert all(name in str(refused.value) for name in (r"demo/caf\xe9.txt", r"demo/na\xefve.txt"))
    str(refused.value).encode()  # it can be printed


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    root = project(tmp_path / "p")
    (root / "demo" / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(BuildError, match=r"demo/loop\.txt"):
        build_package(root, tmp_path)


def test_an_archive_that_was_written_into_the_package_is_not_packed_again(tmp_path: Path) -> None:
    root = project(tmp_path / "p")
    first = build_package(root, root / "demo")
    assert build_package(root, root / "demo").digest == first.digest


def test_shared_libraries_in_hidden_folders_of_wheels_are_packed(tmp_path: Path) -> None:
    built = build_package(project(tmp_path / "p", **{"lib/.dylibs/libx.dylib": b"\0", "lib/.git/x": "x"}), tmp_path)
    assert "vendor/lib/.dylibs/libx.dylib" in read_archive(built.path.read_bytes()).files
    assert "vendor/lib/.git/x" not in read_archive(built.path.read_bytes()).files


def test_a_pth_file_that_will_not_be_read_is_said(tmp_path: Path) -> None:
    built = build_package(project(tmp_path / "p", **{"old-nspkg.pth": "import sys\n"}), tmp_path)
    assert [warning for warning in built.warnings if "vendor/old-nspkg.pth" in warning]


def test_one_task_id_in_two_workflows_is_refused_with_the_names_of_both(tmp_path: Path) -> None:
    code = CODE + CODE.replace('"demo"', '"other"')
    with pytest.raises(AgreementError, match=r"`work`.*`demo` and in `other`"):
        build_package(project(tmp_path / "p", code=code), tmp_path)


def test_workflows_whose_names_become_one_are_refused_with_both(tmp_path: Path) -> None:
    code = CODE.replace('"demo"', '"a_b"') + CODE.replace('"demo"', '"a.b"').replace("work", "more")
    with pytest.raises(AgreementError, match=r"`a_b` and `a\.b`"):
        build_package(project(tmp_path / "p", code=code), tmp_path)


@pytest.mark.parametrize(
    ("requires", "fits"),
    [(">=3.10", True), (">=3.10,<4", True), ("~=3.10", True), (">=4.0", False), ("<3.10", False), ("!=3.*", False)],
)
def test_requires_python_is_held_against_this_python(requires: str, fits: bool) -> None:
    assert (python_fault(requires) is None) is fits
    assert fits or f"Python {sys.version_info[0]}." in str(python_fault(requires))


def test_the_archive_of_the_other_tests_has_nothing_to_warn_of() -> None:
    assert host_warnings(read_archive(archive("import cloaca\n")).files) == []
