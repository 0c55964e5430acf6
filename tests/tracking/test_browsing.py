"""MLflow's own pages, in a real browser, of a sweep that really trained."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from megdet.tracking.view import View

from .server import serving

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no browser here; Debian and Ubuntu have one: apt-get install chromium"),
    # MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]
LAUNCH = Path(__file__).parents[2] / "launch.py"
SMALL = [
    "experiment=tiny", "gpus=1", "data.train_images=8", "data.val_images=2", "data.min_size=64", "data.max_size=107",
    "data.workers=0", "schedule.epochs=2", "schedule.milestones=[]", "schedule.factors=[]",
]  # fmt: skip
SWEEP, RUNS = "tiny batch=2,4 tiny shapes", ("b2-bn2-normal-s0", "b4-bn2-normal-s0")
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which a sweep of two runs was launched, and what that said."""
    folder = tmp_path_factory.mktemp("browsing")
    done = subprocess.run(
        [sys.executable, str(LAUNCH), "-m", *SMALL, "bn_size=2", "batch=2,4"],
        cwd=folder, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


@pytest.fixture(scope="module")
def server(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, _ = trained
    with serving(f"sqlite:///{folder}/mlflow.db", tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def ids(trained: tuple[Path, str]) -> dict[str, str]:
    """The experiment's id, and the runs' ids in MLflow by the readable part of their names."""
    client = MlflowClient(f"sqlite:///{trained[0]}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    by_name = {plain(str(run.info.run_name)): run.info.run_id for run in runs}
    return {"experiment": experiment.experiment_id} | by_name


def plain(name: str) -> str:
    """A run's name in MLflow without what depends on every setting, model and data."""
    return re.sub(r"-\w{8} tiny shapes$", "", name)


@pytest.fixture(scope="module")
def page(server: str) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 2000, "height": 1200})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


@pytest.fixture(autouse=True)
def picture(request: pytest.FixtureRequest, page: Page, tmp_path: Path) -> Iterator[None]:
    """What was on the screen at the end of each test, to look at."""
    yield
    page.screenshot(path=tmp_path / "screen.png")


def show(page: Page, url: str) -> None:
    # Another # alone would not load the page again.
    page.goto("about:blank")
    page.goto(url, wait_until="commit")


def row(page: Page, name: str) -> Locator:
    return page.locator(".ag-row").get_by_text(re.compile(rf"^{re.escape(name)}(-\w{{8}} tiny shapes)?$")).first


def test_the_link_that_a_sweep_ends_with_shows_it_and_its_runs_by_name_when_it_is_opened(
    trained: tuple[Path, str], server: str, page: Page
) -> None:
    link = re.search(r"then open: http://127\.0\.0\.1:5000(/\S+)", trained[1])
    assert link, trained[1]
    show(page, server + link[1])
    row(page, SWEEP).wait_for()
    assert not row(page, RUNS[0]).is_visible()
    page.locator(".ag-row button").first.click()
    for name in RUNS:
        row(page, name).wait_for()
    headings = page.locator(".ag-header-cell-text, .ag-header-cell").all_inner_texts()
    shown = " ".join(headings).split()
    assert {"batch", "bn_size", "schedule", "model", "data", "final/mmAP", "status"} <= set(shown), shown
    small = page.locator(".ag-row").filter(has_text=RUNS[0]).first
    cells = cells_of(page, int(small.get_attribute("row-index") or 0))
    assert {"2", "normal", "tiny", "shapes", "finished"} <= set(cells), cells


def cells_of(page: Page, place: int) -> list[str]:
    return [cell.strip() for cell in page.locator(f'.ag-row[row-index="{place}"] .ag-cell').all_inner_texts()]


def test_from_mlflows_first_page_two_clicks_lead_to_the_runs_with_the_best_mmAP_first(
    server: str, page: Page, ids: dict[str, str], trained: tuple[Path, str]
) -> None:
    show(page, server)
    page.get_by_role("link", name="tiny", exact=True).first.click()
    # MLflow may cover the page with an advertisement of its own.
    link = page.locator("a", has_text="Runs, best mmAP first").first
    with page.context.expect_page() as opened:
        link.dispatch_event("click")
    best = opened.value
    best.set_default_timeout(PATIENCE_MS)
    for name in RUNS:
        row(best, name).wait_for()
    client = MlflowClient(f"sqlite:///{trained[0]}/mlflow.db")
    mmAP = {name: client.get_run(ids[name]).data.metrics["final/mmAP"] for name in RUNS}
    rows = [" ".join(cells_of(best, place)) for place in range(3)]
    shown = [plain for text in rows for plain in RUNS if plain in text]
    assert shown == sorted(RUNS, key=lambda name: mmAP[name], reverse=True) or len(set(mmAP.values())) == 1, rows
    assert "tiny" in rows[-1], "the sweep has no mmAP of its own"
    best.screenshot(path=trained[0] / "best.png")
    headings = best.locator(".ag-header-cell").all()  # in the order of their making
    places = {cell.inner_text().strip(): int(cell.get_attribute("aria-colindex") or 0) for cell in headings}
    assert places["final/mmAP"] < places["batch"], places
    best.close()


def test_charts_begin_with_mmAP_and_loss(server: str, page: Page, ids: dict[str, str]) -> None:
    where = f"runs?workflowType=machine_learning&viewStateShareKey={View.BEST_FIRST}&compareRunsMode=CHART"
    show(page, f"{server}/#/experiments/{ids['experiment']}/{where}")
    page.get_by_text("mmAP and loss").first.wait_for()
    page.wait_for_function(f"() => ({EPOCHS_OF_CURVES})().some(epochs => epochs.join() === '1,2')")


def test_a_runs_page_names_its_training_and_validation_images(server: str, page: Page, ids: dict[str, str]) -> None:
    show(page, f"{server}/#/experiments/{ids['experiment']}/runs/{ids[RUNS[0]]}")
    page.get_by_text(re.compile(r"shapes train \(\w+\)")).first.wait_for()


@pytest.mark.parametrize(
    ("words", "found", "hidden"),
    [
        ("tags.sweep LIKE '%tiny%' AND tags.kind = 'run'", RUNS, (SWEEP,)),
        ("tags.kind = 'sweep'", (SWEEP,), RUNS),
        ("tags.`asked/batch` = '0000004' AND metrics.`final/train_s` > 0", RUNS[1:], RUNS[:1]),
        ("params.model = 'tiny' AND params.batch = '2'", RUNS[:1], RUNS[1:]),
    ],
)
def test_filters_as_the_note_has_them_find_what_they_say(
    server: str, page: Page, ids: dict[str, str], words: str, found: tuple[str, ...], hidden: tuple[str, ...]
) -> None:
    # Sorted by anything but time, runs are a flat list.
    order = f"orderByKey={quote('tags.`asked/batch`')}&orderByAsc=true"
    filtered = f"runs?workflowType=machine_learning&{order}&searchFilter={quote(words)}"
    show(page, f"{server}/#/experiments/{ids['experiment']}/{filtered}")
    for name in found:
        row(page, name).wait_for()
    for name in hidden:
        assert not row(page, name).is_visible()


def test_the_sweeps_page_tells_where_its_runs_stand_and_has_its_tables_and_figures(
    server: str, page: Page, ids: dict[str, str]
) -> None:
    own = f"{server}/#/experiments/{ids['experiment']}/runs/{ids[SWEEP]}"
    show(page, own)
    page.get_by_text("2 runs: 2 finished").first.wait_for()
    for name in RUNS:
        page.get_by_role("link", name=re.compile(name)).first.wait_for()
    show(page, f"{own}/artifacts")
    page.get_by_text("tables.html", exact=True).wait_for()
    page.get_by_text("tables.md", exact=True).click()
    page.get_by_text("Table 2").first.wait_for()
    page.get_by_text("figures", exact=True).click()
    page.get_by_text(".png").first.click()
    assert_an_image_is_shown(page)


def test_a_runs_page_has_curves_over_its_epochs_and_pictures_of_detections(
    server: str, page: Page, ids: dict[str, str]
) -> None:
    own = f"{server}/#/experiments/{ids['experiment']}/runs/{ids[RUNS[1]]}"
    show(page, f"{own}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("mmAP")
    page.wait_for_function(f"() => ({EPOCHS_OF_CURVES})().some(epochs => epochs.join() === '1,2')")
    show(page, f"{own}/artifacts")
    page.get_by_text("pictures", exact=True).click()
    page.get_by_text("detections-").first.click()
    assert_an_image_is_shown(page)


EPOCHS_OF_CURVES = """
() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data).map(curve => [...(curve.x || [])])
"""


def assert_an_image_is_shown(page: Page) -> None:
    page.wait_for_function("() => [...document.images].some(image => image.naturalWidth > 100)")
