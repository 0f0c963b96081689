"""Comparing two policies on the same problems: counts, sources of a gain, and the examples that are shown."""

import pytest

from r1nb.evaluation.comparison import by_group, compare, sources_of_gain, telling_changes
from r1nb.rewards.grading import Graded

VERDICTS = {"+": True, "-": False, "?": None}


def answered(strict: str, lenient: str = "", kind: str = "") -> list[Graded]:
    """Return one graded answer per character: + right, - wrong, ? not judged."""
    return [
        Graded(
            question=f"question {i}", answer="42", completion=s + n, ids=(7,), cut=False, strict=VERDICTS[s],
            lenient=VERDICTS[n], format=False, rewards={}, kind=kind, steps=i % 3,
        )
        for i, (s, n) in enumerate(zip(strict, lenient or strict, strict=True))
    ]  # fmt: skip


def test_discordant_pairs_are_counted_and_shown():
    made = compare(answered("++--+-"), answered("+-++--"))
    assert (made.both, made.first_only, made.second_only, made.neither) == (1, 2, 2, 1)
    assert made.difference == 0
    assert made.p == 1.0
    assert "only the first: 2, only the second: 2" in str(made)
    better = compare(answered("-" * 12), answered("+" * 9 + "-" * 3))
    assert better.difference == pytest.approx(0.75)
    assert better.interval[0] > 0
    assert "+75.0 points" in str(better)
    assert better.p == pytest.approx(2 / 2**9)


def test_an_answer_that_was_not_judged_does_not_count_as_a_pair():
    made = compare(answered("+?-"), answered("+-?"))
    assert (made.both, made.first_only, made.second_only, made.neither) == (1, 0, 0, 0)
    assert made.n == 1
    assert made.change == "Difference: +0.0 points, McNemar's exact test: p = 1."  # no interval of one pair
    assert "p = 1" in str(compare(answered("??"), answered("+-")))  # no pair at all


def test_answers_to_different_problems_cannot_be_compared():
    with pytest.raises(ValueError, match="different problems"):
        compare(answered("+-"), answered("+-")[::-1])


def test_the_sources_of_a_gain_add_up_to_the_gain():
    before = answered("-----+----", "+----++---")
    prefilled = answered("++---++---")
    after = answered("+++++++-+-")
    parts = {name: share for name, (share, _, _) in sources_of_gain(before, prefilled, after).items()}
    assert parts == pytest.approx({"format": 0.2, "mode": 0.1, "remainder": 0.4, "in all": 0.7})


def test_changes_for_the_worse_come_first_and_mere_changes_of_format_last():
    before = answered("+-+--+-", "+++--+-")
    after = answered("-++++--", "+++++--")
    pairs = telling_changes(before, after)
    assert [(a.question[-1], a.strict) for a, _ in pairs] == [
        ("5", True), ("0", True), ("4", False), ("3", False), ("1", False),
    ]  # fmt: skip
    assert len(telling_changes(before, after, most=4)) == 4
    assert sum(a.strict for a, _ in telling_changes(before, after, most=2)) == 1


def test_answers_are_grouped_by_kind_and_number_of_steps():
    groups = by_group(answered("+-+-", kind="packs"))
    assert {key: len(group) for key, group in groups.items()} == {
        ("packs", 0): 2,
        ("packs", 1): 1,
        ("packs", 2): 1,
    }
