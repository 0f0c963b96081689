"""The lines to serve what a run has trained: those of Python are run as they are printed.

tests/vllm_cpu runs the lines of vLLM.
"""

import re
import shutil
import subprocess
import sys

import pytest

from r1nb.errors import UserError
from r1nb.policy.export import save_merged
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.policy.trained import load_trained
from r1nb.policy.usage import QUESTION
from r1nb.recipes.loading import load_recipe
from r1nb.runs.run import Run
from r1nb.training.resume import new_run
from r1nb.views.serving import serving_lines


def blocks(lines, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", lines, re.DOTALL)


def answer(policy, recipe, **options) -> str:
    (completion,) = policy.generate([recipe.layout.build_messages(QUESTION)], recipe.greedy, **options)
    return completion.text


def run_as_printed(code: str, folder) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


@pytest.fixture
def run(saved, tmp_path):
    """Return a copy of the saved run, whose adapter changes more."""
    run = Run(shutil.copytree(saved.folder, tmp_path / "runs" / saved.name))
    policy, *_ = load_trained(run.folder)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data *= 4
    policy.save_trained(run)
    return run


def test_the_lines_of_peft_print_the_answer_of_the_policy(run, tmp_path, monkeypatch):
    policy, recipe, _ = load_trained(run.folder)
    ours = answer(policy, recipe)
    assert ours != answer(policy, recipe, adapter=False)
    monkeypatch.chdir(run.folder.parent)
    lines = serving_lines(run)
    peft, _, push = blocks(lines, "python")
    assert f'PeftModel.from_pretrained(base, "{run.name}/adapter")' in peft
    assert run_as_printed(peft, run.folder.parent) == ours
    assert f'policy.push_to_hub("YOUR-NAME/{run.name}")' in push
    (anywhere, *_) = blocks(serving_lines(run, absolute=True), "python")
    assert f'PeftModel.from_pretrained(base, "{run.adapter}")' in anywhere
    # The adapter has rank 8.
    serve, _, convert = blocks(lines, "sh")
    assert f"--max-lora-rank 8 --lora-modules {run.name}={run.name}/adapter" in serve
    assert "--max-model-len 320 --dtype float32" in serve
    assert f"convert_hf_to_gguf.py {run.name}/merged --outfile {run.name}.gguf" in convert
    assert "<|im_start|>user\n{{ .Prompt }}<|im_end|>" in lines

    merged = save_merged(policy, tmp_path / "merged")
    lines = serving_lines(run, merged)
    assert "Peft" not in lines
    assert "lora" not in lines
    assert run_as_printed(blocks(lines, "python")[0], run.folder.parent) == ours


def test_a_whole_model_needs_no_base(tiny_recipe, tmp_path):
    recipe = load_recipe("tiny-cpu", lora=None, runs_dir=tiny_recipe.output.runs_dir)
    policy, run = load_policy(recipe), new_run(recipe)
    with pytest.raises(UserError, match="has saved no trained weights yet"):
        serving_lines(run)
    attach_lora(policy, recipe)
    for name, weight in policy.model.named_parameters():
        if "q_proj" in name:
            weight.data *= 0.5
    policy.save_trained(run)
    lines = serving_lines(run)
    python, push = blocks(lines, "python")
    assert run_as_printed(python, tmp_path) == answer(policy, recipe)
    serve, _, convert = blocks(lines, "sh")
    assert f"vllm serve {run.model} " in serve
    assert "lora" not in serve
    assert f"convert_hf_to_gguf.py {run.model} " in convert
    assert "push_to_hub" in push


def test_a_base_in_4_bits_or_from_a_gguf_file_gets_other_lines(run):
    recipe = (run.folder / "recipe.yaml").read_text()
    (run.folder / "recipe.yaml").write_text(recipe.replace("load_in_4bit: false", "load_in_4bit: true"))
    lines = serving_lines(Run(run.folder))
    assert "quantization_config=four_bits" in blocks(lines, "python")[0]
    assert "--quantization bitsandbytes" in lines
    assert "`pip install vllm-bnb-plugin` for weights in 4 bits, then start the server" in lines
    (run.folder / "recipe.yaml").write_text(recipe.replace("tiny-policy", "/models/base.gguf"))
    lines = serving_lines(Run(run.folder))
    assert f'load_trained("{run.adapter}", base="/models/base.gguf")' in blocks(lines, "python")[0]
    assert f"vllm serve {run.folder}/merged " in lines
    assert "merge the adapter as under Ollama" in lines
