from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from megdet.analysis import make_tables
from megdet.analysis.frames import load_runs
from megdet.analysis.studies import PROGRAMS, gradient_variances
from megdet.runs.folder import RunFolder
from megdet.runs.run_files import BN_STUDY, GRADIENT_VARIANCE
from megdet.tracking.mirror import mirror
from tests.runs.fabricate import fabricate_run
from tests.tracking.databases import new_database

# MLflow 3.17 with SQLAlchemy 2.1: a deprecation inside MLflow's own store.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")


FILES = {"bn": BN_STUDY, "variance": GRADIENT_VARIANCE}


def with_studies(folder: Path, *, precise: float = 37.5, ratio: float = 0.98, epoch: float | None = 11.0) -> Path:
    """The run with the files that both studies leave: 37.0 mmAP with the running average, of the weights of `epoch`.

    None: as before the epoch was recorded."""
    weights = {} if epoch is None else {"step": round(epoch * 100), "epoch": epoch}
    numbers = {"AP50": 55.04, "AP75": 40.0, "mmAR": 50.0}
    study = {"running average": {"mmAP": 37.0, **numbers}, "precise, 512 images": {"mmAP": precise, **numbers}}
    (folder / "bn_study.json").write_text(json.dumps(weights | study))
    by_k = {"1": {"variance": 2.0, "ratio": 1.0, "error": 0.0}, "2": {"variance": 1.0, "ratio": ratio, "error": 0.051}}
    variance = {**weights, "batches": 64, "k": [1, 2], "modules": {"rpn": by_k, "all": by_k}}
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
    assert mirror(RunFolder(folder), uri, "megdet")
    assert table(uri, capsys, name) == table(str(tmp_path / "runs"), capsys, name)


def test_where_nothing_was_studied_the_message_says_how_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fabricate_run(tmp_path, {"batch": 16})
    assert make_tables.main(["--from", str(tmp_path), "--table", "bn"]) == 2
    error = capsys.readouterr().err
    assert "no run has a bn_study.json yet" in error and "python -m megdet.studies.bn_study" in error
    assert "megdet sync" not in error
    uri = new_database(tmp_path / "store")
    assert mirror(RunFolder(folder), uri, "megdet")
    assert make_tables.main(["--from", uri, "--table", "bn"]) == 2
    error = capsys.readouterr().err
    assert "python -m megdet.studies.bn_study" in error and "megdet sync" in error, (
        "there may be one that MLflow has not"
    )


@pytest.mark.parametrize("name", ["bn", "variance"])
def test_a_study_of_weights_before_the_end_has_a_row_of_its_own_and_a_remark(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, (epoch, precise, ratio) in enumerate([(11.0, 37.4, 0.9), (None, 37.8, 1.1), (3.999, 20.0, 5.0)]):
        folder = fabricate_run(tmp_path, {"batch": 16, "seed": seed})
        with_studies(folder, precise=precise, ratio=ratio, epoch=epoch)
    rows = table(str(tmp_path), capsys, name)
    column, place = ("mmAP", 1) if name == "bn" else ("k = 2", 0)
    sound = "37.6 ± 0.3 (2)" if name == "bn" else "1.00 ± 0.14 (2)"
    early = "20.0" if name == "bn" else "5.00 ± 0.05"
    assert [row["Batch size"] for row in rows] == ["16", "16", "16, epoch 3.99", "16, epoch 3.99"]
    assert (rows[place][column], rows[place + 2][column]) == (sound, early)
    assert make_tables.main(["--from", str(tmp_path), "--table", name]) == 0
    text = capsys.readouterr().out
    assert text.count("16, epoch 3.99, BN size 16: of epoch 3.99 of 11, before the end of training") == 1
    assert "16, BN size 16: of epoch" not in text


@pytest.mark.parametrize("name", ["bn", "variance"])
@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"all": {"1": 2.0, "2": 1.0}}', '{"modules": {"all": {"2": {}}}}', '{"running average": {}}'],
    ids=["torn", "no_object", "empty", "of_an_older_form", "no_ratio", "no_number"],
)
def test_a_study_that_cannot_be_read_is_left_out_with_the_command_that_makes_it_anew(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = FILES[name]
    bad = fabricate_run(tmp_path, {"batch": 16})
    (bad / file).write_text(content)
    good = with_studies(fabricate_run(tmp_path, {"batch": 32, "bn_size": 32}))
    assert make_tables.main(["--from", str(tmp_path), "--format", "csv", "--table", name]) == 0
    said = capsys.readouterr()
    assert {row["Batch size"] for row in csv.DictReader(io.StringIO(said.out))} == {"32"}
    assert said.err.count("\n") == 1 and f"{file} of {bad.name}" in said.err
    assert f"`python -m {PROGRAMS[file]} {bad}` makes it anew" in said.err
    (good / file).unlink()
    assert make_tables.main(["--from", str(tmp_path), "--table", name]) == 2


def test_ratios_are_those_for_k_above_1_and_say_whether_they_are_of_the_last_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, (epoch, ratio) in enumerate([(11.0, 0.9), (3.0, 5.0), (None, 1.1)]):
        with_studies(fabricate_run(tmp_path, {"seed": seed}), ratio=ratio, epoch=epoch)
    few = with_studies(fabricate_run(tmp_path, {"seed": 3}))
    single = {"1": {"variance": 2.0, "ratio": 1.0, "error": 0.0}}
    (few / "gradient_variance.json").write_text(json.dumps({"batches": 4, "k": [1], "modules": {"all": single}}))
    frames = load_runs(str(tmp_path))
    found = gradient_variances(frames)
    seeds = found["run"].map(frames.runs["seed"])
    assert set(found["k"]) == {2} and list(found["module"]) == ["rpn", "all"] * 3
    assert list(zip(seeds, found["early"], found["ratio"], strict=True))[::2] == [(0, 0, 0.9), (1, 3, 5.0), (2, 0, 1.1)]
    assert list(found["error"]) == [0.051] * 6
    assert "--batches" in capsys.readouterr().err
