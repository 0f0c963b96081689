"""Your own data: which files are read, how, and which are refused."""

import datetime
import json
import math
from decimal import Decimal

import pytest

from r1nb.errors import UserError, say_once
from r1nb.paths import DATA
from r1nb.recipes.loading import load_recipe
from r1nb.tasks.rows import load_rows, load_splits
from r1nb.text.prompts import REASONING

GSM8K = ["so\n#### 6", "then\n#### 1,080"]


def write_table(folder, suffix, rows):
    """Write rows to a file in the format of the suffix, and return its path."""
    import pandas

    path, table = folder / f"mine.{suffix}", pandas.DataFrame(rows)
    if suffix == "csv":
        table.to_csv(path, index=False)
    elif suffix == "parquet":
        table.to_parquet(path)
    else:
        path.write_text("\n".join(map(json.dumps, rows)))
    return path


OWN = [{"task": "What is 2 + 3?", "result": "5"}, {"task": "90 x 12?", "result": "1,080"},
       {"task": "007?", "result": "007"}, {"task": "none?", "result": ""}]  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_your_own_data_in_one_call(tmp_path, suffix):
    path = write_table(tmp_path, suffix, OWN)
    for place in (path, tmp_path):
        if place.is_dir():
            path.rename(tmp_path / f"train.{suffix}")
        rows = load_rows(str(place), "train", question="task", answer="result")
        assert rows["answer"] == ["5", "1,080", "007"]
        assert rows["question"] == [row["task"] for row in OWN[:3]]
    with pytest.raises(UserError, match="has no problem and gold; its columns are task, result"):
        load_rows(str(tmp_path), "train", question="problem", answer="gold")
    with pytest.raises(UserError, match="set both"):
        load_rows(str(tmp_path), "train", question="task")
    with pytest.raises(UserError, match="question_column"):
        load_rows(str(tmp_path), "train")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("answers", "golds"),
    [
        (["6", "1,080", "007", "His son."], ["6", "1,080", "007", "His son."]),
        ([6, -5, 1080], ["6", "-5", "1080"]),
        ([r"so \boxed{6}", r"\boxed{\frac{1}{2}}", "7"], ["6", r"\frac{1}{2}", "7"]),
        (["6", None, ""], ["6"]),
        (["6", "7", "so\n#### 8"], ["6", "7", "8"]),  # few golds are marked: the others are used as they are
        ([*GSM8K, "just 6"], ["6", "1,080"]),  # most are marked: the row without a mark has no gold
        ([GSM8K[0], None, "", None], ["6"]),
    ],
)
def test_columns_called_question_and_answer_need_not_be_gsm8ks(tmp_path, suffix, answers, golds):
    rows = [{"question": f"What is {n}?", "answer": answer} for n, answer in enumerate(answers)]
    loaded = load_rows(write_table(tmp_path, suffix, rows), "train")
    assert loaded["answer"] == golds
    assert loaded["question"] == [r["question"] for r in rows if r["answer"] not in (None, "")][: len(golds)]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        ({"prompt": "1 + 1?", "solution": "2"}, "prompt, the answers in solution"),
        ({"problem": "1 + 1?", "solution": r"so \boxed{2}"}, "problem, the answers in solution"),
        ({"instruction": "1 + 1?", "output": "2", "id": 7}, "instruction, the answers in output"),
        ({"problem": "1 + 1?", "answer": "2", "solution": "Add."}, "problem, the answers in answer"),
        (
            {"prompt": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "1 + 1?"}],
             "answer": 2},
            "prompt, the answers in answer",
        ),
    ],
)  # fmt: skip
def test_usual_columns_are_taken_and_named(tmp_path, capsys, columns, taken, suffix):
    say_once.cache_clear()
    path = write_table(tmp_path, suffix, [columns] * 3)
    for _ in range(2):
        (row, *_) = load_rows(path, "train")
        assert (row["question"], row["answer"]) == ("1 + 1?", "2")
        assert row["prompt"] == REASONING.build_messages("1 + 1?")
    assert capsys.readouterr().out.count(f"the questions are in {taken}. question_column and") == 1
    named = load_rows(path, "train", *taken.split(", the answers in "))
    assert named.to_list() == load_rows(path, "train").to_list()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (("problem", "prompt", "answer"), "its columns are problem, prompt, answer: set question_column"),
        (("prompt", "solution", "output"), "its columns are prompt, solution, output: set question_column"),
        (("instruction", "input", "output"), "its columns are instruction, input, output: set question_"),
        (("prompt",), "its columns are prompt: set question_column and answer_column"),
    ],
)
def test_columns_are_not_guessed_if_several_could_be_meant(tmp_path, columns, words):
    path = write_table(tmp_path, "jsonl", [dict.fromkeys(columns, "1")])
    with pytest.raises(UserError, match=words):
        load_rows(path, "train")


