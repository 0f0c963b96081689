"""Tables and figures of experiments, with numbers that can be checked by eye."""

from math import inf

import pandas
import pytest

from r1nb.studies.experiments import draw_seeds, lasting, seeds_table, speedrun_table


@pytest.fixture
def curves():
    """Return curves. In arm a, seed 1 reaches 0.8, falls, and then stays above; seed 2 falls at the end."""
    strict = {1: [0.0, 0.9, 0.7, 0.8, 0.85], 2: [0.0, 0.8, 0.9, 0.9, 0.79]}
    rows = [
        {"arm": arm, "seed": seed, "completions": 100 * step, "cpu_seconds": seconds * step,
         "strict": value, "format": 1.0}
        for arm, seconds in (("a", 1.0), ("b", 2.0))
        for seed, values in (strict.items() if arm == "a" else {1: [0.0, 0.8], 2: [0.0, 0.9]}.items())
        for step, value in enumerate(values)
    ]  # fmt: skip
    return pandas.DataFrame(rows)


@pytest.fixture
def results():
    rates = {"strict": 0.9, "strict_low": 0.8, "strict_high": 0.95}
    rows = [
        {"arm": arm, "seed": seed, "stage": "after", "split": split} | rates
        for arm in "ab" for seed in (1, 2) for split in ("test", "unseen")
    ]  # fmt: skip
    return pandas.DataFrame(rows)


def test_an_accuracy_counts_as_reached_only_if_it_is_kept(curves):
    assert lasting(curves, "a", 0.8) == {1: 300.0, 2: inf}
    assert lasting(curves, "b", 0.8, "cpu_seconds") == {1: 2.0, 2: 2.0}
    assert lasting(curves, "b", 0.0) == {1: 0.0, 2: 0.0}


def test_each_seed_has_a_row(curves, results):
    table = seeds_table(curves, results, "a", 0.8, ["test", "unseen"]).data
    assert list(table["seed"]) == [1, 2]
    assert list(table["completions to 80%"]) == ["300", "never"]
    assert list(table["validation: strict"]) == ["85.0%", "79.0%"]
    assert list(table["unseen"]) == ["90.0% [80.0, 95.0]"] * 2


def test_entries_are_compared_by_their_median_seeds(curves, results):
    table = speedrun_table(curves, results, {"a": "mine", "b": "theirs"}, 0.8, "test", against="b").data
    assert list(table["completions to 80%"]) == ["300, never", "100, 100"]
    assert list(table["median beside theirs"]) == ["never", "100%"]


def test_the_figure_has_a_line_per_seed_and_a_label_per_entry(curves):
    figure = draw_seeds(curves, {"a": "mine", "b": "theirs"}, 0.8)
    (axes,), (legend,) = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mine", "theirs"]
    assert len([line for line in axes.lines if line.get_color() != "grey"]) == 4
