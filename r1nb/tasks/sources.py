"""The table of known datasets: columns, gold, suitable rewards, licence, and whether to train on them."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from r1nb.errors import UserError, did_you_mean
from r1nb.paths import user_path
from r1nb.text.numbers import to_value
from r1nb.text.prompts import completion_text

GYM = "reasoning-gym:"
BUNDLED = {"bundled": "problems", "bundled-countdown": "countdown"}  # folders of data/
HUB = re.compile(r"(?!.*\.(?:jsonl?|csv|parquet|txt)$)\w[\w.-]*/[\w.-]+")  # owner/name, but not a file
MARKER = "####"  # stands before the gold
MARKS = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator marks, <<48/2=24>>
CORRECT, MATH = "correctness_reward_func", "math_reward_func"
AFTER = re.compile(r"\n|\b[Tt]he (?:final )?answer is\b|</?s>|<\|")  # what follows a gold is not part of it
# What may be a heading: text without a number. Its number may be at the end of the last line.
HEADING = re.compile(r"(?:step|part|case)\b.*|[^\d\\=]*", re.IGNORECASE)
LAST_LINE = re.compile(r"\n\s*(?:[^\n]*(?:\bis|\bare|[=:]) +)?\**([^\s*]+?)\**\.?\s*$")
MISSING = ("nan", "NaN", "NaT", "<NA>")  # a missing value that pandas wrote as text
# Usual names of the columns of questions and golds. `input` beside `instruction` is a part of the question.
QUESTIONS = ("question", "problem", "prompt", "instruction", "query", "input")
GOLDS = ("answer", "solution", "output", "response", "ground_truth", "final_answer")
SPEAKERS = {"user": "question", "human": "question", "assistant": "answer", "gpt": "answer"}


@dataclass(frozen=True)
class Source:
    """A dataset on the Hub. `read` turns a raw row into question, answer ("" drops the row) and solution."""

    name: str
    columns: tuple[str, ...]
    gold: str  # where the gold is, in words
    read: Callable[[dict], dict]
    rewards: tuple[str, ...]  # those that can judge its answers
    licence: str = "Apache-2.0"  # from its card; read that before you publish a model trained on it
    subset: str | None = None
    benchmark: bool = False  # evaluate on it, never train

    @property
    def card(self) -> str:
        return f"https://huggingface.co/datasets/{self.name.partition(':')[0]}"


def final_answer(text: str) -> str:
    r"""The final answer of a solution: the line after the last ####, or in the last \boxed{}; else "".

    After a heading such as #### Check, \boxed{} or a number at the end of the text is the answer instead.
    """
    _, marker, after = text.rpartition(MARKER)
    after = re.sub(r"^\s*(?:the )?(?:final )?answer(?: is)?:? ", "", after, flags=re.IGNORECASE).strip()
    gold = after if "\\begin{" in after else AFTER.split(after)[0].strip()
    heading = HEADING.fullmatch(gold)
    if marker and "\\boxed{" not in (text if heading else after):
        end = LAST_LINE.search(after) if heading else None
        return end[1] if end and to_value(end[1]) is not None else gold
    _, boxed, rest = text.rpartition("\\boxed{")
    depth = 1
    for i, character in enumerate(rest if boxed else ""):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:i].strip()
    return ""


def cell_text(cell, column: str, part: str) -> str:
    """The text of a cell; "" if its value is missing. Of chat messages it is that of the question or answer.

    `part` is "question" or "answer". Raises UserError if the cell holds several texts.
    """
    if isinstance(cell, bool) or cell is None:
        return "" if cell is None else str(cell)
    if isinstance(cell, float | Decimal):
        return _plain_number(cell)
    if isinstance(cell, dict) and _speaker(cell):
        cell = [cell]
    if isinstance(cell, list) and cell and all(isinstance(turn, dict) and _speaker(turn) for turn in cell):
        cell = [_said(turn) for turn in cell if SPEAKERS.get(_speaker(turn)) == part]
        if part == "question" and len(cell) > 1:
            shown = f"{len(cell)} questions, the last one {cell[-1]!r:.60}"
            raise UserError(
                f"The column {column} holds a conversation of {shown}: put one question into each row, since "
                "the policy does not see the earlier ones."
            )
    if isinstance(cell, list) and len(cell) < 2 and not (cell and isinstance(cell[0], dict | list)):
        return cell_text(cell[0], column, part) if cell else ""
    shown = f"The column {column} holds {str(cell)[:80]}"
    if isinstance(cell, dict):
        fields = " or ".join(f"{column}.{field}" for field in cell)
        raise UserError(f"{shown}, which is a struct: set {part}_column to one of its fields, {fields}.")
    if isinstance(cell, list):
        raise UserError(f"{shown}, which is a list: make it one text in each row, or leave such rows out.")
    text = str(cell)
    return "" if text.strip() in MISSING else text


def _speaker(turn: dict):
    return turn.get("role") or turn.get("from")


def _said(turn: dict) -> str:
    content = turn.get("content", turn.get("value"))
    return completion_text([{"content": content}])


def _plain_number(number: float | Decimal) -> str:
    """A number without exponent and without .0; "" if it is not finite."""
    if not Decimal(number).is_finite():
        return ""
    return format(Decimal(str(number)), "f").removesuffix(".0")


def _reader(question: str, answer: str, gold=final_answer, solution: str = "") -> Callable[[dict], dict]:
    """Make a function that reads a row by its columns; `gold` finds the gold in the text of the answer.

    If no column holds solutions, the solution is the text of the answer before ####.
    """

    def read(row: dict) -> dict:
        text = cell_text(row[answer], answer, "answer")
        steps = text.rpartition(MARKER)[0] if MARKER in text else text
        steps = MARKS.sub("", steps).strip() if final_answer(text) else ""
        worked = cell_text(row[solution], solution, "answer") if solution else steps
        asked = cell_text(row[question], question, "question")
        return {"question": asked, "answer": gold(text), "solution": worked}

    return read


def _numina(row: dict) -> dict:
    """Read a row; the answer is "" if the row has no gold or is marked as invalid."""
    read = _reader("problem", "answer", str.strip, "solution")(row)
    valid = row.get("problem_is_valid", "Yes") == row.get("solution_is_valid", "Yes") == "Yes"
    return read if valid and read["answer"].lower() not in ("proof", "notfound") else read | {"answer": ""}


def _openthoughts(row: dict) -> dict:
    said = {turn["from"]: turn["value"] for turn in row["conversations"]}
    solution = said.get("assistant", "").rpartition("<|begin_of_solution|>")[2]
    solution = solution.removesuffix("<|end_of_solution|>").strip()
    return {"question": said.get("user", ""), "answer": final_answer(solution), "solution": solution}


def _livebench(row: dict) -> dict:
    return {"question": row["turns"][0], "answer": str(row["ground_truth"]).strip(), "solution": ""}


def countdown_numbers(row: dict) -> tuple[list[int], int]:
    """Countdown's numbers and target; raises ValueError or TypeError if one is not an integer."""
    nums = json.loads(row["nums"]) if isinstance(row["nums"], str) else row["nums"]  # a .csv has text
    if any(float(number) % 1 for number in (*nums, row["target"])):
        raise ValueError(f"{nums} or {row['target']} is not an integer")
    return [int(number) for number in nums], int(row["target"])


