"""Accuracy on problems that were not trained on, with an interval: greedy, and of several samples.

Strict: the answer block earns full marks from the reward of the recipe that judges answers; what a
judge could not score is left out. Lenient: the last
number anywhere is right, or the last line. Format: the reward that judges the format fires.
"""

import re
from collections import Counter
from dataclasses import asdict, dataclass

from r1nb.policy.adapters import NOT_FINITE, is_finite
from r1nb.text.numbers import last_number, to_number
from r1nb.errors import UserError
from r1nb.text.statistics import maj_at_k, pass_at_k, wilson
from r1nb.machine.out_of_memory import out_of_memory_in_words
from r1nb.processes import is_main
from r1nb.text.prompts import LAYOUTS, format_answer, read_answer

# The stages of a run that are measured on test problems. Prefilled: the untrained policy with <reasoning>
# put into its mouth.
STAGES = {"before": "before", "prefilled": "before, prefilled", "after": "after"}


@dataclass(frozen=True)
class Graded:
    """One problem, what the policy answered, and how that counts."""

    question: str
    answer: str
    completion: str
    ids: tuple[int, ...]
    cut: bool
    strict: bool | None  # None: a judge could not be asked
    lenient: bool | None
    format: bool
    rewards: dict[str, float | None]
    given: str = ""  # the answer it gave, in the block or else the last number; "" if none
    right: bool | None = None  # whether that one is right
    kind: str = ""  # of problem, where the dataset says
    steps: int = 0  # lines of the dataset's own solution


def grade(rows: dict[str, list], completions: list, recipe) -> list[Graded]:
    """Grade a policy.Completion for each row; `rows` is a batch of a Dataset, lists by column."""
    texts = [completion.text for completion in completions]
    columns = rows | {"completion_ids": [list(completion.ids) for completion in completions]}
    answers, layouts = recipe.judge_of("answer", rows), recipe.judge_of("format")
    names = {*recipe.rewards, answers.__name__, layouts.__name__}
    scores = {name: recipe.scorer(name)(texts, **columns) for name in names}
    attempts = [scores[answers.__name__]]
    if answers.threads == 1:  # a judge that has to be asked has read the whole reply
        for find in (last_number, _last_line):
            ends = [format_answer("-", find(text) or "", recipe.data.layout) for text in texts]
            attempts.append(answers(ends, **columns))
    blocks, graded = [read_answer(text, recipe.data.layout)[0] for text in texts], []
    for i, completion in enumerate(completions):
        judged = [attempt[i] for attempt in attempts if attempt[i] is not None]
        right = [score >= answers.high for score in judged]
        graded.append(
            Graded(
                question=rows["question"][i],
                answer=rows["answer"][i],
                completion=completion.text,
                ids=completion.ids,
                cut=completion.cut,
                strict=right[0] if right else None,
                lenient=any(right) if right else None,
                format=(scores[layouts.__name__][i] or 0.0) > 0,
                rewards={name: scores[name][i] for name in recipe.rewards},
                given=_given(completion.text, recipe.data.layout),
                right=(right[0] if blocks[i] else any(right)) if right else None,
                kind=str(rows["kind"][i] or "") if "kind" in rows else "",
                steps=len((rows["solution"][i] or "").splitlines()) if "solution" in rows else 0,
            )
        )
    return graded


def _last_line(text: str) -> str:
    """The last line of a text, without tags."""
    return re.sub(r"</?\w+>", "", text).strip().rpartition("\n")[2]


def _given(text: str, layout: str) -> str:
    given = read_answer(text, layout)[0] or last_number(text) or ""
    number = to_number(given)
    return str(number.normalize()) if number is not None else " ".join(given.casefold().split())


def evaluate(policy, rows, recipe, prefill: str = "", title: str = "", **sampling) -> list[Graded]:
    """Answers of a policy to every row, graded, in the order of the rows; greedy without `sampling`.

    In batches of eval_batch_size, the shortest prompts first, so that little is padded. A `title` shows
    progress; `sampling` goes to Policy.generate, as does adapter=False, which asks the base.
    """
    size, limit = recipe.evaluation.eval_batch_size, recipe.grpo["max_completion_length"]
    lengths = [sum(len(message["content"]) for message in prompt) for prompt in rows["prompt"]]
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    graded: dict[int, Graded] = {}
    show = _progress(title, len(rows)) if title else lambda done: None
    for start in range(0, len(rows), size):
        places = order[start : start + size]
        batch = rows.select(places)[:]
        with out_of_memory_in_words(recipe):
            completions = policy.generate(batch["prompt"], limit, prefill=prefill, **sampling)
        graded |= zip(places, grade(batch, completions, recipe), strict=True)
        show(len(graded))
    policy.rest()
    return [graded[i] for i in range(len(rows))]


