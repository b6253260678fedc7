"""A full disk, all the way: the service's own process goes on, and the guard does not pass what it cannot see."""

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from skewguard.servinglog import read_log
from skewguard.servinglog.writer import ServingLog
from skewguard.verdict import Ruling
from tests.loop import SERVICE, Loop, at, us


def _full(*_: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_gap_in_the_log_is_unknown_and_one_before_the_window_is_none(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers that a full disk kept out of the log are counted in it, and no verdict over their time is a PASS."""
    rows = [batch for _, batch in read_log(loop.clean_log, SERVICE).batches()]
    with ServingLog(tmp_path, bundle=loop.bundle, schema=rows[0].schema, header=loop.header(),
                    on_failure="answer_and_count") as log:  # fmt: skip
        for batch in rows[:-1]:
            log.append(batch)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwritev", _full)
            patch.setattr(time, "time_ns", lambda: us(at(9)) * 1000)
            log.append(rows[-1])  # and no error
            assert log.writable
        assert log.stats().lost_rows == rows[-1].num_rows
    verdict = loop.guard(tmp_path).verdict
    assert verdict.ruling is Ruling.UNKNOWN
    assert "rows were answered and not logged, from 2024-03-04T09:00:00Z" in " ".join(verdict.reasons)
    assert "No space left on device" in " ".join(verdict.reasons)
    assert loop.guard(tmp_path, since=at(8.9)).verdict.ruling is Ruling.UNKNOWN
    later = loop.guard(tmp_path, since=at(9.1)).verdict
    assert "not logged" not in " ".join(later.reasons)
