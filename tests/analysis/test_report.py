from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from megdet.analysis import make_report
from megdet.runs.folder import RunFolder
from megdet.runs.status import Status
from megdet.runs.sweep_folder import record_sweep
from megdet.tracking.mirror import mirror
from tests.analysis.test_studies import with_studies
from tests.analysis.under_way import being_run
from tests.runs.fabricate import fabricate_run
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a sweep with two results, a divergence, two errors and a run under way, beside its runs."""
    folder = tmp_path_factory.mktemp("report")
    runs = folder / "runs"
    made = [
        with_studies(fabricate_run(runs, {"batch": 16}, mmAP=37.21, hours=38.4)),
        fabricate_run(runs, {"batch": 256}, mmAP=36.89, hours=4.25),
        fabricate_run(runs, {"batch": 32, "bn_size": 32}, status="running", epochs=3),
        fabricate_run(runs, {"batch": 64, "bn_size": 0}, status="diverged", epochs=2, reason="loss nan at step 9"),
    ]
    for batch in (4, 8):
        failed = fabricate_run(runs, {"batch": batch, "bn_size": batch}, status="failed", epochs=0, reason="<i>no</i>")
        words = {
            "rank": 3, "error": "RuntimeError", "reason": "CUDA out of memory <i>",
            "log": ["opening", "<script>console.error('logged')</script>"],
        }  # fmt: skip
        (failed / "failure.json").write_text(json.dumps(words))
        made.append(failed)
    names = [path.name for path in made]
    record_sweep(runs, name="mine", command="", run_ids=names, uri=None, experiment="megdet", settings={})
    fabricate_run(runs, {"batch": 128}, mmAP=11.11)
    arguments = ["--from", str(runs), "sweep=mine", "--out", str(folder / "report.html")]
    with being_run(made[2]):
        assert make_report.main(arguments) == 0
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
    assert not re.search(r'(?:src|href)="(?!#|data:)', page) and "@import" not in page
    assert not re.search(r"url\((?!#)", page) and "<script" not in page


def test_ids_are_unique_and_every_reference_within_the_page_has_its_target(report: Path) -> None:
    page = report.read_text()
    ids = Counter(re.findall(r'\bid="([^"]+)"', page))
    assert [name for name, count in ids.items() if count > 1] == []
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)) and all(
        (first or second) in ids for first, second in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    )


def section(page: str, name: str) -> str:
    return page.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def test_failures_are_told_by_cause_with_what_to_do_and_their_last_lines_escaped(report: Path) -> None:
    failures = section(report.read_text(), "failures")
    assert "<h3>CUDA out of memory: 2 runs</h3>" in failures and "What to do: put fewer images on a GPU" in failures
    assert "(rank 3): CUDA out of memory &lt;i&gt;" in failures and "opening\n&lt;script&gt;" in failures
    assert "<h3>divergence: 1 run</h3>" in failures and "loss nan at step 9" in failures
    # What is under way is no failure.
    assert failures.count("<li>") == 3 and failures.count("<details>") == 1


def test_the_page_is_of_the_sweep_alone_and_names_its_runs(report: Path) -> None:
    page = report.read_text()
    plans, provenance = section(page, "plans"), section(page, "provenance")
    runs = {path.name for path in (report.parent / "runs").iterdir() if not path.name.startswith(".")}
    (other,) = {run for run in runs if run not in plans}
    assert "b128" in other and other not in page and "<td>11.1</td>" not in page and "megdet: sweep=mine" in page
    assert "3 of 11" in plans and "1 diverged, 2 failed, 2 finished, 1 running" in plans
    assert "<p>: " not in plans and re.search(r"<p>b256-[^ ]+: warm-up from", plans)
    assert "c0ffeec0ff" in provenance and "Provenance of Table 3" in provenance


def test_what_was_studied_is_among_the_tables(report: Path) -> None:
    tables = section(report.read_text(), "tables")
    assert "<td>precise, 512 images</td>" in tables and "<td>0.98 ± 0.05</td>" in tables


@pytest.mark.slow
def test_mlflow_gives_the_same_report_as_the_folder(report: Path) -> None:
    folder = report.parent
    uri = new_database(folder)
    for run in (folder / "runs").glob("b*"):
        assert mirror(RunFolder(run), uri, "megdet")
    assert make_report.main(["--from", uri, "sweep=mine", "--out", str(folder / "mlflow.html")]) == 0
    ours, theirs = report.read_text(), (folder / "mlflow.html").read_text()
    for name in ("tables", "plans", "failures"):
        assert section(ours, name) == section(theirs, name), name
    assert section(theirs, "figures").count("<svg") == section(ours, "figures").count("<svg")


@pytest.mark.parametrize("state", ["running", "failed"])
def test_a_sweep_without_an_epoch_has_a_page(state: Status, tmp_path: Path) -> None:
    fabricate_run(tmp_path / "runs", {"batch": 16}, status=state, epochs=0)
    assert make_report.main(["--from", str(tmp_path / "runs"), "--out", str(tmp_path / "report.html")]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "No run has an epoch yet." in page and "1 run; made" in page and "0 of 11" in section(page, "plans")


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
    assert make_report.main(["--from", str(tmp_path), "--out", str(tmp_path / "report.html")]) == 2
    assert capsys.readouterr().err.startswith("make_report: ") and not (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no browser here; Debian and Ubuntu have one: apt-get install chromium")
def test_a_browser_shows_the_numbers_and_figures_without_a_word_on_its_console(report: Path, tmp_path: Path) -> None:
    shown, console = in_browser(report, tmp_path)
    assert console == []
    assert "<td>37.2</td>" in shown and "<td>36.9</td>" in shown and "<td>running</td>" in shown
    assert "<td>38.4</td>" in shown and "<td>4.2</td>" in shown  # hours
    assert shown.count("<svg") >= 6 and 'aria-label="speed up"' in shown


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no browser here; Debian and Ubuntu have one: apt-get install chromium")
def test_the_check_on_the_console_sees_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text("<p>a</p><script>console.error('it broke')</script><svg><path d='x'/></svg>")
    _, console = in_browser(tmp_path / "bad.html", tmp_path)
    assert len(console) == 2 and "it broke" in console[0]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no browser here; Debian and Ubuntu have one: apt-get install chromium")
def test_a_page_of_twenty_runs_is_readable_at_1400_pixels_and_small(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    for batch, bn_size in ((16, 0), (16, 16), (32, 32), (64, 32), (128, 32), (256, 64), (256, 128)):
        for seed in (0, 1, 2):
            fabricate_run(tmp_path / "runs", {"batch": batch, "bn_size": bn_size, "seed": seed})
    page_file = tmp_path / "report.html"
    assert make_report.main(["--from", str(tmp_path / "runs"), "--out", str(page_file)]) == 0
    assert page_file.stat().st_size < 5e6
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(page_file.as_uri())
        cut_off = page.evaluate(
            "[...document.querySelectorAll('table, figure svg')]"
            ".filter(part => part.getBoundingClientRect().right > document.documentElement.clientWidth)"
            ".map(part => part.textContent.slice(0, 80))"
        )
        plans = page.locator("table", has=page.get_by_text("images per GPU", exact=True)).first.inner_text()
        browser.close()
    assert cut_off == []
    assert "r50_fpn" in plans and "coco2017" in plans
