"""The serving benchmark runs, at a size at which its figures mean nothing."""

import json
import shutil

import pytest

from benchmarks.serving.__main__ import main


@pytest.mark.redis
def test_a_quick_round_ends_with_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours, Feast's server and the floor are started, asked without a failed request, and ended."""
    if shutil.which("redis-server") is None and shutil.which("valkey-server") is None:
        pytest.skip("there is no redis-server here")
    assert main(["--quick"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(last) == {"features", "predict", "predict_disk", "log_cost_us", "log_bytes_per_row", "write"}
    (shape,) = last["features"].values()
    assert {"rps", "p99_ms", "p99_ms_4_connections", "cpu_us", "feast_rps", "ratio"} <= set(shape)
    assert min(shape["rps"], shape["feast_rps"], shape["cpu_us"]) > 0
    for predict, durability in (("predict", "process"), ("predict_disk", "disk")):
        assert {"rps", "p50_ms", "p99_ms", "cpu_us", "floor_cpu_us", "ratio_floor", "concurrency"} <= set(last[predict])
        assert last[predict]["durability"] == durability
        assert last[predict]["rps"] > 0
    assert last["log_bytes_per_row"] > 0 < last["log_cost_us"]
    assert {"rows_per_s", "feast_rows_per_s", "ratio"} <= set(last["write"])
