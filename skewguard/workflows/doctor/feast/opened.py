"""A Feast repository, opened without a chance of writing to it: a registry file is read from a copy."""

from __future__ import annotations

import copy
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureService, FeatureStore, Field, ValueType
from feast.feature_view import DUMMY_ENTITY_ID, DUMMY_ENTITY_NAME
from feast.infra.registry.file import FileRegistryStore
from feast.repo_config import RepoConfig, load_repo_config
from feast.repo_operations import parse_repo
from feast.types import String, from_feast_to_pyarrow_type

from skewguard.definitions.feast import locate, mapped_from
from skewguard.errors import DefinitionError, SkewguardError
from skewguard.place import parquet_files
from skewguard.workflows.doctor.cases import Shape
from skewguard.workflows.doctor.diagnosis import Unchecked

T = TypeVar("T")


class NoAnswer(SkewguardError):
    """A call that took longer than it may."""


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """What `call` gives, or raises; `NoAnswer` when it takes longer (it is then left alone)."""
    results: Queue[tuple[bool, Any]] = Queue()

    def run() -> None:
        try:
            results.put((True, call()))
        except BaseException as error:  # noqa: BLE001  (raised again where it was asked for)
            results.put((False, error))

    Thread(target=run, daemon=True).start()
    try:
        fine, value = results.get(timeout=seconds)
    except Empty:
        raise NoAnswer(f"{what} did not answer within {seconds:g} s") from None
    if not fine:
        raise value
    got: T = value
    return got


@dataclass(frozen=True)
class Asked:
    """A view as somebody asks for it: `projection` with its own name and key map. `service` names who does."""

    view: Any
    projection: Any
    service: str = ""

    @property
    def name(self) -> str:
        """By which it is asked for."""
        return str(self.projection.name_alias or self.view.name)


@dataclass
class Opened:
    """What there is to look at; `unchecked` collects what is not."""

    store: FeatureStore
    views: list[Any]
    asked: list[Asked]
    on_demand: list[Any]
    entities: dict[str, Entity]
    unchecked: list[Unchecked] = field(default_factory=list)
    applied: bool = True

    @property
    def repo(self) -> Path:
        """Where relative paths start."""
        return Path(self.store.repo_path)

    def keys(self, view: Any) -> list[Any]:
        """The columns of a view's join keys: none without entities, whatever columns Feast took for keys."""
        own = [name for name in view.entities if name != DUMMY_ENTITY_NAME]
        return [column for column in view.entity_columns if own and column.name != DUMMY_ENTITY_ID]

    def of_nobody(self) -> dict[str, Any]:
        """An ask of a view without entities: Feast wants the keys of the others all the same."""
        texts = (entity for entity in self.entities.values() if entity.name != DUMMY_ENTITY_NAME)
        return {one.join_key: "1" if one.value_type is ValueType.STRING else 1 for one in texts} or {
            DUMMY_ENTITY_ID: ""
        }

    def entities_of(self, view: Any) -> list[Entity]:
        """The entities of a view, as they are applied."""
        return [self.entities[name] for name in view.entities if name in self.entities and name != DUMMY_ENTITY_NAME]


@contextmanager
def opened(repo: str | Path, service: str = "", feature_store_yaml: str | Path | None = None) -> Iterator[Opened]:
    """The repository at `repo`; raises `DefinitionError` where there is none, or it does not load."""
    with TemporaryDirectory(prefix="skewguard-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            store, applied = _store(Path(repo), feature_store_yaml, Path(folder))
            found = _read(store, service, applied)
        except SkewguardError:
            raise
        except Exception as error:
            raise DefinitionError(f"{repo}: expected a Feast repository that loads, got {error}") from error
        yield found


def _store(repo: Path, feature_store_yaml: str | Path | None, folder: Path) -> tuple[FeatureStore, bool]:
    yaml = Path(feature_store_yaml) if feature_store_yaml else repo / "feature_store.yaml"
    if not yaml.is_file():
        raise DefinitionError(f"{repo}: expected a Feast repository with a feature_store.yaml, found none")
    config = load_repo_config(repo.absolute(), yaml)
    registry = config.registry
    held = getattr(registry, "path", "")
    applied = True
    if getattr(registry, "registry_type", "file") == "file" and held and "://" not in held:
        original = FileRegistryStore(registry, repo.absolute())._filepath  # noqa: SLF001  (nothing public resolves it)
        copied = folder / "registry.db"
        applied = original.is_file()
        if applied:
            shutil.copyfile(original, copied)
        config.registry_config, config._registry = {"path": str(copied)}, None  # noqa: SLF001  (cached)
    _online_from_a_copy(config, repo.absolute(), folder)
    store = FeatureStore(config=config)
    store.repo_path = repo.absolute()
    if not applied:
        _apply_elsewhere(config, repo.absolute(), folder)
    return store, applied


def sqlite_file(config: RepoConfig, repo: Path) -> Path | None:
    """The file of a SQLite online store, Feast's or ours; None for any other store."""
    online = config.online_store
    address = getattr(online, "address", None)
    if address is not None:
        url = str(address(repo))
        return repo / url.removeprefix("sqlite:") if url.startswith("sqlite:") else None
    path = getattr(online, "path", None)
    return repo / path if str(getattr(online, "type", "")) == "sqlite" and path else None


def _online_from_a_copy(config: RepoConfig, repo: Path, folder: Path) -> None:
    """SQLite writes files beside a database that it only reads."""
    file = sqlite_file(config, repo)
    if file is None or not file.is_file():
        return
    copied = folder / "online.db"
    for ending in ("", "-wal"):
        if (held := file.with_name(file.name + ending)).is_file():
            shutil.copyfile(held, f"{copied}{ending}")
    given = config.online_config if isinstance(config.online_config, dict) else {"type": "sqlite"}
    kept = {name: value for name, value in given.items() if name not in ("url", "path")}
    config.online_config, config._online_store = kept | {"path": str(copied)}, None  # noqa: SLF001  (cached)


def _apply_elsewhere(config: RepoConfig, repo: Path, folder: Path) -> None:
    """A repository that nobody applied: its definitions, registered in a copy, beside an online store of no use."""
    aside = copy.copy(config)
    aside.online_config, aside._online_store = {"type": "sqlite", "path": str(folder / "unused.db")}, None  # noqa: SLF001
    with chdir(repo), _importing(repo):
        found = parse_repo(repo)
        objects: list[Any] = [
            *found.entities,
            *found.data_sources,
            *found.feature_views,
            *found.stream_feature_views,
            *found.on_demand_feature_views,
            *found.feature_services,
        ]
        FeatureStore(config=aside).apply(objects)


@contextmanager
def _importing(repo: Path) -> Iterator[None]:
    """Modules of the repository can be imported, and leave no compiled files beside themselves."""
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(repo))
    try:
        yield
    finally:
        sys.dont_write_bytecode = written
        sys.path.remove(str(repo))