def test_the_format_of_golds_is_decided_for_the_whole_file_and_not_a_slice(tmp_path, capsys):
    answers = [*GSM8K, *GSM8K, "just 6", "#### 7"]
    rows = [{"question": f"{n}?", "answer": answer} for n, answer in enumerate(answers)]
    path = write_table(tmp_path, "jsonl", rows)
    assert load_rows(path, "train[-2:]")["answer"] == ["7"]
    assert "Dropped 1 of 2 rows" in capsys.readouterr().out


def test_columns_of_another_dataset_do_not_change_how_a_file_is_read(tmp_path):
    """The file has the columns of a known dataset by chance."""
    rows = [{"question": "Make 7!", "answer": "3 + 4", "nums": [3, 4], "target": 7}]
    (row,) = load_rows(write_table(tmp_path, "jsonl", rows), "train")
    assert (row["question"], row["answer"], row["nums"]) == ("Make 7!", "3 + 4", [3, 4])
    rows = [{"instruction": f"{n} + 1?", "reasoning": "", "output": str(n + 1)} for n in range(9)]
    path = write_table(tmp_path, "jsonl", rows)
    slices = {"train_split": "train[:-3]", "test_splits": ["train[-3:]"], "validation_split": None}
    settings = slices | {"dataset": str(path), "validation_rows": 2}
    recipe = load_recipe(**settings)
    with pytest.raises(UserError, match=r"judge_reward_func, .* your own file, set question_column"):
        load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    recipe = load_recipe(**settings, question_column="instruction", answer_column="output")
    train, *_ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    assert train["answer"] == ["1", "2", "3", "4"]


def test_your_own_data_in_a_recipe(tmp_path):
    path = tmp_path / "sums.csv"
    path.write_text("task,result\n" + "\n".join(f"What is {n} + 1?,{n + 1}" for n in range(40)))
    recipe = load_recipe(dataset=str(path), question_column="task", answer_column="result",
                         test_splits="train[-8:]", validation_split=None, validation_rows=8)  # fmt: skip
    train, validation, tests = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    assert (len(train), len(validation), len(tests["train[-8:]"])) == (24, 8, 8)
    answers = [row["answer"] for part in (train, validation, tests["train[-8:]"]) for row in part]
    assert answers == [str(n + 1) for n in range(40)]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("train.csv", "cannot be read"),
        ("train.parquet", "cannot be read"),
        ("rows.txt", "ends in .jsonl"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, path, words):
    (tmp_path / path).write_bytes(b'a,b\n"1,2\n\x00\xff')
    with pytest.raises(UserError, match=words):
        load_rows(str(tmp_path / path), "train", question="a", answer="b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2,3\n4,5\n", "cannot be read: .* Put quotes around each cell that contains a comma"),
        ("a;b\n1;2,5\n", "cells are separated by ';': separate them by commas"),
        ("a,b,b\n1,2,3\n", "two columns are called b: rename one"),
        ("a,b\n1?,\"{'gold': '2'}\"\n", "The column b holds .* which is a struct"),
        ("a,b\n", "holds no rows"),
        ("a,b\n,1\n1,\n", "No row of train.csv"),
    ],
)
def test_a_table_without_usable_rows_is_refused(tmp_path, text, words):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        load_rows(tmp_path, "train", question="a", answer="b")


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_csv_in_another_encoding_is_refused(tmp_path, encoding):
    (tmp_path / "train.csv").write_text("a,b\nTür?,2\n", encoding=encoding)
    with pytest.raises(UserError, match="it is not in UTF-8: save it as 'CSV UTF-8'"):
        load_rows(tmp_path, "train", question="a", answer="b")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"a": "1?", "b": "yes"}, {"a": "2?", "b": 5}], "the column b mixes types"),
        ([{"a": "1?", "b": 2**70}], "the column b mixes types or holds a number that is too large"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(tmp_path, rows, words):
    with pytest.raises(UserError, match=words):
        load_rows(write_table(tmp_path, "jsonl", rows), "train", question="a", answer="b")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"train.jsonl": "x", "train.parquet": "x"},
            "train is in train.jsonl and in train.parquet: keep only one",
        ),
        ({"train-00001-of-00003.parquet": "x"}, "has 1 of the 3 files of train: add the others"),
        ({"train-00000-of-00002.parquet": "x", "train-00001-of-00002.parquet": 1}, "column x mixes types"),
    ],
)
def test_files_of_a_split_that_do_not_fit_together_are_refused(tmp_path, files, words):
    for name, cell in files.items():
        row = {"question": "1 + 1?", "answer": "2", "x": cell}
        write_table(tmp_path, name.rpartition(".")[2], [row]).rename(tmp_path / name)
    with pytest.raises(UserError, match=words):
        load_rows(tmp_path, "train")


