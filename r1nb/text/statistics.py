"""Formulas for accuracy: its interval, pass@k, maj@k, and whether two policies differ."""

from math import comb, nan


def wilson(hits: float, n: int) -> list[float]:
    """The 95 % Wilson score interval of a rate (Wilson 1927; statsmodels).

    For a mean of rates (for example pass@k), `hits` is their sum. The interval is then wider than necessary,
    because a number between 0 and 1 has at most the variance of a yes or no with the same mean.
    """
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(hits, n, method="wilson")
    return [min(float(low), hits / n), max(float(high), hits / n)]  # rounding may exclude a rate of 0 or 1


def pass_at_k(n: int, right: int, k: int) -> float:
    """The probability that at least one of k samples is right: 1 - C(n - c, k) / C(n, k).

    Of n samples, c = `right` are right. The estimate is unbiased for k <= n (Chen et al. 2021, arXiv
    2107.03374, section 2.1, equation 1).
    """
    return 1 - comb(n - right, k) / comb(n, k)


def maj_at_k(n: int, right: int, wrong: list[int], k: int) -> float:
    """The probability that the most common answer of k samples is right; ties are broken at random.

    `right` of the n samples gave the right answer. `wrong` holds the number of samples for each wrong answer.
    The other samples gave no answer and do not vote. The result is the mean over all subsets of k samples, so
    it is unbiased for k <= n (vote: Wang et al. 2022, arXiv 2203.11171; mean over subsets: Hoeffding 1948).
    """
    silent, total = n - right - sum(wrong), 0.0
    for votes in range(1, min(right, k) + 1):
        # ways[m, t]: ways to choose m wrong samples; t wrong answers have `votes` votes, none has more
        ways = {(0, 0): 1}
        for count in wrong:
            grown: dict[tuple[int, int], int] = {}
            for (m, ties), number in ways.items():
                for taken in range(min(count, votes, k - votes - m) + 1):
                    key = m + taken, ties + (taken == votes)
                    grown[key] = grown.get(key, 0) + number * comb(count, taken)
            ways = grown
        for (m, ties), number in ways.items():
            total += comb(right, votes) * number * comb(silent, k - votes - m) / (1 + ties)
    return total / comb(n, k)


def mcnemar(first_only: int, second_only: int) -> float:
    """The p-value of McNemar's exact test: are two policies right equally often? (1947; statsmodels)

    The arguments count the discordant pairs: problems that only the first, or only the second, got right.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    if not first_only + second_only:
        return 1.0
    return float(mcnemar([[0, first_only], [second_only, 0]], exact=True).pvalue)


def mean_interval(values: list[float]) -> list[float]:
    """The 95 % bootstrap interval of a mean over problems (Efron 1979; scipy, 2,000 resamples).

    Use it for the difference of two policies on the same problems: formulas for a single rate do not apply
    there. With fewer than two values the spread is unknown: [nan, nan].
    """
    if len(values) < 2:
        return [nan, nan]
    import numpy
    from scipy.stats import bootstrap

    drawn = bootstrap((values,), numpy.mean, n_resamples=2000, method="percentile", rng=1)
    return [float(bound) for bound in drawn.confidence_interval]
