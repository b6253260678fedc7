"""Erasing a person: out of store, log and snapshots, with a receipt that says what is left."""

import contextlib
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.cli import main
from skewguard.definitions import Bundle
from skewguard.errors import LogError, SkewguardError
from skewguard.online import Lookup, open_store, row_key
from skewguard.service.answering import Answering
from skewguard.service.process import _log_opener
from skewguard.service.settings import Settings
from skewguard.servinglog import ServingLog, blocks, find, read_log, to_table
from skewguard.servinglog.compaction import compact
from skewguard.servinglog.erasing import erase_rows
from skewguard.servinglog.erasure import Tombstone
from skewguard.servinglog.privacy import pseudonym
from skewguard.snapshot import load_snapshot, verify_snapshot
from skewguard.verdict import Ruling
from skewguard.workflows.erase import erase
from skewguard.workflows.explain import explain_request
from tests.loop import POLICY, Loop, at, build, bundle_of, entities

SCHEMA = pa.schema([("id", pa.string()), ("e__tail", pa.string()), ("x", pa.float64())])
FAR = 2**60
SECRET = b"a secret of 16 b"


def batch(*tails: str | None) -> pa.RecordBatch:
    """A row for each tail."""
    return pa.RecordBatch.from_pylist([{"id": f"{t}.{i}", "e__tail": t, "x": 1.0} for i, t in enumerate(tails)], SCHEMA)


def tails(root: Path) -> list[str | None]:
    """Whose rows are in the log, by every way of reading it."""
    reading = read_log(root)
    table = to_table(reading)["e__tail"].to_pylist()
    again = [t for _, rows in reading.batches() for t in rows.column("e__tail").to_pylist()]
    blockwise = [t for _, rows in blocks(reading.segments) for t in rows.column("e__tail").to_pylist()]
    assert sorted(table, key=str) == sorted(again, key=str) == sorted(blockwise, key=str)
    assert len(table) == reading.rows
    return sorted(table, key=str)


