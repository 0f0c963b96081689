"""The formulas agree with published values, with scipy, and with counts of all cases."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from r1nb.text.statistics import maj_at_k, mcnemar, mean_interval, pass_at_k, wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_newcombe(hits, n, low, high):
    """The values are from Statistics in Medicine 17 (1998), table I."""
    assert wilson(hits, n) == pytest.approx([low, high], abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_against_scipy(case):
    interval = binomtest(*case).proportion_ci(method="wilson")
    assert wilson(*case) == pytest.approx([interval.low, interval.high], abs=1e-12)


def test_the_wilson_interval_contains_the_rate_itself():
    """Also where rounding could exclude 0 or 1, for example at 300 of 300."""
    for n in range(1, 1500):
        assert wilson(n, n)[1] >= 1.0
        assert wilson(0, n)[0] <= 0.0


def brute_force(n: int, right: int, wrong: list[int], k: int) -> tuple[float, float]:
    """Return (pass@k, maj@k), counted over all subsets of k samples."""
    samples = ["right"] * right + [f"wrong {i}" for i, count in enumerate(wrong) for _ in range(count)]
    samples += [None] * (n - len(samples))
    passed = voted = subsets = 0
    for chosen in combinations(samples, k):
        subsets += 1
        passed += "right" in chosen
        votes = {answer: chosen.count(answer) for answer in chosen if answer}
        winners = [answer for answer in votes if votes[answer] == max(votes.values())]
        voted += "right" in winners and 1 / len(winners)
    return passed / subsets, voted / subsets


CASES = [(8, 3, [2, 1, 1]), (8, 0, [3, 5]), (8, 8, []), (9, 4, [4]), (7, 2, [2, 2]), (6, 1, []), (5, 0, [])]


@pytest.mark.parametrize(("n", "right", "wrong"), CASES)
def test_pass_and_maj_against_every_subset(n, right, wrong):
    for k in range(1, n + 1):
        passed, voted = brute_force(n, right, wrong, k)
        assert pass_at_k(n, right, k) == pytest.approx(passed, abs=1e-12)
        assert maj_at_k(n, right, wrong, k) == pytest.approx(voted, abs=1e-12)


def test_pass_at_k_against_its_paper():
    """The formula in the code of arXiv 2107.03374, figure 3: 1 - prod(1 - k / (n - c + 1 .. n))."""
    for n, c, k in [(200, 3, 100), (200, 150, 10), (64, 1, 64)]:
        product = 1.0
        for i in range(n - c + 1, n + 1):
            product *= 1 - k / i
        assert pass_at_k(n, c, k) == pytest.approx(1 - product)


@pytest.mark.parametrize(("first", "second"), [(3, 10), (0, 6), (12, 12), (1, 0), (40, 61)])
def test_mcnemar_against_scipy(first, second):
    assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second).pvalue)


def test_mcnemar_against_known_values():
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 64)  # 6 heads in 6 tosses, two-sided


def test_the_95_percent_interval_of_a_mean_covers_it_about_that_often():
    """Draw 200 times 100 differences of -1, 0 or 1 with mean 0.2."""
    import numpy

    drawn = numpy.random.default_rng(1).choice([-1, 0, 1], size=(200, 100), p=[0.1, 0.6, 0.3])
    covered = sum(low <= 0.2 <= high for low, high in map(mean_interval, drawn))
    assert 0.90 <= covered / 200 <= 0.99


def test_the_interval_of_equal_differences_has_no_width():
    assert mean_interval([1.0] * 20) == [1.0, 1.0]
