import datetime as dt
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from html import escape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from skewguard import report
from skewguard.errors import MissingExtra
from skewguard.findings import Example, Finding, Kind, Shift, Tap
from skewguard.report import headline, sentence, to_html, to_json, to_text
from skewguard.report.wording import moment, share
from skewguard.verdict import Coverage, Ruling, Subject, Verdict

HEX = "9f2c4be07d1a58f36e0b7c8d94a1325f6b80de47c3a9152e8f70b6d41c93ae52"
START = dt.datetime(2013, 11, 4, tzinfo=dt.UTC)

WIND = Finding(
    kind=Kind.MISMATCH,
    feature="weather__wind_speed",
    rows=412,
    of=9_800,
    message="weather.wind_speed: served 16.66806, trained 10.35702 - request 8f3c1d, origin EWR, as of "
    "2013-11-05T14:05:00Z. The served value is the true one in another unit.",
    tap=Tap.STORE,
    cause="served = truth x 1.609",
    cause_kind="unit",
    explained=0.9976,
    slices=("only build B", "since 14:05"),
    examples=(
        Example(
            "8f3c1d0a-77be-4c1e-9a55-0d2f5a1b7c01", "2013-11-05T14:05:00+00:00", "origin=EWR", "16.66806", "10.35702"
        ),
        Example(
            "8f3c1d0a-77be-4c1e-9a55-0d2f5a1b7c02", "2013-11-05T14:06:00+00:00", "origin=JFK", "18.5194", "11.5078"
        ),
    ),
    by_hour=tuple(
        ((START + dt.timedelta(hours=h)).isoformat(), 60 + h % 7, (h % 5) * 3 if h >= 38 else 0) for h in range(120)
    ),
)


STALE = Finding(
    Kind.STALE, "weather__temp", 1_931, 9_800, "weather.temp: served 48.92, trained 53.06 - request 77aa.",
    slices=("every build",), by_hour=(("2013-11-05T10:00:00+00:00", 61, 61), ("2013-11-05T13:00:00+00:00", 57, 0)),
)  # fmt: skip
GUST = Finding(
    Kind.EXPECTATION, "weather__wind_gust", 44, 26_115,
    "weather.wind_gust: expected 0 to 150, got 1048.36 in 44 of 26,115 rows; in weather.parquet.",
    examples=(Example("", "2013-02-12T08:00:00Z", "origin=EWR", "1048.36", "expected 0 to 150"),),
)  # fmt: skip
YEAR = Finding(
    Kind.EXPECTATION, "plane__year", 70, 3_322, "plane.year: expected no null, got null in 70 of 3,322 rows."
)  # fmt: skip
BLIND = ("A mistake in the source itself: both sides read the same wrong value.", "Requests that were never logged.")
REFUSED = "flight-delay must not be registered"
EMPTY = "the log holds no request of service delay"
PASSED = ("9,800 rows replayed, 12 of them lagged within max_lag, none differs",)


def verdict(
    ruling: Ruling = Ruling.FAIL, findings: tuple[Finding, ...] = (WIND, STALE, GUST), reasons: tuple[str, ...] = ()
) -> Verdict:
    """A verdict on the flight-delay model."""
    subject = Subject(
        registered_name="flight-delay",
        model_id="m-6b0d7b5e2c0c4d7a8a6c1f0e9b3d5a42",
        model_digest=HEX,
        snapshot_id="snap-" + HEX[:24],
        bundle_digest=HEX[::-1],
        service="delay",
        builds=("A-2013.11.04", "B-2013.11.05"),
    )
    coverage = Coverage(
        rows=9_800,
        equal=7_386,
        lagged=12,
        mismatched=2_370,
        unverifiable=32,
        values=264_600,
        since="2013-11-04T00:00:00+00:00",
        until="2013-11-10T23:59:00+00:00",
        cross_checked=201,
        blind=BLIND,
    )
    return Verdict(
        ruling=ruling,
        reasons=reasons or tuple(finding.message for finding in findings),
        subject=subject,
        coverage=coverage,
        findings=findings,
        waived=(YEAR,),
        policy_digest=HEX[:32] * 2,
        issued_at="2026-11-21T00:03:18+00:00",
        expires_at="2026-11-28T00:03:18+00:00",
        quiet=(
            Shift("weather__humid", 0.53, 0.51, "mean 58.99, now 49.2; median 60.98, now 48.92"),
            Shift("weather__wind_speed", 0.31, 0.28, "mean 10.2, now 14.1", skewed=True),
        ),
        advice="The pipeline broke, and the inputs moved: mend the pipeline first and look again.",
        notes=("this window: accuracy 87.0%, AUC 0.701",),
    )


