"""Every dataset of the table, loaded from a small file with its documented columns; and your own data."""

import json

import datasets
import pytest

from r1nb.errors import UserError
from r1nb.evaluation.checks import check_rewards
from r1nb.paths import DATA
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.gym import PROBLEMS, gym_problem, gym_tasks
from r1nb.rewards.registry import find_reward
from r1nb.tasks.rows import load_rows, load_splits
from r1nb.tasks.sources import SOURCES, final_answer, source_of
from r1nb.text.prompts import REASONING

SAMPLES = DATA / "samples"
GOLDS = {
    "openai/gsm8k": ["18", "1,080", "-5"],
    "AI-MO/NuminaMath-CoT": [r"\{2,3\}", "5", r"\frac{1}{3}"],
    "AI-MO/NuminaMath-1.5": [r"\{2,3\}", "5", r"\frac{1}{3}"],
    "open-r1/OpenR1-Math-220k": [r"\{2,3\}", "5", r"\frac{1}{3}"],
    "open-thoughts/OpenThoughts-114k": [r"\{2,3\}", "5", r"\frac{1}{3}"],
    "open-thoughts/OpenThoughts-114k:metadata": [r"\{2,3\}", "5", r"\frac{1}{3}"],
    "SkunkworksAI/reasoning-0.01": ["His son.", "Neither; they weigh the same."],
    "livebench/reasoning": ["yes, no, yes", "3"],
    "Jiayi-Pan/Countdown-Tasks-3to4": ["24", "65", "98", "7"],
}


def sample(name):
    return SAMPLES / f"{name.replace('/', '_').replace(':', '_')}.jsonl"


def raw(name):
    return [json.loads(line) for line in sample(name).read_text().splitlines()]


@pytest.fixture
def hub(monkeypatch):
    """Replace the Hub by the sample files; return a list of the requests."""
    asked = []

    def load_dataset(name, subset=None, split=None):
        asked.append((name, subset, split))
        known = f"{name}:{subset}" if f"{name}:{subset}" in SOURCES else name
        return datasets.Dataset.from_list(raw(known))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_the_table_is_complete():
    assert set(SOURCES) == set(GOLDS)
    for source in SOURCES.values():
        assert source.card.startswith("https://huggingface.co/datasets/")
        assert all(find_reward(name).judges == "answer" for name in source.rewards)


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_is_recognised_by_its_columns(name):
    assert source_of(datasets.Dataset.from_list(raw(name))).name == name
    rows = load_rows(str(sample(name)), "train")
    assert rows["answer"] == GOLDS[name]
    for row in rows:
        assert row["prompt"][1]["content"] == row["question"]
        assert "<|" not in row["solution"]


@pytest.mark.parametrize("name", SOURCES)
def test_a_dataset_is_loaded_from_the_hub(name, hub):
    rows = load_rows(name, "train")
    assert rows["answer"] == GOLDS[name]
    assert hub == [(name.partition(":")[0], SOURCES[name].subset, "train")]
    assert set(rows.column_names) <= {"prompt", "answer", "question", "solution", "nums", "target"}


def test_a_subset_is_loaded_from_the_hub(hub):
    load_rows("openai/gsm8k:socratic", "test")
    assert hub == [("openai/gsm8k", "socratic", "test")]


@pytest.mark.parametrize("name", SOURCES)
def test_wrong_columns_are_listed(name, hub, monkeypatch):
    wrong = [{"colour": "blue", "shape": "round"}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(wrong))
    with pytest.raises(UserError, match="its columns are colour, shape") as caught:
        load_rows(name, "train")
    assert SOURCES[name].columns[0] in str(caught.value)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "SkunkworksAI/reasoning-0.01"])
def test_every_gold_earns_full_marks_from_the_suitable_reward(name):
    source = SOURCES[name]
    rows = load_rows(str(sample(name)), "train")
    for reward in source.rewards:
        judge = load_recipe(rewards={reward: 1.0, "r1_format_reward_func": 1.0}).judge(rows.column_names)
        assert check_rewards(rows, judge) == []


