"""What Prometheus sees of a watch: by a text file, or from a small server of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from skewguard.verdict import Ruling
from skewguard.workflows.watch.alerts import Alert

KINDS = ("equal", "lagged", "mismatched", "unverifiable")


@dataclass
class Counts:
    """What was counted since the watch began, and the last look. Instants in seconds since 1970, 0 for never."""

    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    looks: int = 0
    failures: int = 0
    alerts: int = 0
    undelivered: int = 0
    waiting: int = 0
    last_look: float = 0.0
    last_success: float = 0.0
    last_row: float = 0.0
    newest_ask: float = 0.0


def exposition(service: str, counts: Counts, ruling: Ruling, alerts: Sequence[Alert]) -> str:
    """The metrics in Prometheus' text format."""
    own = {"service": service}
    lines: list[str] = []

    def add(name: str, kind: str, about: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> None:
        lines.extend(_lines(f"skewguard_watch_{name}", kind, about, [(own | dict(labels), v) for labels, v in samples]))

    add("rows_total", "counter", "Rows judged.", [({"state": s}, n) for s, n in counts.rows.items()])
    add("looks_total", "counter", "Looks at the log.", [({}, counts.looks)])
    add("failed_looks_total", "counter", "Looks that could not read or judge.", [({}, counts.failures)])
    add("alerts_total", "counter", "Findings that were told.", [({}, counts.alerts)])
    add("undelivered_messages", "gauge", "Messages that the webhook has not taken yet.", [({}, counts.undelivered)])
    add("waiting_rows", "gauge", "Rows whose source row is not there yet.", [({}, counts.waiting)])
    add("last_look_timestamp_seconds", "gauge", "The last look.", [({}, counts.last_look)])
    add("last_success_timestamp_seconds", "gauge", "The last look that could read.", [({}, counts.last_success)])
    add("last_row_timestamp_seconds", "gauge", "When a row came last.", [({}, counts.last_row)])
    add("newest_ask_timestamp_seconds", "gauge", "The newest ask among the rows.", [({}, counts.newest_ask)])
    rulings = [({"ruling": str(one)}, float(one is ruling)) for one in Ruling]
    add("ruling", "gauge", "1 for what the window comes to.", rulings)
    labels = [{"kind": one.kind, "feature": one.feature, "cause": one.cause, "finding": one.name} for one in alerts]
    add("finding", "gauge", "1 for every open finding.", [(one, 1.0) for one in labels])
    rates = [(one, alert.rate) for one, alert in zip(labels, alerts, strict=True)]
    add("finding_rate", "gauge", "Share of the window's rows that show it.", rates)
    return "".join(f"{line}\n" for line in lines)


def _lines(name: str, kind: str, about: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{{{shown}}} {value:.10g}" if value < 1e9 else f"{name}{{{shown}}} {value:.3f}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Endpoint:
    """Serves `text` at /metrics, on a thread of its own. Raises `OSError` where the port is taken."""

    def __init__(self, host: str, port: int) -> None:
        endpoint = self
        self.text = ""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path.partition("?")[0] == "/metrics"
                body = endpoint.text.encode() if found else b"see /metrics\n"
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8" if found else "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nobody needs to know who scrapes."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self.port = int(self._server.server_address[1])
        Thread(target=self._server.serve_forever, args=(0.2,), daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


def replace_file(path: Path, text: str) -> None:
    """Write a file that is whole at every moment."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)
