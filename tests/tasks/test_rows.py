"""Rows from a folder or from a name on the Hub, and how wrong files are refused."""

import json
import subprocess
import sys

import pytest

from r1nb.errors import UserError
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.registry import SHIPPED, find_reward
from r1nb.tasks.rows import drop_long_prompts, load_rows, load_splits, normalize
from r1nb.text.prompts import REASONING

FIVE = [find_reward(name) for name in SHIPPED["five"]]

GOOD = {"question": "2 packs of 3?", "answer": "That is 2*3=<<2*3=6>>6.\n#### 6"}


@pytest.fixture
def folder(tmp_path):
    def write(*lines, split="train"):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        (tmp_path / f"{split}.jsonl").write_text(text)
        return str(tmp_path)

    return write


def test_a_row_becomes_chat_messages_and_a_gold(folder):
    (row,) = load_rows(folder(GOOD), "train")
    assert [m["role"] for m in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"] == row["question"] == GOOD["question"]
    assert row["answer"] == "6"
    assert row["solution"] == "That is 2*3=6."


@pytest.mark.parametrize("split", ["train", "validation", "test", "test_unseen_kinds"])
def test_every_bundled_solution_in_the_format_earns_full_marks(split):
    for row in load_rows("bundled", split):
        text = REASONING.format_reply(row["solution"], row["answer"])
        assert sum(func.score(text, row["answer"]) for func in FIVE) == 4.0
        assert "<<" not in text


def test_real_gsm8k_solutions_in_the_format_earn_full_marks(gsm8k_dir):
    for split, count in (("train", 7473), ("test", 1319)):
        rows = load_rows(str(gsm8k_dir), split)
        assert len(rows) == count
        for row in rows:
            text = REASONING.format_reply(row["solution"], row["answer"])
            assert sum(func.score(text, row["answer"]) for func in FIVE) == 4.0


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ["train.jsonl is empty"]),
        (["", "  "], ["train.jsonl is empty"]),
        ([GOOD, "{oops"], ["train.jsonl", "line 2 is not a JSON object", "{oops"]),
        ([{"text": "x", "answer": "#### 1"}], ["its columns are text, answer", "question_column"]),
        ([{"question": "x", "answer": None}], ["No row of train.jsonl has a question and a gold", "None"]),
        (["[1, 2]"], ["train.jsonl", "line 1 is not a JSON object", "[1, 2]"]),
        ([{"question": "x", "answer": "six #### "}], ["No row", "six ####"]),
    ],
)
def test_a_broken_file_becomes_one_sentence(folder, lines, words):
    with pytest.raises(UserError) as caught:
        load_rows(folder(*lines), "train")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_rows_without_a_gold_are_dropped_with_a_message(folder, capsys):
    rows = [GOOD, GOOD | {"answer": "just 6"}, GOOD | {"answer": "six ####"}, GOOD | {"answer": None}]
    assert len(load_rows(folder(*rows), "train")) == 1
    assert "Dropped 3 of 4 rows of train: no question or gold, or marked invalid." in capsys.readouterr().out


def test_what_a_row_lacks_counts_as_null(folder, capsys):
    rows = load_rows(folder(GOOD, {"prompt": "x", "answer": "#### 1"}, GOOD | {"level": 2}), "train")
    assert rows["level"] == [None, 2]
    assert "Dropped 1 of 3 rows" in capsys.readouterr().out


def test_odd_but_valid_files_are_read(tmp_path):
    odd = GOOD | {"question": "2\u2028packs\x85of 3?"}
    text = json.dumps(odd, ensure_ascii=False)
    (tmp_path / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode() + b"\r\n")
    assert load_rows(str(tmp_path), "train")[0]["question"] == odd["question"]
    (tmp_path / "train.jsonl").write_bytes(text.encode("utf-16"))
    with pytest.raises(UserError, match="line 1 is not a JSON object in UTF-8"):
        load_rows(str(tmp_path), "train")


def test_a_column_of_several_types_is_refused(folder):
    with pytest.raises(UserError, match="cannot be read"):
        load_rows(folder(GOOD | {"level": 1}, GOOD | {"level": "hard"}), "train")


def test_for_a_missing_split_the_existing_ones_are_named(folder):
    with pytest.raises(UserError, match=r"dev\.jsonl is not in .*; splits there: train\."):
        load_rows(folder(GOOD), "dev")


