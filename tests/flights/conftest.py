"""What the tests of the example share: the year's sources and asks, built once."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from flights.asks import build_asks
from flights.sources import build_sources

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every source and asks.parquet."""
    folder = tmp_path_factory.mktemp("flights")
    build_sources(folder)
    build_asks(folder)
    return folder


@pytest.fixture(scope="session")
def applied(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of feature_repo over those sources, applied by Feast's own command in a process of its own."""
    repo = copy_repo(tmp_path_factory.mktemp("checkout"))
    apply(repo, built)
    return repo


def copy_repo(checkout: Path) -> Path:
    """Copy feature_repo, without what it wrote, into the folder `checkout`; the copy's path."""
    return Path(
        shutil.copytree(ROOT / "feature_repo", checkout / "feature_repo", ignore=shutil.ignore_patterns("data"))
    )


def apply(repo: Path, data: Path, *options: str) -> str:
    """Run `feast -c feature_repo apply` from the folder around `repo`; what it printed."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    feast = Path(sysconfig.get_path("scripts")) / "feast"
    ran = subprocess.run(
        [sys.executable, str(feast), "-c", repo.name, *options, "apply"],
        cwd=repo.parent,
        env={**os.environ, "PYTHONPATH": path, "FLIGHTS_DATA": str(data), "FEAST_USAGE": "False"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr
