"""Your own data: which files are read, how, and which are refused."""

import json

import pytest

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.recipes.loading import load_recipe
from r1nb.tasks.rows import load_rows, load_splits

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
        ("a,b\n1,2,3\n4,5\n", "cannot be read"),
        ("a,b\n", "holds no rows"),
        ("a,b\n,1\n1,\n", "No row of train.csv"),
    ],
)
def test_a_table_without_usable_rows_is_refused(tmp_path, text, words):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        load_rows(tmp_path, "train", question="a", answer="b")


def test_a_folder_with_the_parquet_files_of_the_hub_is_read(tmp_path):
    import pandas

    for i in range(2):
        table = pandas.DataFrame([{"question": f"{i} + 1?", "answer": f"#### {i + 1}"}])
        table.to_parquet(tmp_path / f"train-{i:05d}-of-00002.parquet")
    assert load_rows(tmp_path, "train")["answer"] == ["1", "2"]


def test_a_file_has_one_split():
    with pytest.raises(UserError, match=r"has one split: use 'train', .* 'train\[-9:\]', not 'test'"):
        load_rows(str(DATA / "samples" / "openai_gsm8k.jsonl"), "test")