def test_an_unknown_dataset_is_named():
    with pytest.raises(UserError, match=r"'gsm9k': there is no such file or folder.*openai/gsm8k"):
        load_rows("gsm9k", "train")


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("my-data.jsonl", r"no such file or folder in {}; did you mean 'my_data.jsonl'\?"),
        ("my-folder", r"no such file or folder in {}; did you mean 'my_folder'\?"),
        ("./nothing", r"no such file or folder in {}\. A dataset is"),
        ("gone/my_data.csv", r"there is no folder {}/gone; correct the path"),
    ],
)
def test_a_missing_file_is_named_with_what_is_there(tmp_path, monkeypatch, dataset, words):
    (tmp_path / "my_data.jsonl").touch()
    (tmp_path / "my_folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words.format(tmp_path)):
        load_rows(dataset, "train")
    with pytest.raises(UserError, match=words.format(tmp_path)):
        load_recipe("tiny-cpu", dataset=dataset)


def test_the_command_line_names_a_missing_file_before_it_imports_torch(tmp_path):
    code = (
        "import sys\nfrom r1nb.train import main\ntry:\n    main('tiny-cpu', 'dataset=my-data.jsonl')\n"
        "except ValueError as error:\n    print(error, {'torch', 'trl', 'datasets'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "dataset = 'my-data.jsonl': there is no such file" in said.stdout, said.stderr
    assert said.stdout.endswith(" set()\n")


def test_the_hub_without_network_becomes_one_sentence():
    with pytest.raises(UserError, match="cannot be fetched from the Hub"):
        load_rows("openai/gsm8k", "train")


class WordTokenizer:
    """A tokenizer that splits at spaces; drop_long_prompts only counts tokens."""

    def apply_chat_template(self, prompts, **_):
        return {"input_ids": [p[1]["content"].split() for p in prompts]}


@pytest.fixture
def recipe(folder):
    def make(**overrides):
        rows = [GOOD | {"question": f"{n} packs of 3?"} for n in range(10)]
        folder(*rows, GOOD | {"question": "a b c d e f g h i j k l"})
        folder(rows[3] | {"question": "3  PACKS of 3"}, split="validation")
        path = folder(rows[4], split="test")
        settings = {"dataset": path, "test_splits": ["test"], "max_prompt_length": 8} | overrides
        return load_recipe(**settings)

    return make


def sections(recipe):
    return recipe.data, recipe.evaluation, recipe.rewards


def test_training_rows_that_occur_in_a_test_are_dropped_with_a_message(recipe, capsys):
    train, validation, tests = load_splits(*sections(recipe()))
    said = capsys.readouterr().out
    assert "Dropped 2 training rows whose question occurs in validation or test" in said
    sealed = {normalize(q) for rows in (validation, *tests.values()) for q in rows["question"]}
    assert len(train) == 9
    assert not sealed & {normalize(q) for q in train["question"]}


def test_duplicates_are_dropped_with_a_message(recipe, folder, capsys):
    chosen = recipe()
    rows = [GOOD | {"question": f"{n % 20} packs of 3?"} for n in range(30)]
    folder(*rows, GOOD | {"question": "7  PACKS, of 3"})
    train, *_ = load_splits(*sections(chosen))
    assert "whose question occurs in an earlier one" in capsys.readouterr().out
    questions = [normalize(question) for question in train["question"]]
    assert len(set(questions)) == len(questions)


@pytest.mark.parametrize("without", [0, 5, 39])
def test_rows_without_countdowns_numbers_do_not_hide_that_a_test_row_is_trained_on(folder, capsys, without):
    rows = [
        {"question": f"Make {n + 3}!", "answer": str(n), "nums": [3, n], "target": n + 3} for n in range(40)
    ]
    path = folder(*(row | {"nums": None} if n == without else row for n, row in enumerate(rows)))
    recipe = load_recipe(dataset=path, question_column="question", answer_column="answer", validation_rows=4,
                         test_splits="train[-8:]", validation_split=None)  # fmt: skip
    train, _, tests = load_splits(*sections(recipe))
    assert "Dropped 8 training rows" in capsys.readouterr().out
    assert not set(train["question"]) & set(tests["train[-8:]"]["question"])


def test_long_prompts_are_dropped_with_a_message(recipe, capsys):
    train, *_ = load_splits(*sections(recipe()))
    kept = drop_long_prompts(train, WordTokenizer(), 8, needed=8)
    assert "Dropped 1 of 9 training rows: prompt over 8 tokens" in capsys.readouterr().out
    assert len(kept) == 8
    with pytest.raises(
        UserError, match=r"0 training .* raise max_prompt_length = 2 \(the shortest prompt has 4"
    ):
        drop_long_prompts(train, WordTokenizer(), 2, needed=8)
    with pytest.raises(UserError, match="8 training rows are too few, since TRL takes 9 problems at a time"):
        drop_long_prompts(train, WordTokenizer(), 8, needed=9)


def test_twelve_rows_are_too_few_for_two_processes(folder, monkeypatch):
    rows = load_rows(folder(*(GOOD | {"question": f"{n} packs of 3?"} for n in range(12))), "train")
    recipe = load_recipe()
    assert len(drop_long_prompts(rows, WordTokenizer(), 8, recipe.problems_per_generation)) == 12
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="12 training rows are too few, since TRL takes 16 problems"):
        drop_long_prompts(rows, WordTokenizer(), 8, recipe.problems_per_generation)


def test_questions_that_differ_in_a_sign_are_different():
    questions = ["3 + 6?", "3 - 6?", "x < 3", "x > 3", "3.5 apples", "35 apples", "x^2-5x"]
    assert len({normalize(question) for question in questions}) == len(questions)


def test_without_a_validation_split_the_last_training_rows_are_used(recipe):
    chosen = recipe(validation_split=None, validation_rows=3)
    train, validation, _ = load_splits(*sections(chosen))
    assert validation["question"][-1].startswith("a b c")
    assert len(validation) == 3
    assert not set(train["question"]) & set(validation["question"])
    with pytest.raises(UserError, match="validation_rows = 99"):
        load_splits(*sections(recipe(validation_split=None, validation_rows=99)))


def test_an_empty_training_split_is_refused(recipe, folder):
    chosen = recipe()
    folder(GOOD | {"question": "4 packs of 3?"})
    with pytest.raises(UserError, match="No row of train is left"):
        load_splits(*sections(chosen))