def _countdown(row: dict) -> dict:
    nums, target = countdown_numbers(row)
    question = (
        f"Make {target} out of the numbers {', '.join(map(str, nums))}: use each of them exactly once, "
        "with +, -, *, / and parentheses. Answer with the expression alone."
    )
    return {"question": question, "answer": str(target), "solution": "", "nums": nums, "target": target}


SOURCES = {
    source.name: source
    for source in (
        Source("openai/gsm8k", ("question", "answer"), "answer, after ####",
               _reader("question", "answer"), (CORRECT, MATH), "MIT", "main"),
        Source("AI-MO/NuminaMath-CoT", ("source", "problem", "solution", "messages"),
               "solution, last \\boxed{}", _reader("problem", "solution", solution="solution"), (MATH,)),
        Source("AI-MO/NuminaMath-1.5",
               ("problem", "solution", "answer", "problem_is_valid", "solution_is_valid"),
               "answer", _numina, (MATH,)),
        Source("open-r1/OpenR1-Math-220k",
               ("problem", "solution", "answer", "generations", "is_reasoning_complete"),
               "answer", _numina, (MATH,), subset="default"),
        Source("open-thoughts/OpenThoughts-114k", ("system", "conversations"),
               "solution, last \\boxed{}", _openthoughts, (MATH,), subset="default"),
        Source("open-thoughts/OpenThoughts-114k:metadata",
               ("problem", "deepseek_reasoning", "ground_truth_solution", "domain"),
               "ground_truth_solution, last \\boxed{}",
               _reader("problem", "ground_truth_solution", solution="ground_truth_solution"),
               (MATH,), subset="metadata"),
        Source("SkunkworksAI/reasoning-0.01", ("instruction", "reasoning", "output"),
               "output, free text", _reader("instruction", "output", str.strip, "reasoning"),
               ("judge_reward_func",)),
        Source("livebench/reasoning", ("question_id", "turns", "ground_truth", "task"),
               "ground_truth", _livebench, (CORRECT,), "see its card", benchmark=True),
        Source("Jiayi-Pan/Countdown-Tasks-3to4", ("nums", "target"),
               "none: the expression is verified", _countdown, ("countdown_reward_func",), "see its card"),
    )
}  # fmt: skip


