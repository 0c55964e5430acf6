"""Seeds as they are needed (`sweep.seeds=auto`): two of each row, then one more of those that are not yet told apart.

It works in waves: start what is missing, wait for it, judge, add. A wave follows from the results of those before
alone, so the same command goes on where it stopped: it judges the waves that are there again, one after the other.
What a sweep is to decide, and whether that is sure, is the claims' business (`megdet.analysis.claims.questions`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from megdet.config.experiments import Asked
from megdet.config.sweep_file import path_of_rows
from megdet.errors import ExitCode, UserError
from megdet.launchers.interface import Launcher
from megdet.runs.folder import folder_of
from megdet.runs.prediction import predict_all
from megdet.runs.status import Status
from megdet.sweep.objective import with_repeated
from megdet.sweep.points import Point, plan_points
from megdet.sweep.record import conclude_sweep
from megdet.sweep.sweep import on_record, report, run_points

if TYPE_CHECKING:
    from megdet.analysis.claims.questions import Question

FIRST_SEEDS = 2


def run_with_seeds(
    asked: Sequence[Asked],
    *,
    launcher: Launcher,
    arguments: Sequence[str],
    conclude: Callable[[Path], None] | None = None,
) -> ExitCode:
    """Run the rows of a sweep with as many seeds as they need, say what is decided, and put it on record.

    `asked`: each row once. `arguments`, `conclude`: as of `run_points`.
    """
    sweep = asked[0].config.sweep
    try:
        sweep.check("sweep.")
        _refuse_seeds(asked)
    except UserError as error:
        return report(error)
    as_json = sweep.dry_run == "json"
    say = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    looks, first = sweep.most_seeds - 1, asked[0].config.seed
    said: set[str] = set()
    over: list[Point] = []
    """Of the waves that have ended."""
    worst = ExitCode.OK
    wave = [_with_seed(one, seed) for seed in range(first, first + FIRST_SEEDS) for one in asked]
    for look in range(1, looks + 1):
        points = _planned(wave, launcher)
        is_there = all(_has_ended(point) and not _is_started(point) for point in points)
        if not is_there or (look == 1 and not as_json):
            code = run_points(wave, launcher=launcher, said=said)
            if code not in (ExitCode.OK, ExitCode.RUN_FAILED):
                return code
            worst = code or worst
            points = _planned(wave, launcher)
        if not all(map(_has_ended, points)):
            say("further seeds depend on these results: the same line goes on when they are there")
            return worst
        over += points
        rows = _rows(over)
        questions = _ask(over, rows, looks)
        open_ones = [question for question in questions if question.rows]
        answered = sum(bool(question.answer) for question in questions)
        say(f"look {look} of {looks}: {answered} of {len(questions)} answered")
        if look == looks or not open_ones:
            break
        candidates = _planned([_with_seed(one, first + look + FIRST_SEEDS - 1) for one in asked], launcher)
        chosen, left_out = _within_budget(open_ones, candidates, over)
        for line in _announced(open_ones, chosen, left_out, rows):
            say(line)
        if not chosen:
            break
        wave = [_without_canary(point.asked) for point in chosen]
    for line in _answers(questions):
        say(line)
    say(f"{len(over)} runs; {sweep.most_seeds} seeds of all {len(asked)} rows would be {sweep.most_seeds * len(asked)}")
    if sweep.dry_run:
        return run_points(wave, launcher=launcher, said=said) if as_json else worst
    folder = on_record(over, arguments)
    if folder:
        if conclude:
            conclude(folder)
        conclude_sweep(folder)
    return worst


def _refuse_seeds(asked: Sequence[Asked]) -> None:
    if len(asked) < 2:
        raise UserError(
            "sweep.seeds=auto compares rows, and this sweep has one; give a setting several values, or name seeds "
            "instead (seed=0,1,2)"
        )
    seeds = sorted({one.config.seed for one in asked})
    if len(seeds) > 1:
        raise UserError(
            f"sweep.seeds=auto chooses the seeds itself, and these rows ask for {', '.join(map(str, seeds))}; leave "
            "seed out, or give one that it is to begin with"
        )


def _with_seed(one: Asked, seed: int) -> Asked:
    config = deepcopy(one.config)
    config.seed = seed
    config.sweep.seeds = None
    return Asked((*(text for text in one.overrides if not text.startswith("seed=")), f"seed={seed}"), config)


def _planned(asked: Sequence[Asked], launcher: Launcher) -> list[Point]:
    return with_repeated(plan_points(asked, to_run_here=not asked[0].config.sweep.dry_run, launcher=launcher))


def _without_canary(one: Asked) -> Asked:
    """Another seed is of a kind that has passed."""
    one.config.sweep.canary = False
    return one


def _is_started(point: Point) -> bool:
    return point.is_started_by(point.asked.config.sweep.on_existing)


def _has_ended(point: Point) -> bool:
    """Whether nothing more is to come of it in this wave: it has a result, cannot be, or failed."""
    return point.plan is None or (
        point.status is not None and (point.status.is_result or point.status == Status.FAILED)
    )


def _rows(points: Sequence[Point]) -> dict[str, str]:
    """The names of the rows by experiment id, in their order: what they were asked for, but for the seed."""
    names: dict[str, str] = {}
    for point in points:
        if point.plan:
            names.setdefault(point.plan.experiment_id, " ".join(point.asked.overrides[:-1]))
    return names


def _ask(points: Sequence[Point], rows: Mapping[str, str], looks: int) -> list[Question]:
    # Imported here: pandas is not needed before there are results.
    from megdet.analysis.claims.questions import questions_of
    from megdet.analysis.frames import load_runs

    plans = [point.plan for point in points if point.plan]
    found = load_runs(plans[0].config.runs_dir)
    found = found.where(found.runs["run_id"].isin([plan.run_id for plan in plans]))
    measure, is_better_up = _measure(plans[0].config.sweep.rows)
    return questions_of(found, rows, looks=looks, measure=measure, of_accuracy=is_better_up)


def _measure(rows: str | None) -> tuple[str, bool]:
    """What rows are compared by where no claim compares them, and whether more of it is better: the first number of a
    sweep file that has a better."""
    from megdet.analysis.table_spec import read_spec

    if rows is not None:
        with suppress(UserError, StopIteration):  # it has rows to run alone
            measure = next(measure for measure in read_spec(path_of_rows(rows)).measures if measure.better)
            return measure.number, measure.better == "up"
    return "mmAP", True


def _within_budget(
    questions: Sequence[Question], candidates: Sequence[Point], over: Sequence[Point]
) -> tuple[list[Point], list[Question]]:
    """The runs that open questions need next, and the questions that have no room in `sweep.max_gpu_hours`.

    A question gets all of its runs or none; the first come first.
    """
    by_row = {point.plan.experiment_id: point for point in candidates if point.plan}
    limit = candidates[0].asked.config.sweep.max_gpu_hours
    chosen: dict[str, Point] = {}
    left_out = []
    left = None if limit is None else limit - sum(map(_gpu_hours_spent, over))
    for question in questions:
        more = {row: by_row[row] for row in question.rows if row in by_row and row not in chosen}
        if left is not None:
            predicted = predict_all([point.plan for point in more.values() if point.plan and not _is_over(point)])
            needed = sum(one.gpu_hours if one else math.inf for one in predicted)
            needed += sum(_gpu_hours_spent(point) for point in more.values() if _is_over(point))
            if needed > left:
                left_out.append(question)
                continue
            left -= needed
        chosen |= more
    return [by_row[row] for row in by_row if row in chosen], left_out


def _is_over(point: Point) -> bool:
    return point.status is not None and point.status.is_result


def _gpu_hours_spent(point: Point) -> float:
    if point.plan is None or (state := folder_of(point.plan).state()) is None:
        return 0.0
    return state.gpu_hours(point.plan.layout.gpus)


def _announced(
    questions: Sequence[Question], chosen: Sequence[Point], left_out: Sequence[Question], rows: Mapping[str, str]
) -> Iterator[str]:
    """The open questions by letter, and which of them each run of the next wave decides."""
    letters = {question: _letter(place) for place, question in enumerate(questions)}
    for question, letter in letters.items():
        no_room = ": no room in sweep.max_gpu_hours" if question in left_out else ""
        yield f"  {letter}  {question.text} ({question.why}){no_room}"
    for point in chosen:
        assert point.plan is not None, "it has been planned"
        row = point.plan.experiment_id
        decides = [letters[one] for one in questions if row in one.rows and one not in left_out]
        yield f"  {point.plan.run_id} is to decide {', '.join(decides)} ({rows[row]})"


def _letter(place: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    before, last = divmod(place, 26)
    return (_letter(before - 1) if before else "") + chr(ord("a") + last)


def _answers(questions: Sequence[Question]) -> Iterator[str]:
    for question in questions:
        yield f"  {question.answer or 'open'}: {question.text} ({question.why})"
