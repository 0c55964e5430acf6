"""The settings of a sweep."""

from __future__ import annotations

from dataclasses import dataclass

from megdet.settings.rules import Flag, Number, OneOf, Settings, Text, Whole, setting


@dataclass
class SweepSettings(Settings):
    """Which points a sweep (`launch.py -m`) has besides its grid, and how they are treated."""

    rows: str | None = setting(None, Text())
    """Rows to run instead of one point, each with every combination of the grid: table1, table2, table3, figure1,
    figure4, or the path of a file like those in `sweeps/`."""
    on_invalid: str = setting("report", OneOf(("report", "error")))
    """report: points that cannot be planned are listed and left out; error: nothing runs."""
    on_existing: str = setting("resume", OneOf(("skip", "resume", "retry_failed", "force")))
    """What to do with runs that exist. skip: leave them; resume: go on with those that were interrupted, cancelled or
    lost; retry_failed: those that failed too; force: begin all anew (old folders go to runs/.replaced). What is queued
    or running is never started twice."""
    seeds: str | None = setting(None, OneOf(("auto",)))
    """auto: every row starts with two seeds, `seed` and the next. Rows that a claim of the paper compares (of other
    sweeps: each row and the first) get another one while they are not apart at 95 % (docs/seeds.md). None: `seed`
    alone."""
    most_seeds: int = setting(5, Whole(least=2, most=100), why="two are the least that tell a difference from chance")
    """Of a row, with seeds=auto. To be chosen before the results are seen: it decides how sure each look has to be."""
    fork: bool = setting(True, Flag())
    """Train the epochs that several runs have in common once: the others go on from a checkpoint of the first, to the
    same bits (docs/forks.md); false: every run trains all of its epochs."""
    wait: bool = setting(True, Flag())
    """Watch submitted jobs until they end (Ctrl-C detaches, they go on); false: return after submission."""
    dry_run: bool | str = setting(False, OneOf((False, True, "json")))
    """Stop after the table of plans; json: print them for programs (docs/programs.md)."""
    canary: bool = setting(False, Flag())
    """First 20 steps and one evaluation batch of each kind of run (layout, model, data), in short jobs of their own;
    the runs wait until theirs has passed. What is measured corrects hours, time limits and the check of
    `max_gpu_hours`."""
    max_gpu_hours: float | None = setting(None, Number(above=0), why="null means no limit")
    """Refuse a sweep whose runs would, as predicted, take more GPU-hours together; None: no limit. With seeds=auto no
    seed is added beyond it."""