def check_dataset(name: str) -> None:
    """Raise UserError if a dataset is no file or folder here, and its name can mean no other dataset."""
    path = user_path(name)
    known = name in BUNDLED or name.startswith(GYM) or HUB.fullmatch(name.partition(":")[0])
    if known or path.exists():
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"dataset = {name!r}: there is no folder {folder}; correct the path.")
    hint = did_you_mean(path.name, [*BUNDLED, *SOURCES, *(each.name for each in folder.iterdir())])
    names = ", ".join([*BUNDLED, *SOURCES, f"{GYM}<task>"])
    raise UserError(
        f"dataset = {name!r}: there is no such file or folder in {folder}{hint} A dataset is a file, a "
        f"folder, a name on the Hub (owner/name), or one of {names}."
    )


def source_of(rows) -> Source | None:
    """The source that raw rows look like: among those whose columns they have, the one with most columns.

    Rows with columns named question and answer count as GSM8K only if at least half of the answers have ####.
    """
    fitting = [source for source in SOURCES.values() if set(source.columns) <= set(rows.column_names)]
    found = max(fitting, key=lambda source: len(source.columns), default=None)
    gsm8k = found is not SOURCES["openai/gsm8k"] or _mostly(rows["answer"], MARKER)
    return found if gsm8k else own_source("question", "answer", rows)


def _mostly(cells, *marks: str) -> bool:
    """Whether at least half of the cells that are not empty have one of the marks."""
    marked = [any(mark in str(cell) for mark in marks) for cell in cells if cell not in (None, "")]
    return 2 * sum(marked) >= len(marked)


def usual_columns(columns: list[str]) -> tuple[str, str] | None:
    """(column of questions, column of golds) by their names; None if there is not exactly one of each.

    Beside a column `answer`, the column `solution` holds the steps, as in r1nb's own rows.
    """
    questions = [name for name in columns if name in QUESTIONS]
    golds = [name for name in columns if name in GOLDS and not (name == "solution" and "answer" in columns)]
    return (questions[0], golds[0]) if len(questions) == len(golds) == 1 else None


def own_source(question: str, answer: str, rows=None) -> Source:
    """The Source of your own data; `question` and `answer` are the names of its columns.

    The gold is the text after #### or in the last \\boxed{}; if there is neither, the whole answer. But if
    most `rows` have one of the marks, an answer of over three words without a mark has no gold.
    """
    cells = rows[answer] if rows is not None and answer in rows.column_names else [""]
    worked = _mostly(cells, MARKER, "\\boxed{") and any(cell not in (None, "") for cell in cells)

    def gold(text: str) -> str:
        return final_answer(text) or ("" if worked and len(text.split()) > 3 else text.strip())

    return Source("your own data", (question, answer), answer, _reader(question, answer, gold), (), "yours")
