"""Accuracy on problems that were not trained on: greedy answers, and several sampled ones.

rewards/grading.py says what counts as right; text/statistics.py computes the intervals.
"""

import contextlib

from r1nb.errors import Interrupted, UserError
from r1nb.machine.out_of_memory import out_of_memory_in_words
from r1nb.policy.adapters import NOT_FINITE, is_finite
from r1nb.processes import is_main
from r1nb.recipes.settings import Sampling
from r1nb.rewards.grading import Graded, Judge, grade
from r1nb.rewards.own import as_trained
from r1nb.runs.activity import READY, say_now
from r1nb.runs.disk import full_disk_in_words


def evaluate(
    policy, rows, judge: Judge, sampling: Sampling, batch_size: int, prefill="", title="", adapter=True,
    run=None,
) -> list[Graded]:  # fmt: skip
    """The policy's graded answer to each row, in the order of the rows.

    Rows with short prompts are answered first, so that batches need little padding. Each reply is prefilled
    with `prefill`. Progress is shown if there is a `title`, and said in the folder of the `run`, if any. With
    adapter=False the base model answers.
    """
    lengths = [sum(len(message["content"]) for message in prompt) for prompt in rows["prompt"]]
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    graded: dict[int, Graded] = {}
    show = _progress(title, len(rows)) if title else lambda done: None
    what = f"measuring accuracy{title and ', '}{title}"
    for start in range(0, len(rows), batch_size):
        places = order[start : start + batch_size]
        batch = rows.select(places)[:]
        with out_of_memory_in_words(f"lower eval_batch_size = {batch_size}"):
            completions = policy.generate(batch["prompt"], sampling, adapter, prefill)
        graded |= zip(places, grade(batch, completions, judge), strict=True)
        show(len(graded))
        if run:
            say_now(run, f"{what}: {len(graded)} of {len(rows)}")
    policy.rest()
    return [graded[i] for i in range(len(rows))]


def _progress(title: str, total: int):
    """A function that shows how many of `total` are done: as a bar in a terminal, as text in a notebook.

    In a notebook tqdm would leave a widget, which a saved notebook cannot show. A log file gets one line.
    """
    from IPython import get_ipython
    from IPython.display import display
    from tqdm import tqdm

    def text(done: int) -> dict:
        return {"text/plain": f"{title}: {done} of {total} answered"}

    if hasattr(get_ipython(), "kernel"):
        handle = display(text(0), raw=True, display_id=True)
        return lambda done: handle.update(text(done), raw=True)
    bar = tqdm(total=total, desc=title, leave=False, disable=None if is_main() else True)
    if bar.disable:
        print(f"{title}: {total} answers")
    return lambda done: (bar.update(done - bar.n), bar.close() if done == total else None)


def sample_groups(
    policy, rows, judge: Judge, sampling: Sampling, batch_size: int, samples: int, **options
) -> list[list[Graded]]:
    """`samples` graded completions for each row; sampling.seed is the seed, except with vLLM.

    `options` are those of evaluate: prefill, title, adapter, run.
    """
    from transformers import set_seed

    set_seed(sampling.seed)
    several = rows.select([i for i in range(len(rows)) for _ in range(samples)])
    graded = evaluate(policy, several, judge, sampling, batch_size, **options)
    return [graded[i : i + samples] for i in range(0, len(graded), samples)]


def evaluate_tests(run, moment: str, policy, tests: dict, recipe) -> dict[str, list[Graded]]:
    """Evaluate the test rows at a moment, "before", "prefilled" or "after"; returns {split: graded}.

    "prefilled" is before training, with the reply prefilled with the layout's first tag. The run folder gets
    the greedy answers to all test rows, and `samples` sampled answers to each of the first `sampled_problems`
    rows of the first split. Before training the base model answers, and a resumed run keeps those answers.
    Raises UserError if the trained weights are not finite.
    """
    if moment == "after" and not is_finite(policy.model):
        raise UserError(NOT_FINITE)
    if moment != "after" and _answers(held := run.graded(moment), tests):
        return held
    settings, graded, groups = recipe.evaluation, {}, None
    options = {
        "batch_size": settings.eval_batch_size,
        "prefill": recipe.layout.prefill if moment == "prefilled" else "",
        "adapter": moment == "after",
        "run": run,
    }
    with _interrupted_in_words(run, moment):
        for split, rows in tests.items():
            title = f"{split}, {moment}"
            with as_trained(run):
                judge = recipe.judge(rows.column_names)
            graded[split] = evaluate(policy, rows, judge, recipe.greedy, title=title, **options)
            if groups is None:
                some = rows.select(range(min(settings.sampled_problems, len(rows))))
                groups = sample_groups(
                    policy, some, judge, recipe.sampling, samples=settings.samples, title=f"{title}, sampled",
                    **options,
                )  # fmt: skip
                with full_disk_in_words(run):
                    run.write_samples(moment, split, groups)
        with full_disk_in_words(run):
            run.write_evaluation(moment, graded)
    say_now(run, "" if moment == "after" else READY)
    return graded


@contextlib.contextmanager
def _interrupted_in_words(run, moment: str):
    try:
        yield
    except KeyboardInterrupt:
        say_now(run, "")
        which = "with prefilled replies" if moment == "prefilled" else f"{moment} training"
        raise Interrupted(
            f"Stopped while the accuracy {which} was measured; {run.label} keeps what was trained: "
            "run this again to measure it."
        ) from None


def _answers(held: dict[str, list[Graded]], tests: dict) -> bool:
    """Whether the answers that a run already holds belong to exactly these problems."""
    asked = {split: list(zip(rows["question"], rows["answer"], strict=True)) for split, rows in tests.items()}
    return {split: [(g.question, g.answer) for g in graded] for split, graded in held.items()} == asked
