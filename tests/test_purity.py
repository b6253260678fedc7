"""What a transform may not read or change beside its inputs."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from skewguard.transforms.objection import Ground
from skewguard.transforms.purity import impurities
from tests.corpus_transforms import bad
from tests.test_proof import GOOD

Define = Callable[[str], ModuleType]


@pytest.fixture
def define(tmp_path: Path) -> Iterator[Define]:
    """Makes a module of a source text."""
    made: list[str] = []

    def make(source: str) -> ModuleType:
        name = f"pure_{len(made)}"
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        made.append(name)
        spec.loader.exec_module(module)
        return module

    yield make
    for name in made:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("one", GOOD, ids=lambda one: one.name)
def test_a_pure_transform_has_no_objection(one: object) -> None:
    """No false alarm on any transform of the corpus."""
    assert [str(objection) for objection in impurities(one)] == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "what", "line"),
    [
        ("age_now", "datetime.now reads the clock", "datetime.now(UTC)"),
        ("age_today", "reads the clock", "dt.date.today()"),
        ("age_numpy", "np.datetime64('now') reads the clock", 'np.datetime64("now")'),
        ("jittered", "random.gauss is random", "random.gauss(0, 1)"),
        ("jittered_numpy", "np.random.default_rng is random", "default_rng()"),
        ("by_environment", "os.environ reads the environment", "os.environ.get"),
        ("by_environment_at_import", "os.getenv reads the environment", "SCALE = float(os.getenv"),
        ("since_start", "time.time reads the clock", "STARTED = time.time()"),
        ("from_file", "Path reads files", "Path"),
        ("from_file_at_import", "Path reads files", "TABLE = json.loads(Path"),
        ("hashed", "hash differs from process to process", "hash(w) % 100"),
        ("set_order", "the order of the set", '"".join({"x", "y", "z"} | set(w))'),
        ("set_order_at_import", "the order of the set VOCABULARY", "enumerate(VOCABULARY)"),
        ("counted", "CALLS is changed by every call", "global CALLS"),
        ("remembered", "SEEN.setdefault changes SEEN", "SEEN.setdefault"),
        ("default_memory", "a default of default_memory is a list", "def default_memory"),
        ("cached", "_slow remembers earlier calls", "def cached"),
        ("rebound", "RATE, which rebound reads, is changed by set_rate", "RATE = value"),
        ("reloaded", "RATES, which reloaded reads, is changed by load_rates", "RATES.update(rates)"),
        ("by_python_version", "sys.version_info asks for the machine or the version", "sys.version_info"),
        ("by_machine", "platform.machine asks for the machine", "platform.machine()"),
        ("by_numpy_version", "np.__version__ asks for numpy's version", "np.__version__"),
        ("by_address", "id is an address in memory", "id(w) % 7"),
        ("local_zone", "astimezone() takes the machine's time zone", "v.astimezone().hour"),
    ],
)
def test_an_impurity_is_named_with_its_line(name: str, what: str, line: str) -> None:
    """Each objection says what is read or changed, and at which line."""
    found = [one for one in impurities(getattr(bad, name)) if what in one.what]
    assert found, [str(one) for one in impurities(getattr(bad, name))]
    assert found[0].ground is Ground.PURITY
    assert found[0].place is not None
    assert line in found[0].place.text or name == "default_memory"
    assert found[0].instead


CLOCKS = [
    "from time import time as t\ndef feature(x):\n    return x + t()\n",
    "import time\nclock = time.time\ndef feature(x):\n    return x + clock()\n",
    "import time\nclocks = {'now': time.time}\ndef feature(x):\n    return x + clocks['now']()\n",
    "import time\ndef helper():\n    return time.time()\ndef feature(x):\n    return x + helper()\n",
    """
import time
def outer():
    c = time.time
    def feature(x):
        return x + c()
    return feature
feature = outer()
""",
    "import time\ndef feature(x):\n    return [v + time.time() for v in [x]][0]\n",
    """
import time, functools
def add(x, f):
    return x + f()
P = functools.partial(add, f=time.time)
def feature(x):
    return P(x)
""",
    """
import time
class Clock:
    def now(self):
        return time.time()
C = Clock
def feature(x):
    return x + C().now()