def test_two_columns_of_one_name_in_a_parquet_file_are_refused(tmp_path):
    import pyarrow.parquet

    table = pyarrow.table([["1?"], ["2"], ["3"]], names=["a", "b", "b"])
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(UserError, match="two columns are called b: rename one"):
        load_rows(tmp_path, "train", question="a", answer="b")


def test_prose_without_a_mark_is_no_gold_if_most_golds_are_marked(tmp_path):
    rows = [{"q": f"{n}?", "a": rf"so \boxed{{{n}}}"} for n in range(3)]
    rows += [{"q": "3?", "a": "First we add, then we get 3."}, {"q": "4?", "a": "4"}]
    path = write_table(tmp_path, "jsonl", rows)
    assert load_rows(path, "train", question="q", answer="a")["answer"] == ["0", "1", "2", "4"]


def test_a_column_of_solutions_is_kept(tmp_path):
    path = write_table(tmp_path, "jsonl", [{"q": "1 + 1?", "a": "2", "solution": "1 + 1 = 2"}])
    assert load_rows(path, "train", question="q", answer="a")["solution"] == ["1 + 1 = 2"]


def test_a_folder_with_the_parquet_files_of_the_hub_is_read(tmp_path):
    import pandas

    for i in range(2):
        table = pandas.DataFrame([{"question": f"{i} + 1?", "answer": f"#### {i + 1}"}])
        table.to_parquet(tmp_path / f"train-{i:05d}-of-00002.parquet")
    assert load_rows(tmp_path, "train")["answer"] == ["1", "2"]


def test_a_file_has_one_split():
    with pytest.raises(UserError, match=r"has one split: use 'train', .* 'train\[-9:\]', not 'test'"):
        load_rows(str(DATA / "samples" / "openai_gsm8k.jsonl"), "test")


NAN = math.nan
ASKED = {"role": "user", "content": "2 + 2?"}
TOLD = {"role": "assistant", "content": "It is 4.\n#### 4"}
SYSTEM = {"role": "system", "content": "Think."}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("cells", "golds"),
    [
        ([3.0, NAN], ["3"]),
        ([3.5, None], ["3.5"]),
        (["3", None], ["3"]),
        (["3", "nan", "<NA>", "NaT", "NaN"], ["3"]),
        ([1e-7, 1e22, -0.5], ["0.0000001", "10000000000000000000000", "-0.5"]),
        ([3, math.inf, -math.inf], ["3"]),
        ([True, False], ["True", "False"]),
        ([["3"], ["4"], []], ["3", "4"]),
        ([["so\n#### 3"]], ["3"]),
        ([[3.0], [NAN]], ["3"]),
        ([[TOLD], [ASKED]], ["4"]),
        ([[SYSTEM, ASKED, TOLD]], ["4"]),
        ([TOLD], ["4"]),
        ([[{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]], ["4"]),
        ([[{"role": "assistant", "content": [{"type": "text", "text": "4"}]}]], ["4"]),
    ],
)
def test_a_gold_is_read_from_any_cell(tmp_path, suffix, cells, golds):
    rows = [{"q": f"What is {n}?", "a": cell} for n, cell in enumerate(cells)]
    path = write_table(tmp_path, suffix, rows)
    assert load_rows(path, "train", question="q", answer="a")["answer"] == golds


@pytest.mark.parametrize(
    ("cell", "gold"),
    [
        (datetime.date(2026, 1, 31), "2026-01-31"),
        (datetime.datetime(2026, 1, 31, 12, 30), "2026-01-31 12:30:00"),
        (datetime.time(12, 30), "12:30:00"),
        (Decimal("3.50"), "3.50"),
    ],
)
def test_a_gold_of_parquets_own_types_is_read(tmp_path, cell, gold):
    path = write_table(tmp_path, "parquet", [{"q": "a?", "a": cell}, {"q": "b?", "a": None}])
    assert load_rows(path, "train", question="q", answer="a")["answer"] == [gold]