def splits(name, **overrides):
    settings = {"dataset": str(sample(name)), "train_split": "train[:-1]", "test_splits": ["train[-1:]"],
                "validation_split": None, "validation_rows": 1}  # fmt: skip
    recipe = load_recipe(**(settings | overrides))
    return load_splits(recipe.data, recipe.evaluation, recipe.rewards)


def test_countdown_problems_are_read_from_csv(tmp_path, capsys):
    (tmp_path / "train.csv").write_text('nums,target\n"[4, 6]",24\n"[4, x]",24\n,5\n"[5]",5\n"[4, 1.5]",6\n')
    rows = load_rows(str(tmp_path), "train")
    assert [(row["nums"], row["target"]) for row in rows] == [([4, 6], 24), ([5], 5)]
    assert "Dropped 3 of 5 rows" in capsys.readouterr().out


def test_countdowns_numbers_beside_named_columns_are_read_from_csv(tmp_path):
    (tmp_path / "train.csv").write_text('q,a,nums,target\nMake 24!,x,"[4, 6]",24\n')
    (row,) = load_rows(str(tmp_path), "train", question="q", answer="a")
    assert (row["nums"], row["target"]) == ([4, 6], 24)
    (tmp_path / "train.csv").write_text('q,a,nums,target\n1?,2,"[4, 6]",24\n2?,3,"four",x\n')
    assert load_rows(str(tmp_path), "train", question="q", answer="a")["nums"] == ["[4, 6]", "four"]


def test_a_benchmark_is_not_trained_on():
    with pytest.raises(UserError, match="livebench/reasoning is a benchmark: evaluate on it, never train"):
        splits("livebench/reasoning")
    with pytest.raises(UserError, match="is a benchmark"):
        splits("livebench/reasoning", question_column="question_id", answer_column="ground_truth")
    rows = load_rows(sample("livebench/reasoning"), "train")
    for row, given in zip(rows, ("**Yes, no, yes**", "**3**"), strict=True):
        assert (
            find_reward("correctness_reward_func").score(REASONING.format_reply("so", given), row["answer"])
            == 2.0
        )


def test_a_reward_that_does_not_suit_is_named():
    with pytest.raises(UserError, match=r"correctness_reward_func cannot .*: use countdown_reward_func"):
        splits("Jiayi-Pan/Countdown-Tasks-3to4")
    train, *_ = splits("Jiayi-Pan/Countdown-Tasks-3to4", rewards={"countdown_reward_func": 1.0})
    assert train[0]["nums"] == [4, 7, 8, 8]


def test_slices_do_not_overlap():
    train, validation, tests = splits("openai/gsm8k")
    questions = [*train["question"], *validation["question"], *tests["train[-1:]"]["question"]]
    assert len(set(questions)) == len(questions) == 3


@pytest.mark.parametrize("split", ["train[", "train[1:2:3]", "train[200%:]", "train[9:]", "no-such-name", ""])
def test_an_invalid_slice_is_refused(split):
    with pytest.raises(UserError, match="split = "):
        load_rows(str(sample("openai/gsm8k")), split)


def test_an_unknown_dataset_of_the_hub_may_have_the_columns_of_gsm8k(hub, monkeypatch):
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(3)]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    assert load_rows("me/sums", "train")["answer"] == ["1", "2", "3"]


def test_your_own_data_is_loaded_from_the_hub(hub, monkeypatch):
    rows = [{"task": "2 + 3?", "result": "5"}, {"task": "007?", "result": "007"}, {"task": "?", "result": ""}]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows))
    assert load_rows("me/sums", "train", question="task", answer="result")["answer"] == ["5", "007"]


