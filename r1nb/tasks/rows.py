"""Load a split of a dataset, file or folder as rows {prompt, answer, question, solution}."""

import contextlib
import re
from pathlib import Path

from datasets import Dataset, ReadInstruction, concatenate_datasets

from r1nb.errors import UserError, say_once
from r1nb.paths import DATA
from r1nb.rewards.gym import PROBLEMS, gym_problem, gym_tasks
from r1nb.rewards.registry import RESERVED, find_reward, shipped_names
from r1nb.tasks.files import read_hub, read_local
from r1nb.tasks.sources import (
    BUNDLED,
    GYM,
    SOURCES,
    Source,
    check_dataset,
    countdown_numbers,
    own_source,
    source_of,
    usual_columns,
)
from r1nb.text.prompts import LAYOUTS, REASONING, Layout

WORD = re.compile(r"(?:\.(?=\d))?\w+|[^\w\s.,;:!?'\"]")
ODD_CELL = (AttributeError, IndexError, KeyError, TypeError, ValueError)  # a cell is empty or of another type
SPLIT = re.compile(r"(\w+)(\[.*\])?")  # train, or train[-300:]


def load_rows(dataset: str, split: str, question=None, answer=None, layout: Layout = REASONING):
    """Rows of a split as a datasets.Dataset: prompt (chat messages), answer (the gold), question,
    solution (the steps, or ""), and whatever other columns a reward may need.

    `dataset` is "bundled", "bundled-countdown", a name of SOURCES (or with a subset,
    "openai/gsm8k:socratic"), "reasoning-gym:<task>+<task>", a file or folder of .jsonl, .csv or
    .parquet, or the name of any dataset on the Hub. If the data does not look like one of SOURCES, its
    columns are found by usual names (`problem`, `solution`, ...) if there is exactly one of each; else name
    them with `question` and `answer`. A split may be a slice: "train[-300:]". Rows without a gold are
    dropped, and their number is printed. Raises UserError if the data cannot be read, with the line or the
    columns found.
    """
    return _load(dataset, split, question, answer, layout)[0]


def load_split(data, split: str):
    """Load the rows of one split; `data` is the section `data` of a recipe."""
    return _load_split(data, split)[0]


def _load_split(data, split: str) -> tuple:
    return _load(data.dataset, split, data.question_column, data.answer_column, LAYOUTS[data.layout])


def _load(dataset: str, split: str, question, answer, layout) -> tuple:
    """Load a split: (rows, their Source); the Source is None for reasoning-gym."""
    dataset = str(dataset)
    if not (match := SPLIT.fullmatch(str(split))):
        raise UserError(f"split = {split!r}: write a split's name, or a slice of it, as in 'train[-300:]'.")
    if bool(question) != bool(answer):
        raise UserError("Only one of question_column and answer_column is set: set both.")
    if dataset.startswith(GYM):
        return _slice(_gym_rows(dataset, match[1], layout), split), None
    check_dataset(dataset)
    name, _, subset = dataset.partition(":")
    path = DATA / BUNDLED[dataset] if dataset in BUNDLED else Path(dataset).expanduser()
    if path.exists():
        raw, where = read_local(path, match[1])
    else:
        named = SOURCES.get(dataset) or SOURCES.get(name)
        raw, where = read_hub(name, subset or (named and named.subset), match[1]), name
    flat = raw.flatten()  # names a field of a column of structs, as reward_model.ground_truth
    fields = [name for name in {question, answer} & set(flat.column_names) if name not in raw.column_names]
    raw = concatenate_datasets([raw, flat.select_columns(fields)], axis=1) if fields else raw
    columns, known = raw.column_names, SOURCES.get(dataset) or source_of(raw)
    if not (question or known) and (usual := usual_columns(columns)):
        question, answer = usual
        say_once(
            f"Taken from the names of the columns of {where}: the questions are in {question}, the answers "
            f"in {answer}. question_column and answer_column choose others."
        )
    source = own_source(question, answer, raw) if question else known
    if source is None or not set(source.columns) <= set(columns):
        lacks = f" has no {' and '.join(source.columns)}" if source else " is not like any known dataset"
        hint = "" if question else ": set question_column and answer_column to two of them"
        raise UserError(f"{where}{lacks}; its columns are {', '.join(flat.column_names)}{hint}.")
    raw = _slice(raw, split)
    if path.exists():  # a local file keeps its other columns
        others = [column for column in columns if column not in source.columns]
        if taken := [column for column in others if column in RESERVED]:
            print(f"Left out columns of {where} whose names TRL uses itself: {', '.join(taken)}.")
        others = [column for column in others if column not in RESERVED]
        rows = [{c: row[c] for c in others} | _row(source, row, layout) for row in raw]
        with contextlib.suppress(*ODD_CELL):  # if each row has Countdown's numbers, they may be text
            pairs = [countdown_numbers(row) for row in rows]
            rows = [row | {"nums": pair[0], "target": pair[1]} for row, pair in zip(rows, pairs, strict=True)]
        rows = Dataset.from_list(rows)
    else:  # other columns on the Hub hold long texts that are not used here
        rows = raw.map(lambda row: _row(source, row, layout), remove_columns=columns)
    pairs = enumerate(zip(rows["question"], rows["answer"], strict=True))
    kept = rows.select([i for i, (asked, gold) in pairs if gold and asked and asked.strip()])
    if dropped := len(rows) - len(kept):
        print(f"Dropped {dropped} of {len(rows)} rows of {split}: no question or gold, or marked invalid.")
    if not len(kept):
        raise UserError(
            f"No row of {where} has a question and a gold; in {source.name} the gold is: {source.gold}. "
            f"Set question_column and answer_column for other data. The first row: {str(raw[0])[:150]}"
        )
    return kept, known if known and known.benchmark else source  # a benchmark, whichever columns are named