def contains(root: Path, text: bytes) -> list[str]:
    """The files in which a text stands, Parquet read."""
    found = []
    for path in sorted(one for one in root.rglob("*") if one.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content = repr(pq.ParquetFile(path).read().to_pylist()).encode()
        if text in content:
            found.append(path.name)
    return found


def test_rows_go_from_segments_and_parts_and_stay_away(tmp_path: Path) -> None:
    """What is sealed loses them at once; what a process still writes hides them, and loses them when it is sealed."""
    with ServingLog(tmp_path, "s", SCHEMA, {}) as log:
        log.append(batch("SECRET", "N1", None))
    compact(tmp_path, "s", grace_seconds=0)
    with ServingLog(tmp_path, "s", SCHEMA, {}) as log:
        log.append(batch("N2", "SECRET"))
    with ServingLog(tmp_path, "s", SCHEMA, {}) as log:
        log.append(batch("SECRET", "SECRET", "N3"))
        done = erase_rows(tmp_path, "s", [Tombstone.of("tail", "SECRET", FAR)])
        assert done.removed == 2
        assert list(done.pending.values()) == [2]
        assert tails(tmp_path) == ["N1", "N2", "N3", None]
        assert find(tmp_path, "SECRET.0", "id") == []
        assert contains(tmp_path, b"SECRET") == [log.path.name if log.path else ""]
        log.append(batch("N4"))
    again = erase_rows(tmp_path, "s", [Tombstone.of("tail", "SECRET", FAR)])
    assert (again.removed, again.pending) == (2, {})
    assert contains(tmp_path, b"SECRET") == []
    assert tails(tmp_path) == ["N1", "N2", "N3", "N4", None]
    assert erase_rows(tmp_path, "s", [Tombstone.of("tail", "nobody", FAR)]).removed == 0


def test_a_person_who_comes_back_is_logged_again(tmp_path: Path) -> None:
    """An erasure ends at its instant."""
    stamped = SCHEMA.append(pa.field("event_timestamp", pa.timestamp("us", tz="UTC")))
    with ServingLog(tmp_path, "s", stamped, {}) as log:
        rows = [{"id": str(at), "e__tail": "N1", "x": 0.0, "event_timestamp": at} for at in (10, 20, 30)]
        log.append(pa.RecordBatch.from_pylist(rows, stamped))
    assert erase_rows(tmp_path, "s", [Tombstone.of("tail", "N1", 20)]).removed == 2
    assert to_table(read_log(tmp_path))["id"].to_pylist() == ["30"]


def test_a_torn_list_of_erasures_hides_everything(tmp_path: Path) -> None:
    """Rows of somebody who was erased do not come back because a file cannot be read."""
    with ServingLog(tmp_path, "s", SCHEMA, {}) as log:
        log.append(batch("N1"))
    (tmp_path / "s" / "erased.json").write_text("[{")
    with pytest.raises(LogError, match="expected a list of erasures"):
        read_log(tmp_path)


def test_an_erasure_that_stops_half_way_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever file could not be written: the others' rows are all there, and a second run completes it."""
    for tail in ("SECRET", "N1"):
        with ServingLog(tmp_path, "s", SCHEMA, {}) as log:
            log.append(batch(tail, "N9"))
    compact(tmp_path, "s", grace_seconds=0)
    from skewguard.servinglog import archive

    put = archive.put
    for failing in range(5):
        calls = iter(range(100))

        def refuses(file: Any, write: Any, calls: Any = calls, failing: int = failing) -> None:
            if next(calls) == failing:
                raise OSError(28, "No space left on device")
            put(file, write)

        with monkeypatch.context() as patch:
            patch.setattr(archive, "put", refuses)
            with contextlib.suppress(LogError):
                erase_rows(tmp_path, "s", [Tombstone.of("tail", "SECRET", FAR)])
        assert [t for t in tails(tmp_path) if t != "SECRET"] == ["N1", "N9", "N9"]
    erase_rows(tmp_path, "s", [Tombstone.of("tail", "SECRET", FAR)])
    assert contains(tmp_path, b"SECRET") == []
    assert tails(tmp_path) == ["N1", "N9", "N9"]


# --- the whole


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Definitions of the small world."""
    return bundle_of(tmp_path)


def test_a_person_is_erased_from_everything_that_is_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Store, log and snapshot lose the rows; the receipt names no key; the snapshot keeps its id."""
    world = build(tmp_path / "w")
    bundle = world.bundle
    url = f"sqlite:{tmp_path / 'online.db'}"
    store = open_store(url)
    store.write([(row_key(bundle.project, bundle.view("plane"), [tail]), b"row") for tail in ("N1", "N2")], {})
    request = {"distance": 1.0, "stops": 1, "direct": True, "scheduled": None}
    with ServingLog(tmp_path / "log", bundle=bundle) as log:
        for tail in ("N1", "N2", "N1"):
            with log.request("r", {"origin": "JFK", "tail": tail}, request) as rec:
                rec.prediction(0.5)
    snapshot = world.snapshot
    before = snapshot.to_arrow(["e__tail"])["e__tail"].to_pylist()
    where = str(snapshot.place)
    words = ["erase", "tail=N1", "--bundle", world.bundle_path, "--log", tmp_path / "log", "--store", url]
    words += ["--snapshots", where, "--receipt", tmp_path / "receipt.json"]
    assert main([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert "2 rows removed" in out
    assert "not touched: the sources" in out
    receipt = json.loads((tmp_path / "receipt.json").read_text())
    assert receipt["complete"] is True
    assert receipt["store"] == {"plane": 1}
    assert '"N1"' not in (tmp_path / "receipt.json").read_text()
    assert store.mget([row_key(bundle.project, bundle.view("plane"), [tail]) for tail in ("N1", "N2")]) == [
        None,
        b"row",
    ]
    store.close()
    assert to_table(read_log(tmp_path / "log"))["e__tail"].to_pylist() == ["N2"]
    after = load_snapshot(where)
    assert after.id == snapshot.id
    assert after.to_arrow(["e__tail"])["e__tail"].to_pylist() == [tail for tail in before if tail != "N1"]
    (entry,) = receipt["snapshots"].values()
    assert (entry["rows"], entry["old"]) == (before.count("N1"), snapshot.id)
    assert verify_snapshot(after).damage == ""
    erase(bundle, "tail", "N2", snapshots=[where])
    assert verify_snapshot(load_snapshot(where)).damage == "", "one erasure after the other"
    file = after.place / "rows.parquet"
    assert file.local is not None
    pq.write_table(pq.read_table(file.local).slice(1), file.local)
    manifest = json.loads((after.place / "manifest.json").read())
    (after.place / "manifest.json").write(json.dumps(manifest | {"rows": manifest["rows"] - 1}).encode())
    assert "changed after it was built" in verify_snapshot(load_snapshot(where)).damage


def test_hashed_rows_are_erased_with_the_secret_only(tmp_path: Path, bundle: Bundle) -> None:
    """Without it they could not be found, and an erasure that finds nothing must not pass for one that is done."""
    ask = {"distance": 1.0, "stops": 1, "direct": True, "scheduled": None}
    with ServingLog(tmp_path / "log", bundle=bundle, pii=["tail"], secret=SECRET) as log:
        for tail in ("N1", "N2"):
            with log.request(tail, {"origin": "JFK", "tail": tail}, ask):
                pass
    with pytest.raises(SkewguardError, match="give that secret"):
        erase(bundle, "tail", "N1", log=tmp_path / "log")
    receipt = erase(bundle, "tail", "N1", log=tmp_path / "log", secret=SECRET)
    assert receipt.log["delay"].removed == 1
    assert to_table(read_log(tmp_path / "log"))["e__tail"].to_pylist() == [pseudonym("N2", SECRET)]


def test_a_bundle_that_hides_keys_is_followed_from_the_service_to_the_erasure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No setting but the secret: without it nothing starts, with it the log has no plain key, the guard joins, and a
    person is found and erased."""
    plain = build(tmp_path / "w")
    world = replace(plain, bundle=replace(plain.bundle, pii=("tail",)))
    world = replace(world, snapshot=replace(plain.snapshot, bundle=world.bundle))
    world.bundle.save(world.bundle_path)
    monkeypatch.delenv("SKEWGUARD_PII_SECRET", raising=False)
    opens = _log_opener(_settings(world, tmp_path), world.bundle, clients=False)
    refused = r"tail cannot be hashed without a secret\. Set SKEWGUARD_PII_SECRET"
    with pytest.raises(LogError, match=refused):
        opens(world.model)
    with pytest.raises(LogError, match=refused):
        ServingLog(tmp_path / "log", bundle=world.bundle)
    monkeypatch.setenv("SKEWGUARD_PII_SECRET", SECRET.decode())
    store = open_store(world.store_url)
    with opens(world.model) as log:
        answering = Answering(world.bundle, Lookup(world.bundle, store), log, world.model, True, lambda: 0)
        for ask in world.asks.slice(60, 60).to_pylist():
            answering.serve(entities(world.bundle, ask), ask["id"], at(12) + timedelta(seconds=17), world.model)
    tails_asked = set(world.asks.slice(60, 60)["tail"].to_pylist())
    told = to_table(read_log(tmp_path / "log"))["e__tail"].to_pylist()
    assert {pseudonym(tail, SECRET) if tail else None for tail in tails_asked} == set(told)
    # Read back, not as raw bytes: two letters stand in compressed ones by chance.
    logged = to_table(read_log(tmp_path / "log")).to_pylist()
    assert not [cell for row in logged for cell in row.values() if isinstance(cell, str) and "N1" in cell]
    policy = replace(POLICY, minimum_rows=10)
    assert world.guard(tmp_path / "log", policy).verdict.ruling is Ruling.UNKNOWN
    joined = world.guard(tmp_path / "log", policy, secret=SECRET).verdict
    assert (joined.findings, joined.coverage.rows) == ((), 60)
    one = world.asks["id"][60].as_py()
    with pytest.raises(LogError, match=r"the keys of tail are hashed in the log: give the secret \w{8} in"):
        explain_request(tmp_path / "log", world.bundle, one)
    explained = explain_request(tmp_path / "log", world.bundle, one, secret=SECRET)
    assert explained.keys["tail"] == world.asks["tail"][60].as_py()
    assert all(line.equal for line in explained.lines)
    words = ["erase", "tail=N1", "--bundle", world.bundle_path, "--log", tmp_path / "log"]
    assert main([str(word) for word in words]) == 0
    gone = told.count(pseudonym("N1", SECRET))
    assert gone
    assert f"{gone} rows removed" in capsys.readouterr().out
    assert to_table(read_log(tmp_path / "log"))["e__tail"].to_pylist().count(pseudonym("N1", SECRET)) == 0
    store.close()


def _settings(world: Loop, root: Path) -> Settings:
    return Settings(bundle=world.bundle_path, store=world.store_url, log=root / "log", model=world.model_folder)


@pytest.mark.parametrize(
    ("person", "message"),
    [("tail", "expected ENTITY=KEY"), ("=N1", "expected ENTITY=KEY"), ("nobody=1", "has no such entity key")],
)
def test_who_is_meant_must_be_clear(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str], person: str, message: str
) -> None:
    """Exit 2, and nothing is erased."""
    bundle.save(tmp_path / "b.json")
    assert main(["erase", person, "--bundle", str(tmp_path / "b.json")]) == 2
    assert message in capsys.readouterr().err
