"""Rejection sampling (arXiv 2501.12948v1, section 2.3.3): SFT examples from a policy's own completions.

A completion is kept if it is right, well-formed, readable, and not a duplicate.
"""

import json

from r1nb.errors import UserError
from r1nb.evaluation.accuracy import sample_groups
from r1nb.paths import read_json, write_json
from r1nb.rewards.grading import Graded
from r1nb.rewards.reasoning import find_equations, language_reward_func
from r1nb.runs.run import REJECTION
from r1nb.text.prompts import Layout

# Why a completion is not kept; only the first reason that applies is counted.
CUT, UNJUDGED, FORMAT, WRONG = "cut off", "no judge scored it", "not well-formed", "wrong answer"
STEP, LANGUAGE, TWICE = "right, but a step does not hold", "words of another language", "there already"
REASONS = (CUT, UNJUDGED, FORMAT, WRONG, STEP, LANGUAGE, TWICE)


def why_not(graded: Graded, layout: Layout, language: str) -> str:
    """Why a completion is not kept as an example, one of REASONS; "" if it is.

    A completion is readable if each equation in it holds and each word is in the script of the language.
    """
    parsed = layout.parse(graded.completion)
    if graded.cut:
        return CUT
    if graded.strict is None:
        return UNJUDGED
    if not graded.format or not parsed:
        return FORMAT
    if not graded.strict:
        return WRONG
    if not all(holds for *_, holds in find_equations(parsed.reasoning)):
        return STEP
    consistent = language_reward_func.bind(layout=layout, language=language)
    words = any(map(str.isalpha, parsed.reasoning))  # equations alone belong to no language
    return LANGUAGE if words and consistent.score(graded.completion) < consistent.high else ""


def select(
    groups: list[list[Graded]], layout: Layout, language: str
) -> tuple[list[list[Graded]], dict[str, int]]:
    """(the kept completions of each group, {reason: how many completions were dropped for it})."""
    counts, kept = dict.fromkeys(REASONS, 0), []
    for group in groups:
        good: dict[str, Graded] = {}
        for graded in group:
            reason = why_not(graded, layout, language) or (TWICE if graded.completion in good else "")
            if reason:
                counts[reason] += 1
            else:
                good[graded.completion] = graded
        kept.append(list(good.values()))
    return kept, counts


def examples_of(rows, kept: list[list[Graded]]) -> list[dict]:
    """SFT examples {prompt, completion}, both lists of chat messages, from each row's kept completions."""
    return [
        {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": graded.completion}]}
        for row, group in zip(rows, kept, strict=True)
        for graded in group
    ]


def sample_examples(run, policy, rows, recipe, samples: int, prefill: str = ""):
    """{prompt, completion} examples from `samples` completions of each row, as a datasets.Dataset.

    The run folder keeps the examples (examples.json), which a resumed run reads again, and the number of
    completions dropped for each reason (rejection.json). Raises UserError if no completion is kept, or if
    the judge scored none of them.
    """
    from datasets import Dataset

    path = run.folder / "examples.json"
    if not read_json(path, []):
        judge, batch_size = recipe.judge(rows.column_names), recipe.evaluation.eval_batch_size
        groups = sample_groups(
            policy, rows, judge, recipe.sampling, batch_size, samples, prefill=prefill,
            title=f"{run.name}, sampled",
        )  # fmt: skip
        kept, counts = select(groups, recipe.layout, recipe.scoring.language)
        total, left = len(rows) * samples, sum(map(len, kept))
        facts = {"problems": len(rows), "samples": total, "kept": left, "solved": sum(map(bool, kept))}
        write_json(run.folder / REJECTION, facts | {"dropped": counts})
        if 0 < counts[UNJUDGED] == total - counts[CUT]:
            raise UserError("The judge scored none of the completions: is judge_url reachable?")
        if not left:
            why = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
            sampled = f"{total} completions ({why})"
            raise UserError(f"Rejection sampling kept none of {sampled}: sample more, or train longer first.")
        write_json(path, examples_of(rows, kept))
    return Dataset.from_list(json.loads(path.read_text(encoding="utf-8")))
