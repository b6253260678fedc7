import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewguard.cli import main, serve_settings
from skewguard.definitions import Bundle
from skewguard.findings import Kind
from skewguard.online import OnlineStore, open_store
from skewguard.online.keys import watermark_key, watermark_of
from skewguard.servinglog import read_log
from skewguard.snapshot import load_snapshot
from skewguard.values import Column
from skewguard.verdict import Ruling, Verdict
from tests.loop import PROJECT, SERVICE, Fault, Loop, Store, asks_between, at, changed, us

ROOT = Path(__file__).resolve().parents[1]
POLICY = '[policy]\ngoverns = ["delay-*"]\nminimum_rows = 100\n'

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a skewguard.toml over the world, and the working directory."""
    (tmp_path / "policy.toml").write_text(POLICY)
    settings = {
        "service": SERVICE, "bundle": loop.bundle_path, "store": "sqlite:online.db", "log": loop.clean_log,
        "snapshot": loop.snapshot.path, "policy": "policy.toml", "registered_name": "delay-model",
    }  # fmt: skip
    lines = [f'{name} = "{value}"' for name, value in settings.items()]
    (tmp_path / "skewguard.toml").write_text("\n".join(["[skewguard]", *lines]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command on a wide terminal: its exit code, what it prints and what it complains of."""
    monkeypatch.setenv("COLUMNS", "300")

    def command(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(part) for part in argv])
        return (code, *capsys.readouterr())

    return command


