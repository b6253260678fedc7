"""What a server says of its definitions before it serves, and what its log carries of them."""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from fastapi.testclient import TestClient

from skewguard.contract import Contract
from skewguard.definitions import Bundle
from skewguard.definitions.model_input import model_inputs
from skewguard.errors import DefinitionError, ModelError
from skewguard.model import BUNDLE_KEY, FITTED_KEY
from skewguard.service import Settings
from skewguard.service.process import serve
from skewguard.servinglog import read_log
from skewguard.snapshot import build_snapshot
from skewguard.transforms import golden, load
from tests.loop import SERVICE, Loop, at, entities, logged, save_model

LOGGER = "skewguard.service.process"


@pytest.fixture
def asked(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The answers of servers that are asked once, in this process, and end."""
    answers: list[dict[str, Any]] = []

    def run(server: uvicorn.Server, sockets: object = None) -> None:
        assert sockets is None
        with TestClient(server.config.app) as client:  # type: ignore[arg-type]
            ask = entities(loop.bundle, loop.asks.slice(0, 1).to_pylist()[0])
            body = {"entities": ask | {"tail": "N1", "origin": "JFK"}, "as_of": at(12).isoformat()}
            answers.append(client.post(f"/v1/{SERVICE}/features", json=body).json())

    monkeypatch.setattr(uvicorn.Server, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    yield answers
    signal.signal(signal.SIGTERM, before)
    gc.unfreeze()


def served(loop: Loop, root: Path, bundle: Bundle, **settings: Any) -> dict[str, str]:
    """Serve one ask under `bundle`; the header of the log."""
    path = root / "served" / "delay.bundle.json"
    bundle.save(path)
    serve(Settings(bundle=path, store=loop.store_url, log=root / "log", accept_as_of=True, **settings))
    (segment,) = read_log(root / "log", SERVICE).segments
    return dict(segment.header)


def with_golden(bundle: Bundle, **other: str) -> Bundle:
    """The bundle as it is compiled, golden values included; `other` ones by name of the feature."""
    derived = [replace(d, golden=other.get(d.name) or golden(load(d.function))) for d in bundle.derived]
    return replace(bundle, derived=tuple(derived), numerics="numpy-1.0/vax-00000000/libc-0")


def test_a_server_that_computes_other_bits_says_so_before_it_serves(
    loop: Loop, asked: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One golden digest is another than here: a warning names feature and machines, the log's header the feature."""
    with caplog.at_level(logging.WARNING, LOGGER):
        header = served(loop, tmp_path, with_golden(loop.bundle, per_stop="0" * 32))
    assert header["other_values"] == "derived__per_stop"
    (said,) = [one.getMessage() for one in caplog.records if one.name == LOGGER]
    assert said.startswith("delay: derived__per_stop compute other values here (numpy-")
    assert "than where the bundle was compiled (numpy-1.0/vax-00000000/libc-0)" in said
    assert len(asked) == 1


def test_a_server_that_computes_the_same_bits_has_nothing_to_say(
    loop: Loop, asked: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All golden digests come out as they were: no warning, and the header is empty there."""
    with caplog.at_level(logging.WARNING, LOGGER):
        header = served(loop, tmp_path, with_golden(loop.bundle))
    assert header["other_values"] == ""
    assert not [one for one in caplog.records if one.name == LOGGER]
    assert len(asked) == 1


def test_code_that_is_not_the_bundles_is_not_served(loop: Loop, asked: list[dict[str, Any]], tmp_path: Path) -> None:
    """Another fingerprint than the bundle's is an error that names the feature; nobody is answered, nothing logged."""
    derived = [replace(one, fingerprint="0" * 32) if one.name == "per_stop" else one for one in loop.bundle.derived]
    with pytest.raises(DefinitionError, match=r"derived__per_stop: .* with fingerprint 0000.*, the code here has"):
        served(loop, tmp_path, replace(loop.bundle, derived=tuple(derived)))
    assert not asked
    assert not list((tmp_path / "log").rglob("*.arrow"))


def recorded(loop: Loop, root: Path, **metadata: str) -> Path:
    """The loop's model as it is logged with `metadata`."""
    folder = root / "model"
    save_model(folder, loop.snapshot, *loop.snapshot.to_numpy("late"))
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["metadata"] |= metadata
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    return folder


def test_definitions_that_the_model_was_not_trained_under_are_said_before_it_serves(
    loop: Loop, asked: list[dict[str, Any]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The model's own record of its snapshot's definitions is another: a warning, and the log's header has it."""
    folder = recorded(loop, tmp_path, **{BUNDLE_KEY: "c" * 64})
    with caplog.at_level(logging.WARNING, LOGGER):
        header = served(loop, tmp_path, loop.bundle, model=folder)
    assert (header["trained_under"], header["bundle_digest"]) == ("c" * 64, loop.bundle.digest)
    (said,) = [one.getMessage() for one in caplog.records if one.name == LOGGER]
    assert "are not those that the model was trained under (cccccccccccc)" in said
    assert len(asked) == 1


def with_fitted(bundle: Bundle) -> Bundle:
    """The loop's service with a model input."""
    complaints: list[str] = []
    references = ["tests.loop_features:maker_wind"]
    inputs = model_inputs(references, bundle.views, bundle.request, bundle.derived, Contract(), complaints)
    assert not complaints
    return replace(bundle, derived=(*bundle.derived, *inputs.values()))


def test_a_model_is_served_with_the_values_that_it_was_trained_with_or_not_at_all(
    loop: Loop, asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Not under a bundle that is not fitted, nor under one that was fitted on other rows; under its snapshot's it is,
    and the log has the value that entered the model."""
    bundle = with_fitted(loop.bundle)
    snapshots = [
        build_snapshot(bundle, asks, tmp_path / name, labels=["late"], id_column="id")
        for name, asks in (("one", loop.asks.slice(0, 60)), ("other", loop.asks.slice(60)))
    ]
    one, other = (snapshot.bundle for snapshot in snapshots)
    matrix, labels = snapshots[0].to_numpy("late")
    folder = save_model(tmp_path / "model", snapshots[0], matrix, labels)
    described = yaml.safe_load((folder / "MLmodel").read_text())
    described["metadata"] |= {FITTED_KEY: one.fitted_digest}
    (folder / "MLmodel").write_text(yaml.safe_dump(described))
    with pytest.raises(DefinitionError, match="model_input__maker_wind: not fitted yet"):
        served(loop, tmp_path / "a", bundle, model=folder)
    with pytest.raises(ModelError, match="it was trained with the fitted values"):
        served(loop, tmp_path / "b", other, model=folder)
    assert not asked
    header = served(loop, tmp_path / "c", one, model=folder)
    assert header["bundle_digest"] == one.digest
    (row,) = logged(tmp_path / "c" / "log")
    usual = dict(one.fitted_values["model_input__maker_wind"]["usual"]["table"])
    assert row["model_input__maker_wind"] == row["weather__wind"] - usual[row["derived__maker_code"]]
    assert row["vector"][-1] == row["model_input__maker_wind"]
