"""Bad input, item by item: refused, with which sentence, and nothing half-registered.

A server that is down halfway has a file of its own: `test_halfway.py`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from unittest import mock

import pytest

from benchmarks.gate.world import World
from skewguard.errors import EvidenceError, Refused, SkewguardError, SnapshotError
from skewguard.gate.keys import SigningKey, load_trust, revoke_key
from skewguard.gate.mlflow import Gate, attach_verdict, register
from skewguard.gate.mlflow import gate as deciding
from skewguard.policy import load_policy
from skewguard.snapshot import load_snapshot
from skewguard.verdict import Ruling, Verdict
from skewguard.workflows.card import Stores, Whole, make_card
from skewguard.workflows.guard import guard
from tests.gate.verdicts import KEY, about
from tests.loop import POLICY, SERVICE, Loop


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A governed name of this test's own."""
    return "gated-bad-" + str(request.node.name).replace("_", "-").replace("[", "-").replace("]", "")


@dataclass(frozen=True)
class Try:
    """A registration that must come to nothing."""

    world: World
    name: str

    def refused(self, model_id: str, says: str) -> None:
        """`register` raises `Refused` with that sentence; there is no version, no alias, no registered model."""
        uris = {"registry_uri": self.world.registry_uri, "tracking_uri": self.world.tracking_uri}
        with pytest.raises(Refused, match=says):
            register(model_id, self.name, alias="champion", **uris)
        self.nothing()

    def nothing(self) -> None:
        """Nothing bears the name, and the ledger is whole."""
        assert self.world.client().search_registered_models(f"name = '{self.name}'") == []
        assert (
            Gate.from_environment(tracking_uri=self.world.tracking_uri).write("observed", {"name": self.name}).seq >= 0
        )

    def attached(self, verdict: Callable[[Verdict], Verdict] = lambda v: v, key: SigningKey = KEY) -> str:
        """A logged model with a verdict, changed before it was signed."""
        model_id = self.world.log_model()
        attach_verdict(model_id, verdict(self.world.verdict(model_id, self.name)), key, self.world.tracking_uri)
        return model_id


@pytest.fixture
def bad(world: World, name: str) -> Try:
    """Against the embedded gate."""
    return Try(world, name)


def _flip(file: Path, at: int | None = None) -> None:
    data = bytearray(file.read_bytes())
    place = len(data) // 2 if at is None else at
    data[place] ^= 1
    file.write_bytes(data)


# -- tampered by one byte ---------------------------------------------------------------------------------------------