@pytest.fixture(scope="module")
def skewed(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a day on which build B read wind in km/h."""

    def kmh(column: Column) -> Column:
        return Column.build(column.dtype, column.values * 1.609344, column.status)

    def wrap(store: OnlineStore, bundle: Bundle) -> OnlineStore:
        return Store(store, changed(bundle.view("weather"), "wind", kmh))

    return loop.play(tmp_path_factory.mktemp("skewed"), Fault(store=wrap))


# -- guard ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_a_passing_guard_exits_with_0(run: Run) -> None:
    """PASS is exit code 0, told in words."""
    code, out, err = run("guard", "--cross-check", 20)
    assert (code, err) == (0, "")
    assert "PASS" in out
    assert "delay-model may be registered" in out


@pytest.mark.usefixtures("project")
def test_a_failing_guard_exits_with_1(run: Run, skewed: Path) -> None:
    """FAIL is exit code 1, and names the feature and the cause."""
    code, out, _ = run("guard", "--log", skewed)
    assert code == 1
    told = " ".join(out.split())
    assert "FAIL" in told
    assert "weather.wind" in told
    assert "mph served as km/h" in told


def test_a_guard_without_evidence_exits_with_3(run: Run, project: Path) -> None:
    """UNKNOWN is exit code 3: an empty log, one that is not there, and too few rows."""
    assert run("guard", "--log", project / "nowhere")[0] == 3
    (project / "policy.toml").write_text(POLICY.replace("100", "100_000"))
    code, out, _ = run("guard")
    assert code == 3
    assert "the policy wants 100,000" in " ".join(out.split())


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--policy", "nowhere.toml"], "policy nowhere.toml: "),
        (["--snapshot", "nowhere"], "nowhere: expected a snapshot folder with a manifest.json"),
        (["--project", "nowhere.toml"], "nowhere.toml: expected a skewguard.toml, found none"),
        (["--html", "nowhere/report.html"], "nowhere/report.html"),
        (["--out", "nowhere/verdict.json"], "nowhere/verdict.json"),
        (["--model", "nowhere"], "nowhere: expected a model folder, found nothing"),
        (["--findings", "nowhere.json"], "nowhere.json"),
        (["--registered-name", "other"], "not 'other': no gate would ask for this verdict"),
    ],
)
def test_a_guard_that_could_not_run_exits_with_2(run: Run, flags: list[str], reason: str) -> None:
    """What keeps the guard from running, or its report from being written, is one sentence and no exit code 0 or 1."""
    code, _, err = run("guard", *flags)
    assert code == 2
    assert err.startswith("skewguard: ")
    assert reason in err


def test_json_is_one_document_that_is_the_verdict(run: Run, project: Path, skewed: Path) -> None:
    """--json prints the verdict alone, --out writes the same, --html a page; the exit code stays."""
    code, out, _ = run("guard", "--json", "--log", skewed, "--out", "verdict.json", "--html", "report.html")
    assert code == 1
    verdict = Verdict.from_json(json.loads(out))
    assert (verdict.ruling, verdict.findings[0].feature) == (Ruling.FAIL, "weather__wind")
    assert Verdict.from_json(json.loads((project / "verdict.json").read_text())) == verdict
    assert "weather.wind" in (project / "report.html").read_text()
    code, out, _ = run("guard", "--json")
    assert (code, json.loads(out)["ruling"]) == (0, "PASS")


@pytest.mark.usefixtures("project")
def test_a_guard_of_one_model_counts_its_rows_alone(run: Run, loop: Loop) -> None:
    """--model-digest keeps the rows of that model, --model computes its predictions again."""
    flags = ["--json", "--model-digest", loop.model.digest, "--model", loop.model_folder]
    code, out, _ = run("guard", *flags)
    assert (code, json.loads(out)["subject"]["model_digest"]) == (0, loop.model.digest)
    assert run("guard", "--model-digest", "0" * 64)[0] == 3
    code, _, err = run("guard", "--model-digest", "0" * 64, "--model", loop.model_folder)
    assert code == 2
    assert "expected the model with digest" in err


def test_findings_of_other_checks_are_judged_with_the_rest(run: Run, project: Path) -> None:
    """--findings brings what the expectations found into the ruling."""
    finding = {
        "kind": "expectation", "feature": "plane__seats", "rows": 1, "of": 10, "message": "one is null", "tap": "-",
        "cause": "", "cause_kind": "", "explained": 0.0, "slices": [], "examples": [], "by_hour": [],
    }  # fmt: skip
    (project / "findings.json").write_text(json.dumps([finding]))
    code, out, _ = run("guard", "--json", "--findings", "findings.json")
    assert code == 1
    assert [one["kind"] for one in json.loads(out)["findings"]] == [Kind.EXPECTATION]


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["guard"], "log"),
        (["guard", "--log", "x"], "snapshot"),
        (["explain", "r1"], "bundle"),
        (["materialize"], "bundle"),
        (["serve"], "bundle"),
        (["serve", "--bundle", "x"], "store"),
        (["serve", "--bundle", "x", "--store", "sqlite:x"], "log"),
        (["snapshot", "build", "--entity-df", "x"], "bundle"),
    ],
)
def test_a_missing_setting_says_how_to_give_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], name: str
) -> None:
    """The error names the flag, the file and the variable, and the exit code is 2."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    variable = f"SKEWGUARD_{name.upper()}"
    assert err == f"skewguard: {name} is not set: give --{name}, put it into skewguard.toml, or set {variable}\n"


def test_a_flag_stands_above_the_environment_and_that_above_the_file(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch, skewed: Path, loop: Loop
) -> None:
    """skewguard.toml, SKEWGUARD_LOG and --log name the log, the later above the earlier."""
    assert run("guard")[0] == 0
    monkeypatch.setenv("SKEWGUARD_LOG", str(skewed))
    assert run("guard")[0] == 1
    assert run("guard", "--log", loop.clean_log)[0] == 0
    monkeypatch.chdir(project.parent)
    monkeypatch.delenv("SKEWGUARD_LOG")
    assert run("guard", "--project", project)[0] == 0
    assert run("guard", "--project", project / "skewguard.toml")[0] == 0


def test_a_wrong_project_file_is_told_whole(run: Run, project: Path) -> None:
    """Every complaint about skewguard.toml is printed, and nothing is run."""
    (project / "skewguard.toml").write_text("[skewguard]\nlogs = 'x'\nstores = 'y'\n")
    code, _, err = run("guard")
    assert code == 2
    assert "unknown setting 'logs'" in err
    assert "unknown setting 'stores'" in err


def test_a_server_is_started_with_what_flags_and_file_say(project: Path, loop: Loop) -> None:
    """`serve_settings` reads the flags of `skewguard serve` over the project, for who starts the server himself."""
    settings = serve_settings(["--model", "m", "--build", "B", "--evidence", "shadow", "--accept-as-of", "--port", "1"])
    assert (settings.bundle, settings.log) == (loop.bundle_path, loop.clean_log)
    assert Path(settings.store.removeprefix("sqlite:")).resolve() == project / "online.db"
    assert (settings.model, settings.build, settings.evidence) == (Path("m"), "B", "shadow")
    assert (settings.accept_as_of, settings.host, settings.port) == (True, "127.0.0.1", 1)


# -- the other commands -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("project")
def test_materializing_publishes_what_is_known_and_once(run: Run) -> None:
    """The first run writes each key's newest row, the next what has become known since; the watermark says how far."""
    code, out, _ = run("materialize", "--known-by", "2024-03-04T10:00:00Z", "--json")
    assert (code, json.loads(out)) == (0, {"plane": 9, "weather": 3})
    code, out, _ = run("materialize", "--known-by", "2024-03-04T11:30:00+01:00")
    assert (code, out) == (0, "plane: 1 rows\nweather: 2 rows\n")
    store = open_store("sqlite:online.db")
    (mark,) = store.mget([watermark_key(PROJECT, "weather")])
    assert mark is not None
    assert watermark_of(mark) == us(at(10.5))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("text", ["2024-03-04T10:00:00", "yesterday", "1709546400"])
def test_an_instant_without_an_offset_is_refused(run: Run, text: str) -> None:
    """--known-by wants an instant that means the same everywhere."""
    code, _, err = run("materialize", "--known-by", text)
    assert code == 2
    assert "--known-by: expected an ISO instant with an offset such as" in err
    assert not Path("online.db").exists()


@pytest.mark.usefixtures("project")
def test_materializing_to_no_store_is_told(run: Run) -> None:
    """A store that does not answer is exit code 2."""
    code, _, err = run("materialize", "--store", "redis://127.0.0.1:1", "--known-by", "2024-03-04T10:00:00Z")
    assert code == 2
    assert "online store redis://127.0.0.1:1: does not answer" in err


def test_a_snapshot_is_built_from_a_file_of_asks(run: Run, project: Path) -> None:
    """Rows, labels and the rule are as asked for; a snapshot is never overwritten."""
    pq.write_table(asks_between(at(-24), timedelta(hours=4), 12), project / "labels.parquet")
    flags = ["--entity-df", "labels.parquet", "--label", "late", "--id", "id", "--snapshot", "made"]
    code, out, _ = run("snapshot", "build", *flags, "--json")
    made = load_snapshot(project / "made")
    assert code == 0
    assert json.loads(out) == {"id": made.id, "rows": 12, "ties": {"plane": 0, "weather": 0}}
    assert made.manifest.labels == ("late",)
    code, _, err = run("snapshot", "build", *flags)
    assert code == 2
    assert "made exists; a snapshot is never overwritten" in err
    code, out, _ = run("snapshot", "build", *flags, "--snapshot", "leaky", "--rule", "feast")
    assert code == 0
    assert out.startswith("leaky: 12 rows, id ")
    assert load_snapshot(project / "leaky").manifest.rule == "feast"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("nowhere.parquet", "entity_df: nowhere.parquet: expected a Parquet file"),
        ("policy.toml", "entity_df: policy.toml: expected a Parquet file"),
        ("short.parquet", "tail: column is missing; the asks have id, event_timestamp"),
    ],
)
def test_asks_that_cannot_be_read_are_told(run: Run, project: Path, file: str, reason: str) -> None:
    """A file that is missing, no Parquet, or short of a column is exit code 2 and leaves no snapshot."""
    asks = asks_between(at(0), timedelta(hours=1), 3).select(["id", "event_timestamp"])
    pq.write_table(asks, project / "short.parquet")
    code, _, err = run("snapshot", "build", "--entity-df", file, "--snapshot", "made")
    assert code == 2
    assert reason in err
    assert not list(project.glob("made*"))