def _progress(title: str, total: int):
    """A function that shows how many of `total` are done: by tqdm, or in a notebook as text.

    There tqdm would leave a widget, which a saved notebook cannot show.
    """
    from IPython import get_ipython
    from IPython.display import display
    from tqdm import tqdm

    def text(done: int) -> dict:
        return {"text/plain": f"{title}: {done} of {total} answered"}

    if hasattr(get_ipython(), "kernel"):
        handle = display(text(0), raw=True, display_id=True)
        return lambda done: handle.update(text(done), raw=True)
    bar = tqdm(total=total, desc=title, leave=False, disable=not is_main())
    return lambda done: (bar.update(done - bar.n), bar.close() if done == total else None)


def sample_groups(policy, rows, recipe, samples: int, prefill="", title="", **options) -> list[list[Graded]]:
    """`samples` graded completions of each row, at training's temperature and top_p; seeded without vLLM."""
    from transformers import set_seed

    set_seed(recipe.grpo["seed"])
    sampling = {key: recipe.grpo[key] for key in ("temperature", "top_p") if key in recipe.grpo}
    several = rows.select([i for i in range(len(rows)) for _ in range(samples)])
    graded = evaluate(policy, several, recipe, prefill, title, **{"temperature": 1.0} | sampling | options)
    return [graded[i : i + samples] for i in range(0, len(graded), samples)]


def summarize(graded: list[Graded]) -> dict:
    """Rates with their 95 % intervals, mean length in tokens, and each reward's mean.

    {"strict": rate, "strict_interval": [low, high], "lenient": .., "format": .., "cut": ..,
    "tokens": .., "n": .., "rewards": {name: mean}}
    """
    n = len(graded)
    summary: dict = {"n": n}
    for rate in ("strict", "lenient", "format"):
        judged = [getattr(g, rate) for g in graded if getattr(g, rate) is not None]
        summary[rate] = sum(judged) / len(judged) if judged else None
        summary[f"{rate}_interval"] = wilson(sum(judged), len(judged)) if judged else None
    summary["cut"] = sum(g.cut for g in graded) / n
    summary["tokens"] = sum(len(g.ids) for g in graded) / n
    summary["rewards"] = {}
    for name in graded[0].rewards if graded else ():
        counted = [g.rewards[name] for g in graded if g.rewards[name] is not None]
        summary["rewards"][name] = sum(counted) / len(counted) if counted else None
    return summary


def summarize_samples(groups: list[list[Graded]]) -> dict:
    """pass@k and maj@k for k = 1, 2, 4, ..., each [value, low, high], of the answers that were given.

    {"problems", "samples", "pass": {"1": [..], ..}, "maj": {..}}. An answer is the one in the block, or
    without a block the last number. Problems with a sample that no judge scored are left out.
    """
    groups = [group for group in groups if all(g.right is not None for g in group)]
    n, counted = len(groups[0]) if groups else 0, []
    for group in groups:
        wrong = Counter(g.given for g in group if not g.right and g.given)
        counted.append((sum(g.right for g in group), list(wrong.values())))
    summary: dict = {"problems": len(groups), "samples": n, "pass": {}, "maj": {}}
    for k in (2**i for i in range(n.bit_length())):
        passed = sum(pass_at_k(n, right, k) for right, _ in counted)
        voted = sum(maj_at_k(n, right, wrong, k) for right, wrong in counted)
        for name, total in (("pass", passed), ("maj", voted)):
            summary[name][str(k)] = [total / len(groups), *wilson(total, len(groups))]
    return summary


def evaluate_stage(run, stage: str, policy, tests: dict, recipe) -> dict[str, list[Graded]]:
    """{split: graded} of a stage, "before", "prefilled" (the reply opens with <reasoning>) or "after".

    Greedy answers to all test problems, and `samples` sampled ones to the first `sampled_problems`
    of the first split, are written into the run. Before training it is the base that is asked; what a
    resumed run holds of it is not asked again. Raises UserError for an adapter that is not finite.
    """
    if stage == "after" and not is_finite(policy.model):
        raise UserError(NOT_FINITE)
    if stage != "after" and _answers(held := run.graded(stage), tests):
        return held
    prefill = LAYOUTS[recipe.data.layout].prefill if stage == "prefilled" else ""
    who = {"adapter": stage == "after"}
    settings, graded, groups = recipe.evaluation, {}, None
    for split, rows in tests.items():
        graded[split] = evaluate(policy, rows, recipe, prefill, f"{split}, {stage}", **who)
        if groups is None:
            some = rows.select(range(min(settings.sampled_problems, len(rows))))
            title = f"{split}, {stage}, sampled"
            groups = sample_groups(policy, some, recipe, settings.samples, prefill, title, **who)
            run.write_samples(stage, split, groups)
    run.write_evaluation(stage, graded)
    return graded


def _answers(held: dict[str, list[Graded]], tests: dict) -> bool:
    """Whether what a run holds are answers to these very problems."""
    asked = {split: list(zip(rows["question"], rows["answer"], strict=True)) for split, rows in tests.items()}
    return {split: [(g.question, g.answer) for g in graded] for split, graded in held.items()} == asked


def as_records(graded: list[Graded]) -> list[dict]:
    """Plain dicts, for a JSON file."""
    return [asdict(g) for g in graded]
