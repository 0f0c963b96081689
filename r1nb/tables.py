"""Tables for a notebook. Completions are text to be shown, never markup: all of it is escaped."""

import html

from r1nb.prompts import build_messages
from r1nb.rewards import REWARDS, short_name

# Prefilled: the untrained policy with <reasoning> put into its mouth.
STAGES = {"before": "before", "prefilled": "before, prefilled", "after": "after"}


NO_MATH = 'class="tex2jax_ignore mathjax_ignore"'  # two dollar signs are no formula


def accuracy_table(run):
    """Rates with intervals and mean rewards, for each test split and stage so far."""
    columns, rows, weights = {}, {}, run.weights()
    for split, stages in run.evaluation().items():
        for stage in (s for s in STAGES if s in stages):
            summary = stages[stage]
            cells = {rate: rate_cell(summary, rate) for rate in ("strict", "lenient", "format")}
            cells["cut off"] = f"{summary['cut']:.1%}"
            cells["tokens, mean"] = f"{summary['tokens']:.0f}"
            cells |= {short_name(name): f"{summary['rewards'][name]:.3f}" for name in weights}
            column = f"{split} ({summary['n']})", STAGES[stage]
            columns[column] = None
            for name, cell in cells.items():
                rows.setdefault(name, []).append(cell)
    return _styled([[name, *cells] for name, cells in rows.items()], [("", ""), *columns])


def rate_cell(summary: dict, rate: str) -> str:
    """A rate with its 95 % interval: 93.0% [89.5, 95.4]."""
    low, high = summary[f"{rate}_interval"]
    return f"{summary[rate]:.1%} [{low * 100:.1f}, {high * 100:.1f}]"


def settings_table(recipe):
    """The GRPO and LoRA values that decide a run, each with its reason."""
    return _styled([[str(cell) for cell in row] for row in recipe.table()], ["setting", "value", "why"])


def completion_table(run, steps: list[int], each: int):
    """Sampled completions of some steps with each reward, their total and their advantage.

    Of the group whose rewards differ most, the completions of lowest and highest advantage are
    shown, and others between them, `each` in all.
    """
    weights = run.weights()
    rows = []
    for step in steps:
        log = run.completions(step)
        log["total"] = sum(log[name] * weight for name, weight in weights.items())
        widest = log.groupby("prompt")["total"].std().idxmax()
        group = log[log["prompt"] == widest].sort_values("advantage")
        picked = sorted({round(i * (len(group) - 1) / max(1, each - 1)) for i in range(each)})
        for _, line in group.iloc[picked].iterrows():
            values = [f"{line[name]:g}" for name in [*weights, "total"]]
            rows.append([str(step), line["answer"], line["completion"], *values, f"{line['advantage']:+.2f}"])
    names = map(short_name, weights)
    return _styled(rows, ["step", "gold", "completion", *names, "total", "advantage"])


def side_by_side(policy, questions, max_tokens: int, golds=None, **sampling):
    """Answers of the base beside those of the adapter; with golds, a mark for each right one.

    `sampling` is temperature and top_p; without them the answers are greedy.
    """
    prompts = [build_messages(question) for question in questions]
    golds = golds or [None] * len(questions)
    sides = {"base": False, "adapter": True} if policy.has_adapter else {"model": True}
    answers = [
        [c.text for c in policy.generate(prompts, max_tokens, adapter=adapter, **sampling)]
        for adapter in sides.values()
    ]
    rows = []
    for question, gold, *texts in zip(questions, golds, *answers, strict=True):
        rows.append([question, *([gold or ""] if any(golds) else []), *(_marked(t, gold) for t in texts)])
    return _styled(rows, ["question", *(["gold"] if any(golds) else []), *sides])


def _marked(text: str, gold: str | None) -> str:
    if gold is None:
        return text
    right = REWARDS["correctness_reward_func"].score(text, gold) > 0
    return f"{'✓' if right else '✗'} {text}"


def _styled(rows: list[list[str]], columns: list):
    import pandas

    if columns and isinstance(columns[0], tuple):
        columns = pandas.MultiIndex.from_tuples(columns)
    table = pandas.DataFrame(rows, columns=columns)
    properties = {"text-align": "left", "vertical-align": "top", "white-space": "normal"}
    headers = [{"selector": "th", "props": [("text-align", "left")]}]
    style = table.style.hide(axis="index").format(_escaped).format_index(_escaped, axis="columns")
    return (
        style.set_properties(**properties)
        .set_table_styles(headers)
        .set_uuid("r1nb")
        .set_table_attributes(NO_MATH)
    )


def _escaped(text) -> str:
    return html.escape(str(text)).replace("\n", "<br>")