@pytest.mark.usefixtures("project")
def test_a_request_is_explained_in_words_and_as_json(run: Run, skewed: Path) -> None:
    """What differs is marked, its source rows and five lines of pandas are shown; JSON holds all of it."""
    code, out, _ = run("explain", "r071", "--log", skewed)
    assert code == 0
    assert "request r071: tail N5, origin " in out
    assert "answered by build B on here" in out
    assert "differs" in out
    assert "the truth without skewguard:\nimport pandas as pd; t = pd.Timestamp(" in out
    assert out.count("import pandas as pd") == 1, "only the view that differs"
    code, out, _ = run("explain", "r071", "--log", skewed, "--json")
    explanation = json.loads(out)
    assert code == 0
    assert next(line["feature"] for line in explanation["lines"] if not line["equal"]) == "weather__wind"
    code, out, _ = run("explain", "r072")
    assert out.count("import pandas as pd") == 2, "where nothing differs, every view that has a key"


@pytest.mark.usefixtures("project")
def test_a_request_that_was_never_answered_is_told(run: Run) -> None:
    """An unknown id is exit code 2 with the log's name."""
    code, _, err = run("explain", "r999")
    assert code == 2
    assert "request 'r999' is not in the log at" in err


def test_a_key_in_brackets_is_shown_as_it_is(run: Run, project: Path, loop: Loop) -> None:
    """What a caller sent is text, not markup: it neither vanishes nor breaks the table."""
    (_, batch), *_ = read_log(loop.clean_log, SERVICE).batches()
    for name, value in (("id", "[/b]"), ("e__tail", "[bold]N1[/x]")):
        place = batch.schema.get_field_index(name)
        batch = batch.set_column(place, batch.schema.field(place), pa.array([value]))
    with loop.open_log(project / "log") as log:
        log.append(batch)
    code, out, _ = run("explain", "[/b]", "--log", project / "log")
    assert code == 0
    assert "request [/b]: tail [bold]N1[/x], origin" in out