def _row(source: Source, row: dict, layout: Layout) -> dict:
    try:
        read = source.read(row)
    except UserError:
        raise
    except ODD_CELL:
        read = dict.fromkeys(("question", "answer", "solution"), "")
        read |= {column: None for column in ("nums", "target") if column in source.columns}
    if "solution" not in source.columns and isinstance(row.get("solution"), str) and row["solution"].strip():
        read["solution"] = row["solution"]  # the user's own
    return read | {"prompt": layout.build_messages(read["question"])}


def _slice(rows, split: str):
    """The rows in the slice of a split; all rows if there is no slice."""
    try:
        (part,) = ReadInstruction.from_spec(split).to_absolute({SPLIT.fullmatch(split)[1]: len(rows)})
    except (ValueError, AssertionError) as error:
        raise UserError(f"split = {split!r}: {str(error).splitlines()[0]}") from None
    if part.from_ >= part.to:
        raise UserError(f"split = {split!r} selects none of the {len(rows)} rows: choose another slice.")
    return rows.select(range(part.from_, part.to))


def _gym_rows(dataset: str, split: str, layout: Layout):
    """Problems of reasoning-gym's tasks in turn: 1,000 for training, 200 for each other split."""
    if split not in PROBLEMS:
        raise UserError(f"reasoning-gym has the splits {', '.join(PROBLEMS)}, not {split!r}.")
    tasks, known = dataset.removeprefix(GYM).split("+"), gym_tasks()
    if unknown := [task for task in tasks if task not in known]:
        raise UserError(f"reasoning-gym has no task {unknown[0]!r}; it has {', '.join(known)}.")
    rows = []
    for number in PROBLEMS[split]:
        problem = f"{tasks[number % len(tasks)]}:{number}"
        question, answer = gym_problem(problem)
        row = {"question": question, "answer": answer, "solution": "", "problem": problem}
        row["gym_task"] = tasks[number % len(tasks)]  # the judge is chosen by this column
        if question:
            rows.append(row | {"prompt": layout.build_messages(question)})
    if failed := len(PROBLEMS[split]) - len(rows):
        print(f"Dropped {failed} of {len(PROBLEMS[split])} problems: reasoning-gym could not generate them.")
    return Dataset.from_list(rows)


