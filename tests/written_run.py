"""Run folders like those of a training, written without training; and hostile completions."""

import pandas

from r1nb.training.resume import new_run

IDEAL = "<reasoning>\n4*6=24\n</reasoning>\n<answer>\n24\n</answer>"
# Harmless if shown as text. As markup, they would set window.hacked or reverse the direction of writing.
HOSTILE = [
    "<script>window.hacked = 1</script>",
    '<img src="x" onerror="window.hacked = 1">',
    "\x1b[31mred\x1b[0m \x1b]8;;https://example.org\x07link",
    "\u202e<answer>42</answer>\u200f",
    "</td></table></div><style>*{display:none}</style><b onmouseover='window.hacked=1'>",
    "$x$ \\(y\\) [link](javascript:window.hacked=1)",
]


def write_run(recipe, steps: int, texts=(IDEAL, "24"), group: int = 8, right: float = 0.5):
    """Write a run folder like that of a training, with one group per step, and return the run.

    `right` is what each reward pays for an ideal completion.
    """
    run = new_run(recipe)
    (run.folder / "completions").mkdir()
    answers = [
        {"question": "How much is 4 times 6?", "answer": "24", "completion": text, "cut": False,
         "strict": text == IDEAL, "ids": [1]}
        for text in texts
    ]  # fmt: skip
    for step in range(1, steps + 1):
        append_step(run, step, answers)
        completions = [texts[i % len(texts)] for i in range(group)]
        scores = [2.0 * (text == IDEAL) for text in completions]
        table = {
            "step": step, "prompt": f"How much is 4 times 6? ({step})", "completion": completions,
            **{name: [right * (score > 0) for score in scores] for name in recipe.rewards},
            "answer": "24", "tokens": 9, "cut": [i == 1 for i in range(group)],
            "advantage": [score - 1 + i / 100 for i, score in enumerate(scores)],
        }  # fmt: skip
        log = pandas.DataFrame(table)
        log.to_parquet(run.folder / "completions" / f"completions_{step:05d}.parquet")
    return run


def append_step(run, step: int, answers: list) -> None:
    """Append the line of a step to the history, and after some steps a validation."""
    share = min(1.0, step / 60)
    line = {"step": step, "time": 2.0 * step, "reward": 4 * share, "reward_std": 1 - share, "loss": -0.1,
            "grad_norm": 0.3, "entropy": 1 - share / 2, "completions/mean_length": 9 + 40 * share,
            "completions/clipped_ratio": 0.0, "frac_reward_zero_std": 0.0,
            "adapter/norm": 0.1 * step}  # fmt: skip
    run.append(line | {f"rewards/{name}/mean": share / 2 for name in run.reward_weights})
    if step % 16 == 0 or step == 1:
        rates = {"strict": share, "lenient": share, "format": share, "tokens": 9, "n": 60}
        run.append({"step": step, **{f"validation/{key}": value for key, value in rates.items()}})
        run.write_validation(step, answers)
