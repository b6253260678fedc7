"""The log of what was served: written by the process that answered, read by everything that judges.

Needs numpy and pyarrow only, so that it works inside anybody's service. The bytes are in `segment`, the
promise is in `writer`, and what a reader may rely on is in `reader`.
"""

from skewguard.servinglog.reader import LogReading, Segment, find, read_log, recover, to_table
from skewguard.servinglog.writer import ServingLog

__all__ = ["LogReading", "Segment", "ServingLog", "find", "read_log", "recover", "to_table"]
