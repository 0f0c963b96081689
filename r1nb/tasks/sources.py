"""The table of datasets: their columns, where the gold is, which reward suits, what is allowed."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

MARKER = "####"  # before the gold
MARKS = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator marks, <<48/2=24>>
CORRECT, MATH = "correctness_reward_func", "math_reward_func"


@dataclass(frozen=True)
class Source:
    """A dataset of the Hub. `read` turns a raw row into question, answer ("" drops it) and solution."""

    name: str
    columns: tuple[str, ...]
    gold: str  # where it is, in words
    read: Callable[[dict], dict]
    rewards: tuple[str, ...]  # those that can judge its answers
    licence: str = "Apache-2.0"  # as its card says; read the card before you publish what it trained
    subset: str | None = None
    benchmark: bool = False  # evaluate on it, never train

    @property
    def card(self) -> str:
        return f"https://huggingface.co/datasets/{self.name.partition(':')[0]}"


def final_answer(text: str) -> str:
    r"""What a solution ends with: the text after the last ####, or in the last \boxed{}; else ""."""
    if MARKER in text:
        return text.rpartition(MARKER)[2].strip()
    _, boxed, rest = text.rpartition("\\boxed{")
    depth = 1
    for i, character in enumerate(rest if boxed else ""):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:i].strip()
    return ""


def _gsm8k(row: dict) -> dict:
    solution, marker, gold = row["answer"].rpartition(MARKER)
    return {
        "question": row["question"],
        "answer": gold.strip() if marker else "",
        "solution": MARKS.sub("", solution).strip(),
    }


def _numina_1_5(row: dict) -> dict:
    valid = row["problem_is_valid"] == row["solution_is_valid"] == "Yes"
    return _solved(row, row["answer"] if valid else "")


def _solved(row: dict, gold: str | None) -> dict:
    gold = (gold or "").strip()
    gold = "" if gold.lower() in ("proof", "notfound") else gold
    return {"question": row["problem"], "answer": gold, "solution": row["solution"]}


def _openthoughts(row: dict) -> dict:
    said = {turn["from"]: turn["value"] for turn in row["conversations"]}
    solution = said.get("assistant", "").rpartition("<|begin_of_solution|>")[2]
    solution = solution.removesuffix("<|end_of_solution|>").strip()
    return {"question": said.get("user", ""), "answer": final_answer(solution), "solution": solution}


def _openthoughts_metadata(row: dict) -> dict:
    solution = row["ground_truth_solution"] or ""
    return {"question": row["problem"], "answer": final_answer(solution), "solution": solution}


def _reasoning_0_01(row: dict) -> dict:
    return {"question": row["instruction"], "answer": row["output"].strip(), "solution": row["reasoning"]}


def _livebench(row: dict) -> dict:
    return {"question": row["turns"][0], "answer": str(row["ground_truth"]).strip(), "solution": ""}


def _countdown(row: dict) -> dict:
    nums = json.loads(row["nums"]) if isinstance(row["nums"], str) else row["nums"]  # a .csv holds text
    nums, target = [int(number) for number in nums], int(row["target"])
    question = (
        f"Make {target} out of the numbers {', '.join(map(str, nums))}: use each of them exactly once, "
        "with +, -, *, / and parentheses. Answer with the expression alone."
    )
    return {"question": question, "answer": str(target), "solution": "", "nums": nums, "target": target}


SOURCES = {
    source.name: source
    for source in (
        Source("openai/gsm8k", ("question", "answer"), "answer, after ####", _gsm8k,
               (CORRECT, MATH), "MIT", "main"),
        Source("AI-MO/NuminaMath-CoT", ("source", "problem", "solution", "messages"),
               "solution, last \\boxed{}",
               lambda row: _solved(row, final_answer(row["solution"])), (MATH,)),
        Source("AI-MO/NuminaMath-1.5",
               ("problem", "solution", "answer", "problem_is_valid", "solution_is_valid"),
               "answer", _numina_1_5, (MATH,)),
        Source("open-r1/OpenR1-Math-220k",
               ("problem", "solution", "answer", "generations", "is_reasoning_complete"),
               "answer", lambda row: _solved(row, row["answer"]), (MATH,), subset="default"),
        Source("open-thoughts/OpenThoughts-114k", ("system", "conversations"),
               "solution, last \\boxed{}", _openthoughts, (MATH,), subset="default"),
        Source("open-thoughts/OpenThoughts-114k:metadata",
               ("problem", "deepseek_reasoning", "ground_truth_solution", "domain"),
               "ground_truth_solution, last \\boxed{}", _openthoughts_metadata, (MATH,), subset="metadata"),
        Source("SkunkworksAI/reasoning-0.01", ("instruction", "reasoning", "output"),
               "output, free text", _reasoning_0_01, ("judge_reward_func",)),
        Source("livebench/reasoning", ("question_id", "turns", "ground_truth", "task"),
               "ground_truth", _livebench, (CORRECT,), "see its card", benchmark=True),
        Source("Jiayi-Pan/Countdown-Tasks-3to4", ("nums", "target"),
               "none: the expression is verified", _countdown, ("countdown_reward_func",), "see its card"),
    )
}  # fmt: skip


def source_of(columns: list[str]) -> Source | None:
    """The source whose columns a file has: of several, the one with the most columns."""
    fitting = [source for source in SOURCES.values() if set(source.columns) <= set(columns)]
    return max(fitting, key=lambda source: len(source.columns), default=None)


def own_source(question: str, answer: str) -> Source:
    """Data of your own: which columns hold the question and the answer.

    The gold is what follows #### or stands in the last \\boxed{}, if there is one; else all of it.
    """

    def read(row: dict) -> dict:
        text = "" if row[answer] is None else str(row[answer])
        gold = final_answer(text)
        solution = MARKS.sub("", text.partition(MARKER)[0]).strip() if gold else ""
        asked = "" if row[question] is None else str(row[question])
        return {"question": asked, "answer": gold or text.strip(), "solution": solution}

    return Source("your own data", (question, answer), answer, read, (), "yours")
