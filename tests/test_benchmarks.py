"""That the benchmarks run and check what they compare; how fast anything is, they say themselves."""

import sys

import numpy as np
import pytest
from conftest import BIN, ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import measure, memory, report
from benchmarks.commands import Stopwatch
from benchmarks.measure import Fact, Row


def test_works_take_turns_and_the_first_time_does_not_count(monkeypatch):
    clock, calls = iter(range(100)), []
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    seconds = measure.interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, 2)
    assert "".join(calls) == "ababba"
    assert {name: list(values) for name, values in seconds.items()} == {"a": [1, 1], "b": [1, 1]}


def test_ratios_are_of_the_same_repeat_and_per_unit():
    seconds = {"deepmerge": np.array([1.0, 2.0, 1.0]), "peer": np.array([3.0, 8.0, 2.0])}
    [row] = measure.compared("t", "w", seconds, "deepmerge", {"deepmerge": 10, "peer": 5}, {"peer": 6.5})
    assert row.ratio == (6.0, 4.0, 8.0)
    assert (row.ours, row.theirs) == (100, 600)
    assert not report.met(row)


def test_the_stopwatch_counts_calls_within_calls_once_and_not_the_body_of_a_context(monkeypatch):
    from contextlib import contextmanager

    clock = iter(range(100))
    monkeypatch.setattr("benchmarks.commands.time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    inner = watch.watch(lambda: None)
    watch.watch(inner)()
    assert watch.seconds == 2  # of the outer call, within which the inner one read the clock once

    @contextmanager
    def opened():
        yield 5

    with watch.watch(opened)() as value:
        for _ in range(10):
            next(clock)
    assert (value, watch.seconds) == (5, 4)


def test_the_page_marks_what_misses_its_target():
    rows = [
        Row("t", "w", "p", 1.0, 1.5, "ms", (1.5, 1.4, 1.6), 1.6),
        Row("t", "w", "q", 1.0, 9.0, "ms", (9, 9, 9), 1.6),
    ]
    page = report.markdown(rows, [Fact("f", "x", 2.0, "s", 1.0), Fact("f", "y", 2.0, "s")], "make bench", "p.png")
    assert page.count("✗ ") == 3  # with the legend
    assert "| t | w | q | 1 | 9 | 9.00 | 9.00 – 9.00 | ≥ 1.6 |" in page


def test_a_page_keeps_what_was_not_measured_anew():
    row = Row("training", "w", "p", 1.0, 2.0, "ms", (2.0, 1.9, 2.1), 1.6)
    facts = [Fact("start-up", "x", 2.0, "s"), Fact("memory", "y", 9.0, "MiB")]
    whole = report.markdown([row], facts, "make bench", None)
    old = whole.replace(report.date.today().isoformat(), "2020-02-02")
    page = report.markdown([], [Fact("memory", "z", 5.0, "MiB")], "make bench", None, old)
    assert "training on 2020-02-02" in page
    assert f"memory on {report.date.today().isoformat()}" in page
    assert "| start-up | x | 2 s |  |" in page
    assert "| training | w | p | 1 | 2 | 2.00 | 1.90 – 2.10 | ≥ 1.6 |" in page
    assert ("| y |" in page, "| z |" in page) == (False, True)


def test_growth_of_memory_and_the_cost_of_each_image_more():
    usages = [memory.Usage(c, n, 100 + n, 5 + n / 10) for c in memory.COMMANDS for n in (10, 110)]
    facts = {fact.what: fact.value for fact in memory.facts(usages)}
    assert facts["`train`, as much at 11 times as many"] == pytest.approx(210 / 110)
    assert facts["`train`, each image from 10 to 110"] == pytest.approx(100)
    assert memory.figure(usages).get_axes()


@pytest.mark.slow
def test_the_benchmarks_run_and_agree_with_their_peers(checkout):
    """Little work; numbers of different libraries for one network and one bootstrap are compared inside."""
    done = checkout.succeed(str(BIN / "python"), "-m", "benchmarks", "--quick", PYTHONPATH=str(checkout.folder))
    for topic in ("training", "inference", "bootstrap", "start-up", "launching", "tracking", "memory"):
        assert topic in done.stdout, topic
    assert (
        not (checkout.folder / "BENCHMARKS.md").exists()
        or "BENCHMARKS" not in checkout.succeed("git", "status", "--short").stdout
    )