@pytest.mark.parametrize(
    ("dtype", "numbers", "golds"),
    [
        ("float64", [0.1, 0.123456789, 1e-300], ["0.1", "0.123456789", f"{1e-300:.300f}"]),
        ("int8", [3, -4], ["3", "-4"]),
        ("bool", [True, False], ["True", "False"]),
        ("str", ["3", "1,080"], ["3", "1,080"]),
    ],
)
def test_a_column_of_numpys_values_keeps_its_digits(tmp_path, dtype, numbers, golds):
    import numpy

    column = numpy.array(numbers, dtype)
    path = write_table(tmp_path, "parquet", {"q": [f"{n}?" for n in range(len(column))], "a": column})
    assert load_rows(path, "train", question="q", answer="a")["answer"] == golds


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "cell",
    ["2 + 2?", [ASKED], [SYSTEM, ASKED], [SYSTEM, ASKED, TOLD], ASKED, ["2 + 2?"],
     [{"from": "human", "value": "2 + 2?"}],
     [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}]],
)  # fmt: skip
def test_a_question_is_read_from_text_or_chat_messages(tmp_path, suffix, cell):
    path = write_table(tmp_path, suffix, [{"prompt": cell, "gold": 4}, {"prompt": None, "gold": 5}])
    (row,) = load_rows(path, "train", question="prompt", answer="gold")
    assert (row["question"], row["answer"]) == ("2 + 2?", "4")
    assert [turn["role"] for turn in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"] == "2 + 2?"


def test_question_and_gold_may_be_in_one_conversation(tmp_path):
    path = write_table(tmp_path, "jsonl", [{"messages": [SYSTEM, ASKED, TOLD]}])
    (row,) = load_rows(path, "train", question="messages", answer="messages")
    assert (row["question"], row["answer"], row["solution"]) == ("2 + 2?", "4", "It is 4.")


VERL = {"data_source": "openai/gsm8k", "prompt": [ASKED],
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"question": "Two and two?", "gold": {"value": 4.0}}}  # fmt: skip


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("question", "answer", "asked"),
    [
        ("prompt", "reward_model.ground_truth", "2 + 2?"),
        ("extra_info.question", "reward_model.ground_truth", "Two and two?"),
        ("prompt", "extra_info.gold.value", "2 + 2?"),
    ],
)
def test_a_field_of_a_struct_is_named_with_a_dot(tmp_path, suffix, question, answer, asked):
    (row,) = load_rows(write_table(tmp_path, suffix, [VERL]), "train", question=question, answer=answer)
    assert (row["question"], row["answer"]) == (asked, "4")
    assert row["reward_model"] == VERL["reward_model"]  # a reward may read it


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            VERL | {"a": VERL["reward_model"]},
            "set answer_column to one of its fields, a.style or a.grou",
        ),
        (
            {"prompt": "2 + 2?", "a": ["3", "4"]},
            r"The column a holds \['3', '4'\], which is a list: make it one",
        ),
        ({"prompt": "2 + 2?", "a": [["4"]]}, "The column a holds .* which is a list"),
        ({"prompt": [ASKED, TOLD, ASKED], "a": "4"}, "The column prompt holds a conversation of 2 questions"),
        ({"prompt": {"x": "2 + 2?"}, "a": "4"}, "set question_column to one of its fields, prompt.x"),
    ],
)
def test_a_cell_with_several_texts_is_refused(tmp_path, row, words):
    with pytest.raises(UserError, match=words):
        load_rows(write_table(tmp_path, "jsonl", [row]), "train", question="prompt", answer="a")


def test_the_fields_of_structs_are_listed(tmp_path):
    with pytest.raises(UserError, match=r"columns are data_source, prompt, reward_model\.style, rew"):
        load_rows(write_table(tmp_path, "jsonl", [VERL]), "train", question="prompt", answer="ground_truth")


def test_columns_that_trl_uses_itself_are_left_out(tmp_path, capsys):
    others = dict.fromkeys(("images", "image", "completions", "prompts", "log_extra", "self"), "x")
    rows = [{"question": "1?", "answer": "#### 1", "text": "x", "kind": None, **others}]
    (row,) = load_rows(write_table(tmp_path, "jsonl", rows), "train")
    assert row.keys() == {"question", "answer", "text", "kind", "solution", "prompt"}
    said = capsys.readouterr().out
    assert "Left out columns of mine.jsonl whose names TRL uses itself: images, image, completions, " in said