def load_splits(data, sizes, rewards=()) -> tuple:
    """Load (training rows, validation rows, {test split: rows}); `data` and `sizes` are sections of a recipe.

    `sizes` is the section `evaluation`. A training row is dropped if its question occurs in validation or
    test, or in an earlier training row; the number of dropped rows is printed. Raises UserError if the
    dataset is a benchmark, or if one of `rewards` (names) cannot judge its answers.
    """
    train, source = _load_split(data, data.train_split)
    _check_source(source, data.dataset, rewards)
    tests = {name: load_split(data, name) for name in data.test_splits}
    validation = load_split(data, data.validation_split) if data.validation_split else None
    keys = _keys([rows for rows in (train, *tests.values(), validation) if rows is not None])
    questions, sealed = keys[0], {key for split in keys[1:] for key in split}
    if validation is None:  # the last training rows that are not in a test split
        apart = [i for i, question in enumerate(questions) if question not in sealed]
        count = data.validation_rows or sizes.validation_problems
        if count >= len(apart):
            raise UserError(
                f"validation_rows = {count}, but {data.train_split} has only {len(apart)} rows outside the "
                "test splits: use fewer."
            )
        validation = train.select(apart[-count:])
        sealed |= {questions[i] for i in apart[-count:]}
    kept = [i for i, question in enumerate(questions) if question not in sealed]
    if dropped := len(train) - len(kept) - (0 if data.validation_split else len(validation)):
        print(f"Dropped {dropped} training rows whose question occurs in validation or test.")
    first = {questions[i]: i for i in reversed(kept)}  # the first of equal questions
    if dropped := len(kept) - len(first):
        print(f"Dropped {dropped} training rows whose question occurs in an earlier one.")
    if not first:
        raise UserError(f"No row of {data.train_split} is left to train on: all are in validation or test.")

    def some(rows, count):
        return rows.select(range(min(count, len(rows))))

    tests = {name: some(rows, sizes.test_problems) for name, rows in tests.items()}
    return train.select(sorted(first.values())), some(validation, sizes.validation_problems), tests


def _keys(splits: list) -> list[list[str]]:
    """A key for each row of each split, equal if the question is.

    If all rows have Countdown's numbers, these are the key, and their order does not matter.
    """
    named = all({"nums", "target"} <= set(rows.column_names) for rows in splits)
    if named and all(isinstance(nums, list) for rows in splits for nums in rows["nums"]):
        pairs = [zip(rows["nums"], rows["target"], strict=True) for rows in splits]
        return [[f"{sorted(map(str, nums))} {target}" for nums, target in split] for split in pairs]
    return [[normalize(question) for question in rows["question"]] for rows in splits]


def _check_source(source: Source | None, dataset: str, rewards) -> None:
    if source and source.benchmark:
        raise UserError(f"{source.name} is a benchmark: evaluate on it, never train. Choose another dataset.")
    suited = source.rewards if source else ("gym_reward_func",)
    ours = [name for name in rewards if name in shipped_names()]
    judging = [name for name in ours if find_reward(name).judges == "answer"]
    if wrong := [name for name in judging if suited and name not in (*suited, "judge_reward_func")]:
        own = " If the dataset is your own file, set question_column and answer_column." if source else ""
        use = f"use {' or '.join(suited)}, as in rewards='{{{suited[0]}: 1.0}}'.{own}"
        raise UserError(f"{wrong[0]} cannot judge the answers of {dataset}: {use}")


def drop_long_prompts(rows, tokenizer, limit: int, needed: int):
    """The rows whose prompt has at most `limit` tokens; prints how many were dropped.

    Raises UserError if fewer than `needed` (recipe.problems_per_generation) are left: TRL would take no step.
    """
    tokens = tokenizer.apply_chat_template(list(rows["prompt"]), add_generation_prompt=True, return_dict=True)
    lengths = [len(ids) for ids in tokens["input_ids"]]
    kept = [i for i, length in enumerate(lengths) if length <= limit]
    if dropped := len(rows) - len(kept):
        print(f"Dropped {dropped} of {len(rows)} training rows: prompt over {limit} tokens.")
    if len(kept) < needed:
        raise UserError(
            f"{len(kept)} training rows are too few, since TRL takes {needed} problems at a time: give more "
            f"rows, raise max_prompt_length = {limit} (the shortest prompt has {min(lengths)} tokens), or "
            "lower per_device_train_batch_size."
        )
    return rows.select(kept)


def normalize(question: str) -> str:
    """A question without case, spacing and punctuation, to compare it with others.

    Arithmetic signs are kept: 3 + 6 and 3 - 6 are different questions.
    """
    return " ".join(WORD.findall(question.casefold()))