@pytest.mark.parametrize(
    "argv", [[], ["guards"], ["snapshot", "make"], ["guard", "--cross-check", "many"], ["guard", "--counted", "-5"]]
)
def test_a_wrong_command_line_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What argparse refuses is 'could not run' as well, with the usage."""
    with pytest.raises(SystemExit) as raised:
        main(argv)
    assert raised.value.code == 2
    assert "usage: skewguard" in capsys.readouterr().err


def test_a_command_whose_packages_are_missing_names_the_extra(tmp_path: Path, loop: Loop) -> None:
    """Without DuckDB `skewguard materialize` is exit code 2 and says what to install."""
    code = "import sys; sys.modules['duckdb'] = None; from skewguard.cli import main; sys.exit(main(sys.argv[1:]))"
    flags = ["materialize", "--bundle", str(loop.bundle_path), "--store", f"sqlite:{tmp_path}/o.db"]
    done = subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        "`skewguard materialize` needs packages that are not installed: pip install 'skewguard[guard]'" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_the_module_exits_with_the_commands_code(tmp_path: Path, project: Path) -> None:
    """As a process, too, the exit code is the ruling's, and standard output is the document alone."""
    flags = ["guard", "--json", "--log", str(tmp_path / "nowhere")]
    done = subprocess.run(
        [sys.executable, "-m", "skewguard.cli", *flags], cwd=project, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 3
    document: dict[str, Any] = json.loads(done.stdout)
    assert (document["ruling"], done.stderr) == ("UNKNOWN", "")
    assert np.isfinite(document["coverage"]["rows"])


def test_outcomes_are_brought_in_and_judged(run: Run, project: Path, loop: Loop) -> None:
    """Outcomes from a file find what the log lacks; a file without the column is told."""
    table = loop.asks.select(["id", "event_timestamp"]).append_column("late", pa.array([1.0] * len(loop.asks)))
    more = pa.table({"id": ["gone"], "event_timestamp": table["event_timestamp"].slice(9, 1), "late": [0.0]})
    pq.write_table(pa.concat_tables([table, more]), project / "arrived.parquet")
    kept = project / "outcomes"
    flags = ["--outcomes", kept, "--outcome", "late", "--as-of", "event_timestamp"]
    code, out, _ = run("outcomes", "import", project / "arrived.parquet", *flags, "--json")
    assert (code, json.loads(out)["rows"], json.loads(out)["timed"]) == (0, 181, 181)
    code, out, _ = run("guard", "--outcomes", kept, "--json")
    assert code == 1
    verdict = Verdict.from_json(json.loads(out))
    assert [(one.kind, one.rows) for one in verdict.findings] == [(Kind.INCOMPLETE, 1)]
    code, _, err = run("outcomes", "import", project / "arrived.parquet", "--outcome", "arrival")
    assert code == 2
    assert "no column 'arrival'; there are id, event_timestamp, late" in err


def test_a_guard_looks_at_a_window(run: Run, project: Path) -> None:  # noqa: ARG001
    """Since an instant, or for so long: without rows there the ruling is UNKNOWN; a naive instant is refused."""
    code, out, err = run("guard", "--since", "2024-03-04T12:00Z", "--json")
    assert err == ""
    assert Verdict.from_json(json.loads(out)).coverage.since.startswith("2024-03-04T12:00")
    code, out, _ = run("guard", "--since", "1h", "--json")
    assert code == 3
    code, _, err = run("guard", "--since", "2024-03-04T12:00")
    assert code == 2
    assert "expected an instant with a time zone" in err
