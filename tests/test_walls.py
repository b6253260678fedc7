"""What must not be loaded, imported or written down anywhere."""

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"

TRAINING = ["feast", "duckdb", "mlflow", "pandas", "great_expectations"]
SERVING = ["fastapi", "redis"]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("skewguard", [*TRAINING, *SERVING]),
        ("skewguard.servinglog", [*TRAINING, *SERVING, "sklearn"]),
        ("skewguard.service", TRAINING),
    ],
)
def test_importing_a_light_module_loads_no_heavy_vendor(module: str, absent: list[str]) -> None:
    """The package, the log and the service leave what they do not need unloaded, in a fresh interpreter."""
    loaded = _run([sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]).split()
    assert module in loaded
    assert sorted(set(absent) & set(loaded)) == []


def test_the_import_law_is_kept() -> None:
    """Every contract on who may import whom holds."""
    _run([str(Path(sysconfig.get_path("scripts")) / "lint-imports"), "--no-logo"])


def test_no_tracked_file_names_a_path_of_a_machine() -> None:
    """Nothing in the repository depends on where one machine keeps its files."""
    pattern = re.compile(rb"(^|[^A-Za-z0-9_.])/(work|root|home/[a-z]+)/", re.MULTILINE)
    found = [str(path.relative_to(ROOT)) for path in _tracked_files() if pattern.search(path.read_bytes())]
    assert found == []


def test_the_lock_names_versions_and_hashes_only() -> None:
    """The lock installs from whichever index the reader uses: no address, no path, and a hash for each."""
    text = LOCK.read_text()
    assert re.findall(r".*(?:://| @ |file:|--index|--extra-index|--find-links).*", text) == []
    requirements = re.findall(r"^[a-z0-9][^ ]*.*(?:\n    --hash=.*)*", text, re.MULTILINE)
    assert requirements
    unpinned = [entry.splitlines()[0] for entry in requirements if "==" not in entry or "--hash=sha256:" not in entry]
    assert unpinned == []


def test_the_lock_holds_every_dependency() -> None:
    """A dependency that pyproject.toml names has been locked."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *pyproject["dependency-groups"].values(),
    ]
    named = {_name(requirement) for group in groups for requirement in group} - {project["name"]}
    locked = {_name(line) for line in LOCK.read_text().splitlines() if line[:1].isalnum()}
    assert sorted(named - locked) == []


def _name(requirement: str) -> str:
    """The normalised name that a requirement begins with."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]).lower()


def _tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: there is no list of tracked files")
    listed = _run(["git", "ls-files", "-z"]).split("\0")
    return [path for name in listed if name and (path := ROOT / name).is_file()]


def _run(command: list[str]) -> str:
    """What a command prints, run at the root; its failure is the test's."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}{done.stderr}"
    return done.stdout
