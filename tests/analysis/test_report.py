from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import make_report
from tests.tracking.fabricate import fabricate_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep with two results, a divergence, an error and an unfinished run, beside its runs."""
    folder = tmp_path_factory.mktemp("report")
    runs = folder / "runs"
    fabricate_run(runs, {"batch": 16}, mmAP=37.21, hours=38.4)
    fabricate_run(runs, {"batch": 256}, mmAP=36.89, hours=4.25)
    fabricate_run(runs, {"batch": 32, "bn_size": 32}, state="running", epochs=3)
    fabricate_run(runs, {"batch": 64, "bn_size": 0}, state="diverged", epochs=2, reason="loss nan at step 9")
    failed = fabricate_run(runs, {"batch": 8, "bn_size": 8}, state="failed", epochs=0, reason="<i>no file</i>")
    words = {"rank": 3, "reason": "<i>no file</i>", "log": ["opening", "<script>console.error('logged')</script>"]}
    (failed / "failure.json").write_text(json.dumps(words))
    assert make_report.main([str(runs), "--out", str(folder / "report.html")]) == 0
    return folder / "report.html"


def in_browser(page: Path, folder: Path) -> tuple[str, list[str]]:
    """The page's elements as the browser has them, and what it wrote to the console."""
    assert CHROMIUM
    options = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--dump-dom",
    )  # fmt: skip
    done = subprocess.run([CHROMIUM, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_has_every_section_and_loads_nothing_from_elsewhere(report: Path) -> None:
    page = report.read_text()
    for section in ("Tables", "Figures", "Plans", "Failures", "Provenance"):
        assert f'<section id="{section.lower()}">' in page and f"<h2>{section}</h2>" in page
    assert not re.search(r'(?:src|href)="(?!#)', page) and "@import" not in page
    assert not re.search(r"url\((?!#)", page) and "<script" not in page


def test_ids_are_unique_and_every_reference_within_the_page_has_its_target(report: Path) -> None:
    page = report.read_text()
    ids = Counter(re.findall(r'\bid="([^"]+)"', page))
    assert [name for name, count in ids.items() if count > 1] == []
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)) and all(
        (first or second) in ids for first, second in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    )


def test_failures_are_told_with_their_reasons_and_last_lines_escaped(report: Path) -> None:
    page = report.read_text()
    failures = page.partition('<section id="failures">')[2].partition("</section>")[0]
    assert "(failed, rank 3): &lt;i&gt;no file&lt;/i&gt;" in failures and "opening\n&lt;script&gt;" in failures
    assert "(diverged): loss nan at step 9" in failures and failures.count("<strong>") == 2


def test_plans_and_provenance_name_the_runs(report: Path) -> None:
    page = report.read_text()
    plans = page.partition('<section id="plans">')[2].partition("</section>")[0]
    provenance = page.partition('<section id="provenance">')[2]
    runs = [path.name for path in (report.parent / "runs").iterdir()]
    assert len(runs) == 5 and all(run in plans for run in runs)
    assert "3 of 11" in plans and "1 diverged, 1 failed, 2 finished, 1 running" in plans
    assert "c0ffee" * 6 in provenance and "Provenance of Table 3" in provenance


def test_tags_are_balanced(report: Path) -> None:
    class Tags(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    tags = Tags()
    tags.feed(report.read_text())
    assert tags.open == []


def test_a_folder_without_runs_is_a_clear_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_report.main([str(tmp_path), "--out", str(tmp_path / "report.html")]) == 2
    assert capsys.readouterr().err.startswith("make_report: ") and not (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no browser here; Debian and Ubuntu have one: apt-get install chromium")
def test_a_browser_shows_the_numbers_and_figures_without_a_word_on_its_console(report: Path, tmp_path: Path) -> None:
    shown, console = in_browser(report, tmp_path)
    assert console == []
    assert "<td>37.2</td>" in shown and "<td>36.9</td>" in shown and "<td>running</td>" in shown
    assert "<td>38.4</td>" in shown and "<td>4.2</td>" in shown  # hours
    assert shown.count("<svg") == 6 and 'aria-label="speed up"' in shown


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no browser here; Debian and Ubuntu have one: apt-get install chromium")
def test_the_check_on_the_console_sees_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<p>a</p><script>console.error('it broke')</script><svg><path d='x'/></svg>")
    _, console = in_browser(tmp_path / "bad.html", tmp_path)
    assert len(console) == 2 and "it broke" in console[0]
