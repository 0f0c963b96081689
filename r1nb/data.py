"""Datasets: a name or a folder, and a split, to rows {prompt, answer, question, solution}."""

import json
import re
from pathlib import Path

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.prompts import build_messages, format_answer

GSM8K = "openai/gsm8k"
MARKS = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator marks, <<48/2=24>>


def load_rows(dataset: str, split: str):
    """Rows of a split as a datasets.Dataset: prompt (chat messages), answer (the gold), question,
    solution (the steps), and whatever other columns there are.

    `dataset` is "bundled", "openai/gsm8k" (needs network once) or a folder of `<split>.jsonl` files
    in GSM8K's form. Raises UserError for a missing, empty or malformed file, naming the line.
    """
    from datasets import Dataset

    if dataset == GSM8K:
        return _from_hub(split).map(_row)
    folder = DATA / "problems" if dataset == "bundled" else Path(dataset).expanduser()
    if not folder.is_dir():
        raise UserError(f"Unknown dataset {dataset!r}: use 'bundled', '{GSM8K}' or a folder of .jsonl files.")
    rows = read_jsonl(folder / f"{split}.jsonl", ("question", "answer"))
    rows = [row | _row(row, f"{split}.jsonl, line {n}") for n, row in rows]
    try:
        return Dataset.from_list(rows)
    except ValueError as error:  # pyarrow's ArrowInvalid is one
        raise UserError(f"{split}.jsonl: a column holds values of several types ({error}).") from None


def read_jsonl(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict]]:
    """(line number, object) of each line; every object has the columns, as strings."""
    if not path.is_file():
        found = ", ".join(sorted(p.stem for p in path.parent.glob("*.jsonl"))) or "none"
        raise UserError(f"{path.name} is not in {path.parent}; splits there: {found}.")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except ValueError:  # not JSON, or not UTF-8
            shown = line[:40].decode("utf-8", "replace")
            raise UserError(f"{path.name}, line {number} is not JSON in UTF-8: {shown!r}.") from None
        if not isinstance(row, dict) or any(not isinstance(row.get(c), str) for c in columns):
            found = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise UserError(
                f"{path.name}, line {number} lacks a text in {' or '.join(columns)}; found: {found}."
            )
        rows.append((number, row))
    if not rows:
        raise UserError(f"{path.name} is empty: it needs one JSON object a line.")
    return rows


def _from_hub(split: str):
    import datasets

    try:
        return datasets.load_dataset(GSM8K, "main", split=split)
    except ValueError as error:
        raise UserError(f"{GSM8K} has no split {split!r}: {str(error).splitlines()[0]}") from None
    except OSError:  # ConnectionError is one
        raise UserError(
            f"{GSM8K} cannot be fetched from the Hub: without network, set dataset to a folder that "
            "holds its train.jsonl and test.jsonl."
        ) from None


def _row(row: dict, where: str = "a row") -> dict:
    solution, marker, gold = row["answer"].rpartition("####")
    if not marker or not gold.strip():
        raise UserError(f"{where}: the answer has no '#### <number>' at its end.")
    return {
        "prompt": build_messages(row["question"]),
        "answer": gold.strip(),
        "solution": MARKS.sub("", solution).strip(),
    }


def solution_as_xml(row: dict) -> str:
    """A row's own solution as the completion that the system prompt asks for."""
    return format_answer(row["solution"], row["answer"])


def load_splits(recipe) -> tuple:
    """(training rows, validation rows, {test split: rows}) of a recipe.

    Training rows whose question stands in validation or test are dropped, aloud.
    """
    data, sizes = recipe.data, recipe.evaluation
    train = load_rows(data.dataset, data.train_split)
    if data.validation_split:
        validation = load_rows(data.dataset, data.validation_split)
    else:
        count = data.validation_rows or sizes.validation_problems
        if count >= len(train):
            raise UserError(f"validation_rows = {count}, but {data.train_split} has only {len(train)} rows.")
        split = len(train) - count
        train, validation = train.select(range(split)), train.select(range(split, len(train)))
    tests = {name: load_rows(data.dataset, name) for name in data.test_splits}
    sealed = {normalize(q) for rows in (validation, *tests.values()) for q in rows["question"]}
    kept = [i for i, question in enumerate(train["question"]) if normalize(question) not in sealed]
    if dropped := len(train) - len(kept):
        print(f"Dropped {dropped} training rows whose question stands in validation or test.")
    if not kept:
        raise UserError(f"No row of {data.train_split} is left to train on: all stand in validation or test.")

    def some(rows, count):
        return rows.select(range(min(count, len(rows))))

    tests = {name: some(rows, sizes.test_problems) for name, rows in tests.items()}
    return train.select(kept), some(validation, sizes.validation_problems), tests


def drop_long_prompts(rows, tokenizer, recipe):
    """The rows whose prompt has at most max_prompt_length tokens; says how many were dropped.

    Refuses fewer rows than one batch needs, of which TRL would make a training of no step.
    """
    limit = recipe.data.max_prompt_length
    tokens = tokenizer.apply_chat_template(
        list(rows["prompt"]), add_generation_prompt=True, tokenize=True, return_dict=True
    )
    lengths = [len(ids) for ids in tokens["input_ids"]]
    kept = [i for i, length in enumerate(lengths) if length <= limit]
    if dropped := len(rows) - len(kept):
        print(f"Dropped {dropped} of {len(rows)} training rows: prompt over {limit} tokens.")
    if not kept:
        raise UserError(
            f"No training row is left: the shortest prompt has {min(lengths)} tokens and "
            f"max_prompt_length is {limit}; raise it."
        )
    needed = recipe.batch_size // recipe.group_size
    if len(kept) < needed:
        raise UserError(
            f"{len(kept)} training rows are too few: a step takes {needed} problems; give more rows or "
            "lower per_device_train_batch_size."
        )
    return rows.select(kept)


def normalize(question: str) -> str:
    """A question without case, spacing and punctuation, to see whether two are the same."""
    return " ".join(re.findall(r"\w+", question.casefold()))