def test_a_snapshot_tampered_by_one_byte(bad: Try, loop: Loop, tmp_path: Path) -> None:
    """Whichever byte of its rows: it does not load, cannot be read, or is not what its id says; never a PASS."""
    rows = next(one.name for one in loop.snapshot.path.iterdir() if one.suffix == ".parquet")
    size = (loop.snapshot.path / rows).stat().st_size
    for at in (size // 7, size // 3, size // 2, size - 3):
        folder = tmp_path / str(at)
        shutil.copytree(loop.snapshot.path, folder)
        _flip(folder / rows, at)
        said = "does not load"
        with suppress(SnapshotError):  # a torn footer
            snapshot = load_snapshot(folder)
            verdict = guard(loop.clean_log, snapshot, POLICY, model_digest=loop.model.digest).verdict
            said = str(verdict.ruling)
        assert said in ("does not load", "UNKNOWN"), at
    model_id = bad.attached(lambda v: replace(v, ruling=Ruling.UNKNOWN, reasons=("its rows are not those of its id",)))
    bad.refused(model_id, r"its verdict is UNKNOWN \(its rows are not those of its id\)")


def test_a_value_of_a_snapshot_that_was_changed_and_written_anew(loop: Loop, tmp_path: Path) -> None:
    """A file that is whole and holds another label: the verdict says that its rows are not those of its id."""
    import pyarrow.parquet as pq

    folder = tmp_path / "snapshot"
    shutil.copytree(loop.snapshot.path, folder)
    rows = next(one for one in folder.iterdir() if one.suffix == ".parquet")
    table = pq.read_table(rows)
    labels = table["late"].to_pylist()
    at = table.schema.get_field_index("late")
    pq.write_table(table.set_column(at, table.schema.field(at), [[not labels[0], *labels[1:]]]), rows)
    snapshot = load_snapshot(folder)
    verdict = guard(loop.clean_log, snapshot, POLICY, model_digest=loop.model.digest).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert "its rows are not those of its id: they were changed after it was built" in verdict.reasons[0]


def test_a_definition_tampered_by_one_byte(bad: Try, loop: Loop, tmp_path: Path) -> None:
    """In the snapshot's bundle: it does not load, and says that it was edited."""
    folder = tmp_path / "snapshot"
    shutil.copytree(loop.snapshot.path, folder)
    bundle = folder / "bundle.json"
    bundle.write_text(bundle.read_text().replace('"ttl_us": 10800000000', '"ttl_us": 10800000001'))
    with pytest.raises(SnapshotError, match="edited by hand or written by another version"):
        load_snapshot(folder)
    bad.nothing()


def test_a_report_tampered_by_one_byte(bad: Try, world: World, loop: Loop, tmp_path: Path) -> None:
    """The whole verdict behind a report is named by the signed record: another one makes no card."""
    model_id = world.log_model()
    verdict = about(world.verdict(model_id, bad.name), snapshot_id=loop.snapshot.id)
    attach_verdict(model_id, verdict, KEY, world.tracking_uri)
    file = tmp_path / "verdict.json"
    file.write_text(json.dumps(verdict.to_json()))
    stores = Stores(load_trust(world.policy.with_name("trusted.json")), world.tracking_uri, world.registry_uri)
    assert make_card(model_id, bad.name, loop.snapshot, stores, verdict=Whole.read(file)).model_id == model_id
    file.write_text(file.read_text().replace("none differs", "none differz"))
    with pytest.raises(EvidenceError, match="is not the one that was signed for model"):
        make_card(model_id, bad.name, loop.snapshot, stores, verdict=Whole.read(file))
    bad.nothing()


def test_a_model_tampered_by_one_byte(bad: Try, world: World) -> None:
    """Whichever of its files."""
    folder = Path(world.client().get_logged_model(model_id := bad.attached()).artifact_location)
    files = [one for one in sorted(folder.rglob("*")) if one.is_file()]
    assert len(files) > 3
    for file in files:
        before = file.read_bytes()
        _flip(file)
        bad.refused(model_id, r"its files have changed since it was judged \([0-9a-f]{12} then, [0-9a-f]{12} now\)")
        file.write_bytes(before)


def test_a_verdict_tampered_by_one_byte(bad: Try, world: World) -> None:
    """Anywhere in the signed record: its tag does not count, and nothing takes its place."""
    from skewguard.gate.record import tag_of

    model_id = bad.attached()
    text = world.client().get_logged_model(model_id).tags[tag_of(bad.name)]
    for at in range(0, len(text), 97):
        changed = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        world.client().set_logged_model_tags(model_id, {tag_of(bad.name): changed})
        bad.refused(model_id, r"its record skewguard\.verdict\.[0-9a-f]{16} does not count: ")


# -- out of time, of place, of trust ----------------------------------------------------------------------------------


def test_an_expired_verdict(bad: Try) -> None:
    """By its own times, and by the policy's."""
    old = (datetime.now(UTC) - timedelta(days=8)).isoformat(timespec="seconds")
    model_id = bad.attached(lambda v: replace(v, issued_at=old, expires_at="2999-01-01T00:00:00+00:00"))
    bad.refused(model_id, "its verdict expired at 20")


def test_a_verdict_replayed_for_another_model(bad: Try, world: World) -> None:
    """The record of one model in the tag of another."""
    from skewguard.gate.record import tag_of

    judged, other = bad.attached(), world.log_model()
    text = world.client().get_logged_model(judged).tags[tag_of(bad.name)]
    world.client().set_logged_model_tags(other, {tag_of(bad.name): text})
    bad.refused(other, f"its verdict is about another model, {judged}")


def test_a_verdict_replayed_for_another_name(bad: Try, world: World) -> None:
    """The record for one name in the tag for another."""
    from skewguard.gate.record import tag_of

    model_id = world.judged(f"{bad.name}-other")
    text = world.client().get_logged_model(model_id).tags[tag_of(f"{bad.name}-other")]
    world.client().set_logged_model_tags(model_id, {tag_of(bad.name): text})
    bad.refused(model_id, f"its verdict is for the name '{bad.name}-other'")


def test_an_empty_log(bad: Try, loop: Loop, tmp_path: Path, world: World) -> None:
    """No row is no evidence: UNKNOWN, and an UNKNOWN is refused."""
    loop.open_log(tmp_path).close()
    model_id = world.log_model()
    verdict = guard(
        tmp_path, loop.snapshot, load_policy(world.policy), registered_name=bad.name, model_id=model_id,
        model_digest=world.digest(model_id),
    ).verdict  # fmt: skip
    assert verdict.ruling is Ruling.UNKNOWN
    attach_verdict(model_id, verdict, KEY, world.tracking_uri)
    bad.refused(model_id, r"its verdict is UNKNOWN \(the log at .* holds no row")
    assert (tmp_path / SERVICE).exists()


def test_a_stale_policy(bad: Try) -> None:
    """A verdict under rules that are not today's."""
    model_id = bad.attached(lambda v: replace(v, policy_digest="0" * 64))
    bad.refused(model_id, r"its verdict was given under another policy \(000000000000, now [0-9a-f]{12}\)")


def test_an_unknown_key(bad: Try) -> None:
    """A signature that is right, of a key that nobody trusts."""
    stranger = SigningKey.new()
    bad.refused(
        bad.attached(key=stranger), f"does not count: .*{stranger.id}.*does not trust|does not trust.*{stranger.id}"
    )


def test_a_revoked_key(world: World, name: str, tmp_path: Path) -> None:
    """What it signed before it was revoked does not count either."""
    from skewguard.gate.keys import TRUST_ENV, trust_key

    own = SigningKey.new()
    trusted = tmp_path / "trusted.json"
    shutil.copy(world.policy.with_name("trusted.json"), trusted)
    trust_key(trusted, own.save(tmp_path / "own.pem"), "own")
    revoke_key(trusted, own.id, "it leaked")
    model_id = Try(world, name).attached(key=own)
    gate = replace(Gate.from_environment(tracking_uri=world.tracking_uri), trust=trusted)
    assert os.environ.get(TRUST_ENV)
    with pytest.raises(Refused, match="revoked"):
        gate.ask(name, model_id)


def test_a_clock_that_is_ahead_or_behind(bad: Try) -> None:
    """A verdict of the future, and a gate that has fallen behind its own ledger: both name the clock."""
    later = (datetime.now(UTC) + timedelta(hours=2)).isoformat(timespec="seconds")
    bad.refused(bad.attached(lambda v: replace(v, issued_at=later)), "was issued in the future .* so a clock is wrong")
    model_id = bad.attached()
    bad.nothing()  # which writes a line of now
    with _clock(datetime.now(UTC) - timedelta(hours=2)), pytest.raises(SkewguardError, match="the gate's clock says"):
        register(model_id, bad.name, registry_uri=bad.world.registry_uri, tracking_uri=bad.world.tracking_uri)
    bad.nothing()


@contextmanager
def _clock(now: datetime) -> Iterator[None]:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return now.astimezone(tz)

    with mock.patch.object(deciding, "datetime", Behind):
        yield
