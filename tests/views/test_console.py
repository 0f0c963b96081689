"""The result of a run in a terminal."""

import re

from written_run import write_run

from r1nb.rewards.grading import Graded
from r1nb.training.resume import new_run
from r1nb.views.console import show_result


def test_rates_alarms_and_files_of_a_finished_run_are_printed(tiny_recipe, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = write_run(tiny_recipe, 3)
    run.append({"step": 3, "alarm": "cut_off", "sentence": "Too [bold]short[/bold]."})
    for moment, strict in (("before", False), ("after", True)):
        graded = Graded("?", "2", "two", (7,), False, strict, strict, False, {"int_reward_func": 0.5})
        run.write_evaluation(moment, {"test": [graded] * 4, "other": [graded]})
    show_result(run)
    lines = capsys.readouterr().out.splitlines()
    assert "test (4), greedy; rates with 95 % intervals" in lines
    assert "other (1), greedy; rates with 95 % intervals" in lines
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert ["before", "after"] in cells
    assert ["strict", "0.0% [0.0, 49.0]", "100.0% [51.0, 100.0]"] in cells
    assert cells.count(["int", "0.500", "0.500"]) == 2
    assert "Step 3: Too [bold]short[/bold]." in lines
    assert lines[-4:] == [
        "run folder: runs/tiny-cpu-001",
        "adapter:    runs/tiny-cpu-001/adapter",
        "report:     runs/tiny-cpu-001/report.html",
        "serve it:   runs/tiny-cpu-001/serve.md",
    ]


def test_without_an_evaluation_only_the_paths_are_printed(tiny_recipe, capsys):
    run = new_run(tiny_recipe)
    show_result(run)
    assert capsys.readouterr().out.splitlines() == [
        f"run folder: {run.folder}",
        f"adapter:    {run.folder}/adapter",
        f"report:     {run.folder}/report.html",
        f"serve it:   {run.folder}/serve.md",
    ]
