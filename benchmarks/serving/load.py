"""Load: wrk where it is installed, else a client of our own, which takes more CPU and so understates the server.

wrk counts in whole seconds; shorter loads are our client's.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_LUA = """
local bodies = {%s}
local i = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
request = function() i = i + 1; return wrk.format(nil, nil, nil, bodies[i %% #bodies + 1]) end
done = function(summary, latency)
  print(string.format("figures %%d %%d %%f %%f %%f", summary.requests, summary.errors.status + summary.errors.read
    + summary.errors.timeout, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


@dataclass(frozen=True)
class Answered:
    """What a load saw; milliseconds."""

    requests: int
    errors: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rps(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def run(url: str, bodies: Sequence[str], connections: int, seconds: float, pin: Sequence[str]) -> Answered:
    """Keep `connections` busy for some seconds."""
    if seconds >= 1 and shutil.which("wrk"):
        return _wrk(url, bodies, connections, seconds, pin)
    return asyncio.run(_own(url, bodies, connections, seconds))


def _wrk(url: str, bodies: Sequence[str], connections: int, seconds: float, pin: Sequence[str]) -> Answered:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "load.lua"
        script.write_text(_LUA % ",".join(f"'{body}'" for body in bodies))
        whole = max(1, round(seconds))
        command = [*pin, "wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "30s", "-s", str(script), url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)  # noqa: S603  (our own)
    line = next(line for line in done.stdout.splitlines() if line.startswith("figures"))
    requests, errors, took, p50, p99 = map(float, line.split()[1:])
    return Answered(int(requests), int(errors), took, p50, p99)


async def _own(url: str, bodies: Sequence[str], connections: int, seconds: float) -> Answered:
    host, _, rest = url.removeprefix("http://").partition(":")
    port, _, path = rest.partition("/")
    start = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [f"{start}{len(body)}\r\n\r\n{body}".encode() for body in bodies]
    took: list[float] = []
    errors = 0
    began = time.perf_counter()

    async def one(number: int) -> None:
        nonlocal errors
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.perf_counter() - began < seconds:
            number += 1
            sent = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length"))
            await reader.readexactly(length)
            took.append(time.perf_counter() - sent)
            errors += not head.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(one(i * 7) for i in range(connections)))
    took.sort()
    lasted = time.perf_counter() - began
    return Answered(len(took), errors, lasted, took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3)


def bodies_of_ours(rows: int, keys: int) -> list[str]:
    """Requests about random keys, two in a hundred unknown."""
    return [
        json.dumps({"entities": {"id": ids[0]}} if rows == 1 else {"instances": [{"id": one} for one in ids]})
        for ids in _ids(rows, keys)
    ]


def bodies_of_feast(rows: int, width: int, keys: int) -> list[str]:
    """The same to Feast."""
    features = [f"v{width}:f{i}" for i in range(width)]
    return [json.dumps({"features": features, "entities": {"id": ids}}) for ids in _ids(rows, keys)]


def _ids(rows: int, keys: int) -> list[list[int]]:
    import numpy as np

    drawn = np.random.default_rng(3).integers(0, round(keys * 1.02), (256, rows))
    return [[int(one) for one in ids] for ids in drawn]
