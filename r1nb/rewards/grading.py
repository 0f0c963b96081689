"""Grade completions: right or wrong, well-formed or not, and the score of each reward.

Strict: the answer block gets the full score from the reward that judges answers. Lenient: the answer block,
the last number or the last line gets it. Both leave out completions that a judge could not score. Format: the
reward that judges the format gives more than 0.
"""

import re
from collections import Counter
from dataclasses import asdict, dataclass

from r1nb.rewards.registry import Reward, find_reward
from r1nb.text.numbers import last_number, to_number
from r1nb.text.prompts import REASONING, Layout
from r1nb.text.statistics import maj_at_k, pass_at_k, wilson

# If none of the chosen rewards judges answers, columns of the dataset decide which reward does.
BY_COLUMN = {("nums", "target"): "countdown_reward_func", ("gym_task",): "gym_reward_func"}


@dataclass(frozen=True)
class Judge:
    """The rewards of a run, their weights, and the rewards that decide what is right and well-formed.

    `rewards` maps a name to a Reward whose options are set; `weights` maps a name to its reward weight.
    """

    layout: Layout
    rewards: dict[str, Reward]
    weights: dict[str, float]
    answer: Reward
    format: Reward

    @property
    def best_total(self) -> float:
        """The total that an ideal completion earns."""
        return sum(self.rewards[name].high * weight for name, weight in self.weights.items())

    def total(self, scores: dict[str, float | None]) -> float:
        """The weighted sum of {name: score}; None counts as 0, as in TRL."""
        return sum((scores[name] or 0.0) * weight for name, weight in self.weights.items())


def make_judge(weights: dict[str, float], layout: Layout = REASONING, columns=(), **options) -> Judge:
    """Make a Judge from the names, weights and options of rewards.

    The first reward that judges answers decides what is right; if there is none, the `columns` of the dataset
    choose one. The first that judges the format decides what is well-formed; if there is none, the layout
    chooses one.
    """
    rewards = {name: find_reward(name).bind(layout=layout, **options) for name in weights}

    def first(what: str, default: str) -> Reward:
        chosen = next((r for r in rewards.values() if r.judges == what), None)
        return chosen or find_reward(default).bind(layout=layout, **options)

    by_column = next(
        (name for needed, name in BY_COLUMN.items() if {*needed} <= {*columns}), "correctness_reward_func"
    )
    by_layout = "strict_format_reward_func" if layout == REASONING else "r1_format_reward_func"
    return Judge(layout, rewards, weights, first("answer", by_column), first("format", by_layout))


@dataclass(frozen=True)
class Graded:
    """A completion, its problem and its grades."""

    question: str
    answer: str
    completion: str
    ids: tuple[int, ...]
    cut: bool  # truncated: stopped by the token limit
    strict: bool | None  # None: the judge gave no score
    lenient: bool | None
    format: bool
    rewards: dict[str, float | None]
    given: str = ""  # the text in the answer block, or else the last number; "" if none
    right: bool | None = None  # whether `given` is right
    kind: str = ""  # of problem, if the dataset has this column
    steps: int = 0  # lines of the dataset's own solution


def grade(rows: dict[str, list], completions: list, judge: Judge) -> list[Graded]:
    """Grade a policy.Completion for each row; `rows` is a batch of a Dataset: {column: list}."""
    texts = [completion.text for completion in completions]
    columns = rows | {"completion_ids": [list(completion.ids) for completion in completions]}
    needed = judge.rewards | {r.__name__: r for r in (judge.answer, judge.format)}
    scores = {name: reward(texts, **columns) for name, reward in needed.items()}
    attempts = [scores[judge.answer.__name__]]
    if judge.answer.threads == 1:  # a language model as judge has already read the whole reply
        for find in (last_number, _last_line):
            ends = [judge.layout.format_reply("-", find(text) or "") for text in texts]
            attempts.append(judge.answer(ends, **columns))
    blocks, graded = [judge.layout.read_answer(text)[0] for text in texts], []
    for i, completion in enumerate(completions):
        judged = [attempt[i] for attempt in attempts if attempt[i] is not None]
        right = [score >= judge.answer.high for score in judged]
        graded.append(
            Graded(
                question=rows["question"][i],
                answer=rows["answer"][i],
                completion=completion.text,
                ids=completion.ids,
                cut=completion.cut,
                strict=right[0] if right else None,
                lenient=any(right) if right else None,
                format=(scores[judge.format.__name__][i] or 0.0) > 0,
                rewards={name: scores[name][i] for name in judge.rewards},
                given=_given(blocks[i], completion.text),
                right=(right[0] if blocks[i] else any(right)) if right else None,
                kind=str(rows["kind"][i] or "") if "kind" in rows else "",
                steps=len((rows["solution"][i] or "").splitlines()) if "solution" in rows else 0,
            )
        )
    return graded


def _last_line(text: str) -> str:
    """The last line of a text, without tags."""
    return re.sub(r"</?\w+>", "", text).strip().rpartition("\n")[2]


def _given(block: str, text: str) -> str:
    given = block or last_number(text) or ""
    number = to_number(given)
    return str(number.normalize()) if number is not None else " ".join(given.casefold().split())


def summarize(graded: list[Graded]) -> dict:
    """Rates with their 95 % intervals, mean length in tokens, and each reward's mean.

    {"strict": rate, "strict_interval": [low, high], "lenient": .., "format": .., "cut": ..,
    "tokens": .., "n": .., "rewards": {name: mean}}
    """
    summary: dict = {"n": len(graded)}
    for rate in ("strict", "lenient", "format"):
        judged = [getattr(g, rate) for g in graded if getattr(g, rate) is not None]
        summary[rate] = _mean(judged)
        summary[f"{rate}_interval"] = wilson(sum(judged), len(judged)) if judged else None
    summary["cut"] = _mean([g.cut for g in graded])
    summary["tokens"] = _mean([len(g.ids) for g in graded])
    summary["rewards"] = {name: _mean([g.rewards[name] for g in graded]) for name in graded[0].rewards}
    return summary


def _mean(values: list) -> float | None:
    """The mean of the values that are not None."""
    counted = [value for value in values if value is not None]
    return sum(counted) / len(counted) if counted else None


def summarize_samples(groups: list[list[Graded]]) -> dict:
    """pass@k and maj@k for k = 1, 2, 4, ..., each as [value, low, high], of groups of samples.

    {"problems", "samples", "pass": {"1": [..], ..}, "maj": {..}}. A sample's answer is its answer block, or
    its last number if there is no block. Problems with a sample that the judge could not score are left out.
    """
    groups = [group for group in groups if all(g.right is not None for g in group)]
    n = len(groups[0]) if groups else 0
    right = [sum(g.right for g in group) for group in groups]
    wrong = [Counter(g.given for g in group if not g.right and g.given) for group in groups]
    summary: dict = {"problems": len(groups), "samples": n, "pass": {}, "maj": {}}
    for k in (2**i for i in range(n.bit_length())):
        passed = sum(pass_at_k(n, hits, k) for hits in right)
        voted = sum(maj_at_k(n, hits, [*w.values()], k) for hits, w in zip(right, wrong, strict=True))
        for name, total in (("pass", passed), ("maj", voted)):
            summary[name][str(k)] = [total / len(groups), *wilson(total, len(groups))]
    return summary


def as_records(graded: list[Graded]) -> list[dict]:
    """Convert to plain dicts, for a JSON file."""
    return [asdict(g) for g in graded]