""",
    "def feature(x):\n    import time\n    return x + time.time()\n",
    """
import time
class Clock:
    def now(self):
        return time.time()
C = Clock()
def feature(x):
    return x + C.now()
""",
    """
import time
from dataclasses import dataclass
@dataclass
class Settings:
    started: float = time.time()
S = Settings()
def feature(x):
    return x - S.started
""",
]


@pytest.mark.parametrize(
    "source",
    CLOCKS,
    ids=[
        "alias",
        "constant",
        "table",
        "helper",
        "closure",
        "comprehension",
        "partial",
        "class",
        "inside",
        "object",
        "field",
    ],
)
def test_a_clock_is_found_however_it_is_reached(define: Define, source: str) -> None:
    """Aliases, tables, helpers, closures, nested code, partials, classes and imports inside hide nothing."""
    assert any("clock" in one.what for one in impurities(define(source).feature)), source


OBJECT = """
class A:
    def __init__(self):
        self.k = 2
    def f(self, x):
        return x * self.k
def feature(x):
    return A().f(x)
"""


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (
            OBJECT.replace("return x * self.k", "self.n = x"),
            "self.n is changed",
        ),
        (
            "import decimal\ndef feature(x):\n    decimal.getcontext().prec = 3\n    return x\n",
            "how this thread rounds",
        ),
        (
            "import decimal\ndef feature(x):\n    with decimal.localcontext():\n        return x\n",
            "how this thread rounds",
        ),
        ("def feature(x):\n    return f'{x:%A}'\n", "takes the machine's language"),
        ("F = '%d %b'\ndef feature(x):\n    return x.strftime(F)\n", "takes the machine's language"),
        ("def feature(x):\n    return '{:%B}'.format(x)\n", "takes the machine's language"),
        ("def feature(x):\n    return len(repr(object()))\n", "an address in memory"),
        ("import numpy as np\ndef feature(x):\n    with np.errstate(all='raise'):\n        return x\n", "settings"),
    ],
    ids=["object", "context", "local context", "f-string", "format in a constant", "format", "address", "errstate"],
)
def test_what_a_process_keeps_for_itself_is_found(define: Define, source: str, what: str) -> None:
    """State in an object, a thread's rounding, the machine's language, an address."""
    assert any(what in one.what for one in impurities(define(source).feature)), source


@pytest.mark.parametrize(
    "source",
    [
        "T = {'a', 'b'}\ndef feature(x):\n    return x in T\n",
        "T = {'a', 'b'}\ndef feature(x):\n    return len(sorted(T)) + max(map(len, sorted(T)))\n",
        "T = {'a', 'b'}\ndef feature(x):\n    return sorted(w for w in set(x) if w in T)\n",
        "import os.path\nfrom posixpath import basename\ndef feature(x):\n    return basename(x)\n",
        "def feature(x):\n    parts = []\n    parts.append(x)\n    return parts[0]\n",
        "TABLE = {}\nfor i in range(3):\n    TABLE[i] = i * 2\ndef feature(x):\n    return TABLE.get(x, 0)\n",
        "def feature(x, scale=2.0):\n    total = 0\n    total += x\n    return total * scale\n",
        "import numpy as np\ndef feature(x):\n    with np.errstate(divide='ignore'):\n        return 1 / x\n",
        OBJECT,
        "import uuid\nN = uuid.UUID(int=7)\ndef feature(x):\n    return str(uuid.uuid5(N, x))\n",
        "import urllib.parse as u\ndef feature(x):\n    return u.urlsplit(x).netloc\n",
        "from pathlib import PurePosixPath\ndef feature(x):\n    return PurePosixPath(x).suffix\n",
        "def feature(x):\n    return f'{x:%Y-%m-%d}'\n",
    ],
    ids=[
        "membership",
        "sorted set",
        "generator",
        "path of a text",
        "own list",
        "table filled on import",
        "own total",
        "quiet",
        "object",
        "uuid5",
        "url",
        "path",
        "date",
    ],
)
def test_what_only_looks_impure_is_accepted(define: Define, source: str) -> None:
    """Sets without an order, texts that are paths, lists of one's own and tables filled on import are fine."""
    assert [str(one) for one in impurities(define(source).feature)] == []
