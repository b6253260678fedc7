from dataclasses import fields
from pathlib import Path

import pytest

from skewguard.errors import DefinitionError
from skewguard.workflows.project import FILE, Project, load_project

WHOLE = """
[skewguard]
service = "delay"
bundle = "delay.bundle.json"
store = "sqlite:online.db"
log = "/var/log/delay"
snapshot = "../snapshots/jan"
policy = "policy.toml"
registered_name = "flight-delay"
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / FILE
    path.write_text(text)
    return path


@pytest.mark.parametrize("named", ["file", "folder"])
def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path, named: str) -> None:
    """The same skewguard.toml means the same places wherever a command is started; names stay as they are."""
    path = _write(tmp_path, WHOLE)
    assert load_project(path if named == "file" else tmp_path, {}) == Project(
        service="delay",
        bundle=f"{tmp_path}/delay.bundle.json",
        store=f"sqlite:{tmp_path}/online.db",
        log="/var/log/delay",
        snapshot=f"{tmp_path}/../snapshots/jan",
        policy=f"{tmp_path}/policy.toml",
        registered_name="flight-delay",
    )


@pytest.mark.parametrize(
    ("store", "read"),
    [
        ("sqlite:/data/online.db", "sqlite:/data/online.db"),
        ("sqlite:///data/online.db", "sqlite:/data/online.db"),
        ("sqlite://online.db", "sqlite:{root}/online.db"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
    ],
)
def test_a_stores_url_is_a_path_only_where_it_is_sqlites(tmp_path: Path, store: str, read: str) -> None:
    """A relative SQLite path is the file's, an absolute one and another store's URL stay."""
    _write(tmp_path, f'[skewguard]\nstore = "{store}"\n')
    assert load_project(tmp_path, {}).store == read.format(root=tmp_path)


def test_the_working_directorys_file_is_read_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path the file beside which one stands counts, and none is no error."""
    monkeypatch.chdir(tmp_path)
    assert load_project(environ={}) == Project()
    _write(tmp_path, '[skewguard]\nlog = "log"\n')
    assert load_project(environ={}).log == "log"


def test_the_environment_overrides_every_setting(tmp_path: Path) -> None:
    """SKEWGUARD_<NAME> stands above the file, relative to the working directory; other variables say nothing."""
    _write(tmp_path, WHOLE)
    environ = {f"SKEWGUARD_{field.name.upper()}": f"my-{field.name}" for field in fields(Project)}
    project = load_project(tmp_path, environ | {"SKEWGUARD_COLOUR": "blue", "LOG": "x"})
    assert {field.name: getattr(project, field.name) for field in fields(Project)} == {
        field.name: f"my-{field.name}" for field in fields(Project)
    }


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set at the call counts, not what was set at the import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKEWGUARD_STORE", "redis://here")
    assert load_project().store == "redis://here"


def test_every_complaint_about_a_file_comes_at_once(tmp_path: Path) -> None:
    """An unknown section, unknown settings and values that are no text are all told, with the file's name."""
    path = _write(tmp_path, '[skewgaurd]\nlog = "x"\n[skewguard]\nlogs = "x"\nbundle = 3\nstore = ["a"]\n')
    with pytest.raises(DefinitionError) as raised:
        load_project(path, {})
    known = "bundle, log, policy, registered_name, service, snapshot, store"
    assert raised.value.complaints == [
        f"{path}: expected a section [skewguard], got 'skewgaurd'",
        f"{path}: unknown setting 'logs'; known are {known}",
        f"{path}: bundle: expected a text, got 3",
        f"{path}: store: expected a text, got ['a']",
    ]


@pytest.mark.parametrize("text", ["[skewguard", "skewguard = 3\n", 'log = "x"\n'])
def test_a_file_of_another_shape_is_told_and_no_traceback(tmp_path: Path, text: str) -> None:
    """No TOML, no section, settings outside of it: an error with the file's name."""
    path = _write(tmp_path, text)
    with pytest.raises(DefinitionError, match=f"^{path}: "):
        load_project(path, {})


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    """A path that was given and leads nowhere is an error, a folder without the file as well."""
    for path in (tmp_path / "other.toml", tmp_path):
        with pytest.raises(DefinitionError, match=r"expected a skewguard\.toml, found none"):
            load_project(path, {})


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("log", "log is not set: give --log, put it into skewguard.toml, or set SKEWGUARD_LOG"),
        (
            "snapshot",
            "snapshot is not set: give --snapshot, put it into skewguard.toml, or set SKEWGUARD_SNAPSHOT",
        ),
        ("service", "service is not set: give SERVICE, put it into skewguard.toml, or set SKEWGUARD_SERVICE"),
    ],
)
def test_a_missing_setting_says_how_to_give_it(name: str, how: str) -> None:
    """The error names the flag, the file and the variable."""
    with pytest.raises(DefinitionError) as raised:
        Project().require(name)
    assert str(raised.value) == how
    assert Project(log="x").require("log") == "x"
