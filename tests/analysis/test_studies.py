from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from analysis import make_tables
from megdet.tracking.mlflow import mirror
from tests.tracking.databases import new_database
from tests.tracking.fabricate import fabricate_run

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


def with_studies(folder: Path, *, precise: float = 37.5, ratio: float = 0.98) -> Path:
    """The run with the files that both studies leave: 37.0 mmAP with the running average."""
    numbers = {"AP50": 55.04, "AP75": 40.0, "mmAR": 50.0}
    study = {"running average": {"mmAP": 37.0, **numbers}, "precise, 512 images": {"mmAP": precise, **numbers}}
    (folder / "bn_study.json").write_text(json.dumps(study))
    by_k = {"1": {"variance": 2.0, "ratio": 1.0, "error": 0.0}, "2": {"variance": 1.0, "ratio": ratio, "error": 0.051}}
    variance = {"batches": 64, "k": [1, 2], "modules": {"rpn": by_k, "all": by_k}}
    (folder / "gradient_variance.json").write_text(json.dumps(variance))
    return folder


def table(source: str, capsys: pytest.CaptureFixture[str], name: str) -> list[dict[str, str]]:
    assert make_tables.main(["--from", source, "--format", "csv", "--table", name]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_bn_statistics_stand_below_each_other_averaged_over_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, precise in enumerate((37.4, 37.8)):
        with_studies(fabricate_run(tmp_path, {"batch": 16, "seed": seed}), precise=precise)
    with_studies(fabricate_run(tmp_path, {"batch": 32, "bn_size": 32}), precise=36.0)
    fabricate_run(tmp_path, {"batch": 64, "bn_size": 32})
    rows = table(str(tmp_path), capsys, "bn")
    assert [(row["Batch size"], row["BN size"], row["statistics"]) for row in rows] == [
        ("16", "16", "running average"), ("16", "16", "precise, 512 images"),
        ("32", "32", "running average"), ("32", "32", "precise, 512 images"),
    ]  # fmt: skip
    # mean 37.6, sample standard deviation sqrt(.04 + .04)
    assert (rows[1]["mmAP"], rows[1]["difference"], rows[0]["difference"]) == ("37.6 ± 0.3 (2)", "+0.6", "")
    assert (rows[3]["mmAP"], rows[3]["difference"], rows[3]["AP50"]) == ("36.0", "-1.0", "55.0")


def test_the_gradients_variance_has_its_own_error_for_one_run_and_the_seeds_for_several(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, ratio in enumerate((0.9, 1.1)):
        with_studies(fabricate_run(tmp_path, {"batch": 16, "seed": seed}), ratio=ratio)
    with_studies(fabricate_run(tmp_path, {"batch": 32, "bn_size": 32}))
    rows = table(str(tmp_path), capsys, "variance")
    assert [(row["Batch size"], row["module"], row["k = 2"]) for row in rows] == [
        ("16", "rpn", "1.00 ± 0.14 (2)"), ("16", "all", "1.00 ± 0.14 (2)"),
        ("32", "rpn", "0.98 ± 0.05"), ("32", "all", "0.98 ± 0.05"),
    ]  # fmt: skip
    assert "k = 1" not in rows[0]


@pytest.mark.parametrize("name", ["bn", "variance"])
def test_mlflow_gives_the_same_studies_as_the_folder(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = with_studies(fabricate_run(tmp_path / "runs", {"batch": 16}))
    uri = new_database(tmp_path)
    assert mirror(folder, uri, "megdet")
    assert table(uri, capsys, name) == table(str(tmp_path / "runs"), capsys, name)


def test_where_nothing_was_studied_the_message_says_how_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(tmp_path, {"batch": 16})
    assert make_tables.main(["--from", str(tmp_path), "--table", "bn"]) == 2
    error = capsys.readouterr().err
    assert "no run has a bn_study.json yet" in error and "python -m megdet.bn_study" in error


def test_a_damaged_study_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = with_studies(fabricate_run(tmp_path, {"batch": 16}))
    (folder / "bn_study.json").write_text("{")
    assert make_tables.main(["--from", str(tmp_path), "--table", "bn"]) == 2
    assert f"bn_study.json of {folder.name} is damaged" in capsys.readouterr().err