def test_a_judge_may_judge_any_dataset():
    settings = {
        "judge_url": "http://127.0.0.1:9",
        "judge_model": "any",
        "rewards": {"judge_reward_func": 1.0},
    }
    train, *_ = splits("openai/gsm8k", **settings)
    assert len(train) == 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 6\n#### 1,080", "1,080"),
        (r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("3*2=6.\n#### 6\nThe answer is: 6", "6"),
        ("#### 6 The answer is: 6", "6"),
        ("#### 6. The final answer is 6.", "6."),
        ("#### 6<|eot_id|>", "6"),
        ("#### 6</s>", "6"),
        ("####\n6\n\nI hope it helps.", "6"),
        ("#### The answer is: 6", "6"),
        ("#### Answer: 6", "6"),
        ("#### 6\r\nThe answer is: 6", "6"),
        ("#### New York\nis right", "New York"),
        (r"#### \boxed{6}", "6"),
        ("#### Conclusion\nThe answer is \\boxed{6}.", "6"),
        ("#### \\begin{pmatrix}1\n2\\end{pmatrix}", "\\begin{pmatrix}1\n2\\end{pmatrix}"),
        ("So \\boxed{6}.\n#### Check\nIt fits.", "6"),
        ("#### Final Answer\n6", "6"),
        ("#### Answer:\n**6**", "6"),
        ("#### Step 1\nAdd 2.\n#### Step 2\nSo it is 6.", "6"),
        ("six #### ", ""),
        (r"\boxed{{}", ""),
        ("nothing", ""),
        ("", ""),
    ],
)
def test_the_final_answer_of_a_solution_is_found(text, answer):
    assert final_answer(text) == answer


@pytest.mark.parametrize("end", ["6\nThe answer is: 6", "**6**", "6.", "$6", "6 dollars\n", "6\n\n---\nDone"])
def test_the_right_answer_earns_full_marks_whatever_follows_the_gold(tmp_path, end):
    row = {"query": "3 packs at 2 dollars?", "response": f"3*2=6.\n#### {end}"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    (row,) = load_rows(tmp_path, "train", question="query", answer="response")
    score = find_reward("correctness_reward_func").score
    assert score(REASONING.format_reply("3*2=6.", "6"), row["answer"]) == 2.0
    assert score(REASONING.format_reply("3*2=6.", "7"), row["answer"]) == 0.0


def test_all_tasks_of_reasoning_gym_score_their_gold(gym):
    score, without_gold = find_reward("gym_reward_func").score, []
    assert len(gym_tasks()) == 105
    for name in gym_tasks():
        problem = f"{name}:{PROBLEMS['test'][0]}"
        question, answer = gym_problem(problem)
        assert question, name
        if answer:
            assert score(REASONING.format_reply("so", answer), problem=problem) == 1.0, name
        else:
            without_gold.append(name)
        for junk in ("", "no", "9" * 5_000, "(" * 500):
            assert 0.0 <= score(REASONING.format_reply("so", junk), problem=problem) <= 1.0, name
    assert without_gold == ["boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"]


def test_the_splits_of_reasoning_gym_are_disjoint(gym):
    rows = {split: load_rows("reasoning-gym:chain_sum+leg_counting", split) for split in PROBLEMS}
    assert [len(part) for part in rows.values()] == [1_000, 200, 200]
    assert len({problem for part in rows.values() for problem in part["problem"]}) == 1_400
    recipe = load_recipe(dataset="reasoning-gym:chain_sum", test_splits=["test"],
                         rewards={"gym_reward_func": 1.0, "r1_format_reward_func": 0.5})  # fmt: skip
    train, *_ = load_splits(recipe.data, recipe.evaluation, recipe.rewards)
    assert check_rewards(train, recipe.judge(train.column_names)) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [("chain_sums", "has no task 'chain_sums'; it has "), ("chain_sum+x", "has no task 'x'")],
)
def test_an_unknown_task_is_named(gym, name, words):
    with pytest.raises(UserError, match=words):
        load_rows(f"reasoning-gym:{name}", "train")