def nothing_seen() -> Verdict:
    """A verdict without a subject, a row or a finding."""
    reasons = (EMPTY,)
    return Verdict(
        Ruling.UNKNOWN, reasons, Subject(), Coverage(), (), (), "", "2026-11-21T00:03:18+00:00", "2026-11-28T00:03:18Z"
    )


VERDICTS = {
    "pass": replace(
        verdict(Ruling.PASS, (), PASSED), coverage=Coverage(rows=9_800, equal=9_788, lagged=12, values=264_600)
    ),
    "fail": verdict(),
    "unknown": verdict(Ruling.UNKNOWN, (), ("412 rows were replayed, the policy wants 1,000", "37 are unverifiable")),
    "nothing": nothing_seen(),
}
every_verdict = pytest.mark.parametrize("judged", VERDICTS.values(), ids=VERDICTS)


class Page(HTMLParser):
    """What a page holds: its elements, its text, and a complaint for every tag that is not closed in order."""

    VOID = ("meta", "link", "br", "img", "path", "rect", "circle", "line")

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.complaints: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.complaints += [f"<{tag}> is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.complaints.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """The visible words and what is told to those who cannot see the pictures."""
        told = [attributes["aria-label"] for _, attributes in self.elements if "aria-label" in attributes]
        return re.sub(r"\s+", " ", "".join(self.words) + " ".join(told))

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def texts(value: Any) -> Iterator[str]:
    """Every text anywhere in a verdict."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for one in value:
            yield from texts(one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from texts(getattr(value, field.name))


def poisoned(value: Any, poison: str) -> Any:
    """The same verdict with `poison` in every free text."""
    if type(value) is str:
        return value and value + poison
    if isinstance(value, tuple):
        return tuple(poisoned(one, poison) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: poisoned(getattr(value, field.name), poison) for field in fields(value)})
    return value


def test_a_finding_reads_as_one_sentence() -> None:
    """The sentence names feature, rows of rows, cause and where it holds."""
    assert sentence(WIND) == (
        "weather.wind_speed: 412 of 9,800 rows, served = truth x 1.609, only build B, since 14:05"
    )


@pytest.mark.parametrize(
    ("finding", "reads"),
    [
        (STALE, "weather.temp: 1,931 of 9,800 rows, served an older row than max_lag allows, every build"),
        (GUST, "weather.wind_gust: expected 0 to 150, got 1048.36 in 44 of 26,115 rows; in weather.parquet"),
        (Finding(Kind.LOG, "delay", 0, 0, ""), "delay: 0 of 0 rows, the serving log is not what it should be"),
        (
            Finding(Kind.DEFINITION, "a__b__c", 9, 9, "a__b__c: the log knows another transform."),
            "a.b__c: 9 of 9 rows, the log knows another transform",
        ),
    ],
)
def test_a_finding_without_a_cause_says_what_it_is(finding: Finding, reads: str) -> None:
    """Where no cause explains it, the kind or the message does, and the rows are told once."""
    assert sentence(finding) == reads


@pytest.mark.parametrize(
    ("judged", "says"),
    [
        (VERDICTS["pass"], f"flight-delay may be registered: {PASSED[0]}."),
        (
            VERDICTS["fail"],
            f"{REFUSED}: 2,370 of 9,800 requests were answered with values that training would not have seen.",
        ),
        (
            replace(verdict(findings=(GUST,)), coverage=Coverage(rows=5)),
            f"{REFUSED}: weather.wind_gust: expected 0 to 150, got 1048.36 in 44 of 26,115 rows; in weather.parquet.",
        ),
        (
            VERDICTS["unknown"],
            "flight-delay cannot be judged, so it is not registered: 412 rows were replayed, the policy wants 1,000.",
        ),
        (nothing_seen(), f"The model cannot be judged, so it is not registered: {EMPTY}."),
    ],
)
def test_the_verdict_reads_as_one_sentence(judged: Verdict, says: str) -> None:
    """The sentence at the top says whether the model may be registered, and why; both renderings begin with it."""
    assert headline(judged) == says
    assert says in Page(to_html(judged)).text
    assert says.replace(" ", "") in re.sub(r"[\s│]", "", to_text(judged))


@every_verdict
def test_json_is_read_back_as_the_same_verdict(judged: Verdict) -> None:
    """What `to_json` writes is the whole verdict."""
    assert Verdict.from_json(json.loads(to_json(judged))) == judged


@every_verdict
def test_the_page_tells_every_text_and_number(judged: Verdict) -> None:
    """Every finding, example, hour, digest and count of the verdict is on the page."""
    told = Page(to_html(judged)).text
    seen = judged.coverage
    for number in (seen.rows, seen.equal, seen.lagged, seen.mismatched, seen.unverifiable, seen.values):
        assert f"{number:,}" in told
    assert not seen.cross_checked or f"{seen.cross_checked} rows recomputed by the independent oracle" in told
    for finding in judged.findings:
        assert f"{finding.rows:,} of {finding.of:,} rows {share(finding.rows, finding.of)}" in told
        for hour, of, some in finding.by_hour:
            assert f"{moment(hour)}: {some} of {of} rows, {share(some, of)}" in told
    of_ours = {member.value for enum in (Kind, Tap, Ruling) for member in enum}
    for text in set(texts(judged)) - of_ours - {""}:
        shown = moment(text).removesuffix(" UTC") if re.fullmatch(r"\d{4}-\d\d-\d\dT.*", text) else text
        shown = shown.replace("__", ".", 1).rstrip(".").removeprefix("expected ")
        if not re.match(r"weather\.\w+: |plane\.year: ", shown):
            assert shown in told
    for finding in judged.findings:
        assert finding.message.partition(": ")[2].rstrip(".") in told


@every_verdict
def test_the_terminal_tells_every_finding_and_count(judged: Verdict) -> None:
    """On a terminal stand the ruling, the coverage, every finding, what is waived, and what cannot be seen."""
    told = re.sub(r"\s+", " ", to_text(judged, width=240))
    seen = judged.coverage
    assert judged.ruling.value in told
    assert (
        f"{seen.rows:,} rows replayed: {seen.equal:,} equal, {seen.lagged:,} lagged, {seen.mismatched:,} mismatched, "
        f"{seen.unverifiable:,} unverifiable; {seen.values:,} values compared" in told
    )
    for finding in judged.findings:
        assert finding.feature.replace("__", ".") in told
        assert f"{finding.rows:,} of {finding.of:,}" in told
        assert (finding.cause or finding.message.partition(": ")[2].rstrip(".")) in told
        assert all(part in told for part in finding.slices)
    for line in (*seen.blind, *map(sentence, judged.waived), judged.policy_digest, judged.subject.model_id):
        assert line in told


def test_the_terminal_report_keeps_to_its_width() -> None:
    """No line is longer than asked for, and colour is there only if asked for."""
    for width in (60, 100, 160):
        assert max(map(len, to_text(verdict(), width=width).splitlines())) <= width
    assert "\x1b[" not in to_text(verdict())
    assert "\x1b[" in to_text(verdict(), colour=True)


@every_verdict
def test_the_page_is_well_formed(judged: Verdict) -> None:
    """Every element is closed in order, ids are unique, links lead somewhere, and headings skip no level."""
    page = Page(to_html(judged))
    assert page.complaints == []
    assert len(set(page.ids)) == len(page.ids)
    assert {tag["href"].removeprefix("#") for name, tag in page.elements if name == "a"} <= set(page.ids)
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


@every_verdict
def test_the_page_loads_nothing(judged: Verdict) -> None:
    """One file: no script, no frame, no address, and a policy that forbids what nobody wrote."""
    html = to_html(judged)
    page = Page(html)
    assert "://" not in html
    assert not {"script", "iframe", "img", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
    assert [tag["href"] for name, tag in page.elements if name == "link"] == ["data:,"]
    assert not re.search(r"@import|url\(", html)
    policies = [tag["content"] for _, tag in page.elements if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


@pytest.mark.parametrize(
    "poison",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "</style></title>",
        "&lt;b&gt;",
    ],
)
def test_no_value_becomes_markup(poison: str) -> None:
    """Whatever a value holds, the page has the same elements as without it, and shows it as it is."""
    clean = to_html(verdict(), title="report")
    html = to_html(poisoned(verdict(), poison), title="report" + poison)
    page = Page(html)
    assert page.complaints == []
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in Page(clean).elements]
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert f"served = truth x 1.609{poison}" in page.text
    assert f"origin=EWR{poison}" in page.text


def test_no_value_moves_the_cursor_or_turns_the_line() -> None:
    """Control characters, text direction marks and lone surrogates are shown by their number on page and terminal."""
    poison = "\x1b[2J\x07\u202e\ud800[bold]x[/bold]"
    judged = poisoned(verdict(), poison)
    for told in (to_html(judged), to_text(judged, width=400)):
        assert not re.search("[\x1b\x07\u202e\ud800]", told)
        assert "\\u001b[2J\\u0007\\u202e\\ud800[bold]x[/bold]" in told
        told.encode()


@pytest.mark.parametrize(
    ("some", "of", "reads"),
    [(0, 9, "0%"), (9, 9, "100%"), (1, 10**6, "<0.01%"), (10**6 - 1, 10**6, ">99.99%"), (1, 3, "33.33%"), (0, 0, "-")],
)
def test_a_share_never_rounds_some_to_none(some: int, of: int, reads: str) -> None:
    """One row in a million is not 0 %, and all but one are not 100 %."""
    assert share(some, of) == reads


def test_a_finding_within_its_limit_is_marked() -> None:
    """A finding that is no reason for the ruling says so, on the page and on the terminal."""
    judged = verdict(reasons=(WIND.message, GUST.message))
    assert Page(to_html(judged)).text.count("within limit") == 2  # in the index and on its card
    assert to_text(judged).count("within the policy's limit") == 1
    assert "within" not in to_text(verdict())
    for told in (Page(to_html(judged)).text, to_text(judged)):
        assert told.index("weather.wind_gust") < told.index("weather.temp")  # what decided comes first


@pytest.mark.parametrize("hours", [(), (("once upon a time", 3, 1),), (("2013-11-05T10:00:00+00:00", 0, 0),)])
def test_odd_hours_are_drawn_nevertheless(hours: tuple[tuple[str, int, int], ...]) -> None:
    """No hours, hours without rows and hours that are no instants make a page like any other."""
    assert Page(to_html(verdict(findings=(replace(WIND, by_hour=hours),)))).complaints == []


def test_a_year_of_hours_stays_a_small_file() -> None:
    """8,760 hours of a finding are drawn within a megabyte."""
    year = tuple(((START + dt.timedelta(hours=h)).isoformat(), 100, h % 7) for h in range(8_760))
    assert len(to_html(verdict(findings=(replace(WIND, by_hour=year),)))) < 1_500_000


def test_the_command_that_explains_a_request_is_on_its_card() -> None:
    """A request's examples lead to `skewguard explain`; a row of a file has no request to explain."""
    told = Page(to_html(verdict())).text
    assert told.count("skewguard explain") == 1
    assert f"skewguard explain {WIND.examples[0].request_id}" in told


def test_importing_the_room_loads_no_rich() -> None:
    """The page is rendered where nothing but the standard library is installed."""
    told = subprocess.run(
        [sys.executable, "-c", "import sys, skewguard.report; print('rich' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == "False"


def test_without_rich_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the terminal report without rich is told what to install."""
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(MissingExtra, match=r"pip install 'skewguard\[guard\]'"):
        to_text(verdict())


def colours(css: str) -> dict[str, str]:
    """The colours that a block of style names."""
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", css))


def contrast(a: str, b: str) -> float:
    """The contrast of two colours, as WCAG 2 measures it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_colours_can_be_told_apart() -> None:
    """In light and dark, text has the contrast that WCAG AA asks for, and pictures theirs."""
    css = (Path(report.__file__).parent / "style.css").read_text()
    light = colours(css.partition("@media")[0])
    dark = colours(css.split("@media")[1])
    assert set(light) == set(dark)
    for theme in (light, dark):
        for back in ("page", "paper", "soft"):
            assert min(contrast(theme[ink], theme[back]) for ink in ("ink", "quiet", "link", "fail")) >= 4.5
        for ruling in ("pass", "fail", "unknown"):
            assert contrast(theme[ruling], theme[f"{ruling}-back"]) >= 4.5
        for part in ("equal", "lagged", "mismatched", "unverifiable"):
            assert contrast(theme[part], theme["page"]) >= 3


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (390, 1366, 1920, 2200)
MEASURE = """<script>
addEventListener("load", () => {
  const wide = [];
  for (const one of document.querySelectorAll("body *")) {
    if (one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll"))
      wide.push(one.tagName + "." + one.className);
    if (one.tagName === "TD" && one.scrollWidth > one.clientWidth + 1)
      wide.push("cell " + one.textContent);
  }
  const measured = {scroll: document.documentElement.scrollWidth, wide};
  parent.document.body.setAttribute("data-" + innerWidth, JSON.stringify(measured));
});
</script></body>"""


def browse(html: str, folder: Path) -> tuple[str, str]:
    """The page's elements after a real browser has shown it, and what it wrote on its console."""
    (folder / "page.html").write_text(html, encoding="utf-8")
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
            "--window-size=2200,1400", "--enable-logging=stderr", "--dump-dom", (folder / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def test_drift_stands_after_the_findings_and_never_among_them() -> None:
    """The quiet channel has a section of its own with the advice, what moved and by how much at least."""
    page = to_html(verdict())
    assert page.index('id="findings"') < page.index('id="drift"') < page.index('id="blind"')
    drift = page[page.index('id="drift"') : page.index('id="blind"')]
    for told in (
        "mend the pipeline first",
        "weather.humid",
        "0.510",
        "now 49.2",
        "a finding is about it",
        "accuracy 87.0%",
    ):
        assert told in drift
    assert "weather.humid" not in page[: page.index('id="drift"')]
    text = to_text(verdict())
    assert text.index("3 findings") < text.index("Drift") < text.index("What this check cannot see")


def test_a_number_is_drawn_served_against_truth() -> None:
    """Pairs of numbers become a picture with the line on which both are the same; a few are too few for one."""
    points = tuple((float(x), x * 1.609344) for x in range(1, 30))
    page = to_html(verdict(findings=(replace(WIND, points=points),)))
    assert page.count('<circle class="dot"') == 29
    assert '<line class="same"' in page
    assert "Served against truth, 29 rows" in page
    assert "<circle" not in to_html(verdict(findings=(replace(WIND, points=points[:2]),)))
    judged = verdict(findings=(replace(WIND, points=points),))
    assert Verdict.from_json(json.loads(to_json(judged))) == judged


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_a_browser_shows_the_page_without_scrolling_sideways(tmp_path: Path) -> None:
    """At the width of a phone, a laptop and a large screen nothing sticks out, and the console stays silent."""
    far = Example("r" * 80, "2013-02-12T08:00:00Z", "key=" + "k" * 200, "served " * 30, "truth_" * 30)
    long = replace(
        WIND,
        feature="derived__" + "gust_ratio_of_the_origin_" * 4,
        cause="served_" * 40,
        examples=(far, *WIND.examples),
    )
    drawn = replace(WIND, points=tuple((float(x), x * 1.6e6) for x in range(1, 60)))
    html = to_html(verdict(findings=(drawn, STALE, GUST, long)))
    shown, console = browse(html, tmp_path)
    assert "</main>" in shown
    assert console == ""
    # The same page in frames of each width, measured by a script that its own policy would not have let in.
    policy = '<meta http-equiv="Content-Security-Policy"'
    assert policy in html
    measuring = html.replace(policy, '<meta name="was"').replace("</body>", MEASURE)
    frames = [f'<iframe style="width: {w}px; border: 0" srcdoc="{escape(measuring)}"></iframe>' for w in WIDTHS]
    shown, console = browse(f"<!doctype html><title>t</title><body>{''.join(frames)}</body>", tmp_path)
    assert console == ""
    ((_, body),) = [element for element in Page(shown).elements if element[0] == "body"]
    measured = {width: json.loads(body[f"data-{width}"]) for width in WIDTHS}
    assert measured == {width: {"scroll": width, "wide": []} for width in WIDTHS}