def _read(store: FeatureStore, service: str, applied: bool) -> Opened:
    named = {view.name: view for view in [*store.list_batch_feature_views(), *store.list_stream_feature_views()]}
    on_demand = {view.name: view for view in store.list_on_demand_feature_views()}
    services = list(store.list_feature_services())
    if service:
        services = [one for one in services if one.name == service]
        if not services:
            known = ", ".join(one.name for one in store.list_feature_services()) or "none"
            raise DefinitionError(f"feature service {service!r} is not in the registry; it has {known}")
        wanted = _reached(services[0], on_demand)
        named = {name: view for name, view in named.items() if name in wanted}
        on_demand = {name: view for name, view in on_demand.items() if name in wanted}
    asked = [Asked(view, view.projection) for view in named.values()]
    seen = set()
    for one in services:
        for projection in one.feature_view_projections:
            key = (projection.name, projection.name_alias, tuple(sorted(projection.join_key_map.items())))
            if projection.name in named and (projection.name_alias or projection.join_key_map) and key not in seen:
                seen.add(key)
                asked.append(Asked(named[projection.name], projection, one.name))
    entities = {entity.name: entity for entity in store.list_entities()}
    found = Opened(store, list(named.values()), asked, list(on_demand.values()), entities, applied=applied)
    if not applied:
        why = "its registry is not there yet: run `feast apply`; the definitions were read from its files"
        found.unchecked.append(Unchecked("the repository's own stores", why))
    for label in getattr(store, "list_label_views", list)():
        found.unchecked.append(Unchecked(f"label view {label.name}", "labels are not served"))
    return found


def _reached(service: FeatureService, on_demand: dict[str, Any]) -> set[str]:
    names = {projection.name for projection in service.feature_view_projections}
    for name in names & on_demand.keys():
        names = names | {one.name for one in on_demand[name].source_feature_view_projections.values()}
    return names


def only(view: Any, features: Sequence[str], source: Any) -> Any:
    """A copy of a view with some of its features, over another source, never materialized."""
    made = copy.deepcopy(view)  # its own __copy__ forgets transformations
    made.features = [one for one in view.features if one.name in features]
    made.batch_source, made.stream_source = source, None
    made.materialization_intervals = []
    if not made.entities:  # a registry forgets the one that Feast puts there
        made.entities, made.entity_columns = [DUMMY_ENTITY_NAME], [Field(name=DUMMY_ENTITY_ID, dtype=String)]
    projection = copy.copy(view.projection)
    projection.features = made.features
    made.projection = projection
    return made


def shape_of(opened: Opened, view: Any) -> tuple[Shape, str]:
    """What the rows of a view's source look like, and why that was guessed from the declarations (empty if not)."""
    source = view.batch_source
    found, why = _schema(source, opened.repo)
    back = mapped_from(source)

    def kind(column: Any) -> pa.DataType:
        name = back.get(column.name, column.name)
        return found[name] if name in found else _declared(column.dtype)

    created = source.created_timestamp_column or None
    stamp = pa.timestamp("us", tz="UTC")
    times = [back.get(name, name) if name else None for name in (source.timestamp_field, created)]
    features = [one for one in view.features if not found or back.get(one.name, one.name) in found]
    shape = Shape(
        keys={key.name: kind(key) for key in opened.keys(view)},
        features={one.name: kind(one) for one in features},
        declared={one.name: str(one.dtype) for one in view.features},
        timestamp=source.timestamp_field,
        time_type=found.get(times[0], stamp),
        created=created,
        created_type=found.get(times[1], stamp) if created else None,
        ttl=view.ttl or None,
    )
    return shape, why


def _schema(source: Any, repo: Path) -> tuple[dict[Any, pa.DataType], str]:
    try:
        path = locate(source.path, repo)
        with parquet_files(path)[0].open() as stream, pq.ParquetFile(stream) as file:
            return {one.name: one.type for one in file.schema_arrow}, ""
    except (SkewguardError, AttributeError, IndexError, OSError, ValueError, pa.ArrowException) as error:
        return {}, f"its source cannot be read here ({error or type(error).__name__}): types are those declared"


def _declared(dtype: Any) -> pa.DataType:
    try:
        kind = from_feast_to_pyarrow_type(dtype)
    except (ValueError, KeyError):
        return pa.string()
    return pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(kind) else kind
