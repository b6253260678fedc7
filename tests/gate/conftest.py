"""A tracking store and registry in SQLite files, and a server in front of another; models are tiny."""

import os
from collections.abc import Iterator

import pytest

from benchmarks.gate.world import POLICY, World, make_embedded, pointed_at, serving

__all__ = ["POLICY", "World"]


@pytest.fixture(scope="session")
def _files(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_embedded(tmp_path_factory.mktemp("mlflow"))


@pytest.fixture
def world(_files: World) -> Iterator[World]:
    """The embedded default: SQLite, a folder and no server; this process registers through the gate."""
    with pointed_at(_files):
        yield _files


@pytest.fixture(scope="session")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("server")) as world:
        yield world


@pytest.fixture
def server(_server: World) -> Iterator[World]:
    """A server whose registry is gated; this process is a stock client that knows nothing of skewguard."""
    with pointed_at(_server):
        del os.environ["SKEWGUARD_POLICY"]  # put back as it was with the rest
        yield _server
