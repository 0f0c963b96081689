"""What is refused before a download, each in one sentence that names the way out."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from r1nb.errors import UserError, say_once
from r1nb.machine import fitting, hardware
from r1nb.machine.cards import machine_with
from r1nb.machine.fitting import choose_recipe, recipe_for
from r1nb.machine.hardware import Machine, require, suggest_recipe
from r1nb.machine.refusals import check_card, check_download, check_login, why_no_cuda
from r1nb.recipes.loading import load_recipe

T4 = Machine(2, 13, "Tesla T4", 15.8, (7, 5))
A100 = Machine(12, 89, "NVIDIA A100-SXM4-40GB", 42.4, (8, 0))
P100 = Machine(2, 13, "Tesla P100-PCIE-16GB", 17.1, (6, 0))
PLAIN = {"engine": "transformers", "fast_inference": False, "use_vllm": False, "load_in_4bit": False}
INDEX = r"for CUDA 12.6 \(pytorch.org says how\)"


@pytest.fixture
def card(monkeypatch):
    """Pretend that this machine has an NVIDIA card, and PyTorch a build for this CUDA and its kernels."""

    def build(cuda: str | None, driver: int = 0, kernels=()):
        exists = os.path.exists
        monkeypatch.setattr("os.path.exists", lambda path: path == "/dev/nvidia0" or exists(path))
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch._C, "_cuda_getDriverVersion", lambda: driver, raising=False)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(kernels))

    return build


def test_a_driver_that_is_too_old_is_named_with_both_ways_out(card, monkeypatch, tmp_path):
    card("13.0", driver=12040)
    why = f"CUDA 13 wants driver 580 or newer, and the driver here is for CUDA 12.4: update it, or .*{INDEX}"
    assert suggest_recipe(Machine(2, 13))[0] == "tiny-cpu"
    monkeypatch.setattr(fitting, "this_machine", lambda: Machine(2, 13))
    monkeypatch.setenv("R1NB_SET", f"runs_dir={tmp_path}")
    with pytest.raises(UserError, match=f"Recipe llama32-1b-16gb needs a CUDA GPU: PyTorch's {why}"):
        choose_recipe("llama32-1b-16gb")


@pytest.mark.parametrize(
    ("cuda", "driver", "words"),
    [
        (None, 0, "is built without CUDA"),
        ("13.0", 0, "and there is no driver"),
        ("12.6", 11080, "wants driver 525 or newer, and the driver here is for CUDA 11.8"),
        ("13.0", 13000, "finds a driver but no card"),
    ],
)
def test_other_reasons_why_a_card_cannot_be_used(card, cuda, driver, words):
    card(cuda, driver)
    assert words in why_no_cuda()
    assert words in suggest_recipe(Machine(2, 13))[1]


def test_without_an_nvidia_card_nothing_is_said_about_drivers():
    assert why_no_cuda() == ""


@pytest.mark.parametrize(
    ("machine", "kernels", "settings", "least"),
    [
        (P100, ["sm_75", "sm_80", "sm_90a"], {}, "7.5"),
        (P100, ["sm_60", "sm_75"], {}, "7.5"),  # PyTorch's build for CUDA 12.6
        (P100, ["sm_75", "sm_120"], PLAIN, "7.5"),
        (T4, ["sm_80", "compute_90"], PLAIN, "8.0"),
    ],
)
def test_a_card_without_kernels_is_refused(card, machine, kernels, settings, least):
    card("13.0", 13000, kernels)
    recipe = load_recipe("llama32-1b-16gb", **settings)
    capability = "{}.{}".format(*machine.capability)
    words = f"has compute capability {capability}, and .* need {least}: take another card, or .*{INDEX}"
    with pytest.raises(UserError, match=f"{machine.gpu} {words}"):
        require(recipe, machine)


def test_a_card_with_kernels_is_accepted(card):
    card("12.6", 12060, ["sm_60", "sm_75", "sm_90"])
    check_card(load_recipe("llama32-1b-16gb", **PLAIN), P100)
    check_card(load_recipe("llama32-1b-16gb"), T4)
    check_card(load_recipe("tiny-cpu", bf16=True), P100)  # it trains on the processor


def test_the_kernels_here_do_not_matter_for_a_card_that_is_elsewhere(card):
    card("13.0", 13000, ["sm_90"])
    check_card(load_recipe("llama32-1b-16gb"), machine_with("t4"))


def test_a_card_without_kernels_is_refused_before_the_plan_imports_unsloth(card, monkeypatch):
    card("13.0", 13000, ["sm_75"])
    monkeypatch.setattr(fitting, "load_empty", lambda recipe: pytest.fail("Unsloth would be imported"))
    with pytest.raises(UserError, match=r"compute capability 6\.0"):
        recipe_for("auto", P100, model_name="unsloth/Qwen3-1.7B")


def test_unsloth_gets_no_gguf_file(monkeypatch):
    monkeypatch.setattr(hardware, "prepare_unsloth", lambda model: pytest.fail("too late"))
    with pytest.raises(
        UserError, match=r"my\.gguf': a GGUF file needs engine=transformers fast_inf.* load_in"
    ):
        require(load_recipe("llama32-1b-16gb", model_name="/models/my.gguf"), T4)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"dtype": "bfloat16"}, "dtype = 'bfloat16' needs 8.0 .* set dtype=float16"),
        ({"bf16": True}, "bf16 = True needs 8.0 .* set bf16=false"),
    ],
)
def test_bfloat16_is_refused_before_ampere(card, settings, remedy):
    card("13.0", 13000, ["sm_75"])
    recipe = load_recipe("llama32-1b-16gb", **settings)
    with pytest.raises(UserError, match=remedy.replace(" .* ", " or more, and Tesla T4 has .* 7.5: ")):
        check_card(recipe, T4)
    check_card(recipe, A100)


def test_bfloat16_of_sft_is_refused_too(card):
    card("13.0", 13000, ["sm_75"])
    with pytest.raises(UserError, match=r"sft\.bf16 = True needs 8\.0 .* set sft\.bf16=false"):
        check_card(load_recipe("llama31-8b-r1"), T4)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty cache of the Hub, on a disk with so many bytes free."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "not" / "there"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)

    def free(size: float):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))
        return tmp_path / "not" / "there"

    return free


@pytest.mark.parametrize(
    ("name", "gb"),
    [
        ("unsloth/Llama-3.1-8B-Instruct", "16.1"),
        ("unsloth/Llama-3.1-8B-Instruct-unsloth-bnb-4bit", "5.7"),
        ("unsloth/Llama-3.2-1B-Instruct", "2.5"),
    ],
)
def test_a_disk_that_is_too_small_is_refused(hub, name, gb):
    hub(2e9)
    with pytest.raises(UserError, match=f"{name} takes {gb} GB and .*there has 2.0 GB free: .* HF_HOME"):
        check_download(name)
    hub(17e9)
    check_download(name)


def test_what_is_in_the_cache_is_not_downloaded_again(hub):
    blobs = hub(1e9) / "models--unsloth--Llama-3.2-1B-Instruct" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / "weights").open("wb") as file:
        file.truncate(2_471_000_000)  # no block of it is written
    check_download("unsloth/Llama-3.2-1B-Instruct")


def test_a_gated_model_without_a_login_is_refused_with_its_open_copy(hub, monkeypatch):
    hub(1e12)
    monkeypatch.setattr(hardware, "prepare_unsloth", lambda model: pytest.fail("too late"))
    words = "is gated, and nobody is logged in: .* HF_TOKEN .* model_name=unsloth/gemma-3-1b-it"
    with pytest.raises(UserError, match=words):
        check_login("google/gemma-3-1b-it")
    for name, machine in (("tiny-cpu", Machine(2, 13)), ("llama32-1b-16gb", T4)):
        with pytest.raises(UserError, match=r"model_name=unsloth/Llama-3\.1-8B-Instruct"):
            require(load_recipe(name, model_name="meta-llama/Llama-3.1-8B-Instruct"), machine)
    check_login("unsloth/gemma-3-1b-it")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_secret")
    check_login("google/gemma-3-1b-it")


def test_a_gated_model_that_is_in_the_cache_needs_no_login(hub):
    blobs = hub(1e12) / "models--google--gemma-3-1b-it" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "config").write_text("{}")
    check_login("google/gemma-3-1b-it")


def test_a_model_on_this_disk_is_not_checked(hub, tmp_path, monkeypatch):
    hub(0)
    (tmp_path / "google/gemma-3-1b-it").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path), "tiny-policy", "google/gemma-3-1b-it"):
        check_login(name)
        check_download(name)


def test_standby_is_switched_off_before_ampere_and_said_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("R1NB_SET", f"runs_dir={tmp_path}")
    turing = Machine(8, 64, "Quadro RTX 6000", 25.0, (7, 5))
    say_once.cache_clear()
    for _ in range(2):
        recipe = recipe_for("auto", turing)
        assert recipe.name == "llama31-8b-24gb"
        assert (recipe.model.unsloth_vllm_standby, recipe.model.gpu_memory_utilization) == (False, 0.5)
        assert recipe.grpo["vllm_enable_sleep_mode"] is False
    assert (
        capsys.readouterr().out.count(
            "unsloth_vllm_standby is switched off: on cards before Ampere, like Quadro"
        )
        == 1
    )
    for machine in (A100, Machine(12, 89, "NVIDIA A100-SXM4-40GB", 42.4)):
        assert recipe_for("llama31-8b-40gb", machine) == load_recipe("llama31-8b-40gb")
    assert recipe_for("auto", T4) == load_recipe("llama32-1b-16gb")  # it has no standby
    assert capsys.readouterr().out == ""
