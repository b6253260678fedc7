"""The log of what was served: written by the process that answered, read by everything that judges.

Needs numpy, pyarrow and a checksum in C only, so that it works inside anybody's service. The bytes are in `segment`,
the promise is in `writer`, and what a reader may rely on is in `reader`.
"""

from skewguard.servinglog.finding import find
from skewguard.servinglog.gaps import Gap
from skewguard.servinglog.reader import LogReading, blocks, read_log
from skewguard.servinglog.scan import Segment, recover
from skewguard.servinglog.tables import stream, to_table
from skewguard.servinglog.writer import ServingLog

__all__ = ["Gap", "LogReading", "Segment", "ServingLog", "blocks", "find", "read_log", "recover", "stream", "to_table"]
