"""The bundle of the GPU bench: what it leaves out, and what it keeps."""

import json
import zipfile
from pathlib import Path

from r1nb.paths import write_json
from r1nb.studies.gpu_bundle import pack

PARTS = {"speed-r1nb": ("steps", {"recipe": "tiny-cpu"}), "accuracy-train": ("train", {})}


def test_a_bundle_holds_no_secrets_paths_and_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "q7" * 17)
    monkeypatch.setenv("MY_API_KEY", "correct horse battery")
    monkeypatch.setattr("socket.gethostname", lambda: "lab-box-7.corp.example")
    monkeypatch.setenv("USER", "mallory")
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/data/people/mal lory"))
    jwt, key = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJz.c2ln", "0123456789abcdef" * 2 + "01234567"
    planted = [
        "hf_" + "q7" * 17, "hf_" + "abcDEF123" * 4, "correct horse battery", "sk-proj-abcdefghijklmnop1234",
        "lab-box-7", "corp.example", "mallory", "mal lory", "/data/people", "/opt/secret-project",
        "C:\\Users\\eve", "pass:word", "172.17.0.9", str(tmp_path),
        "GPU-1a2b3c4d-0000-1111-2222-333344445555",
        jwt, key, "10.1.2.3", "fe80::1ff:fe23", "2001:db8:0:0:1:2:3:4", "02:42:ac:11:00:02", "my own work",
    ]  # fmt: skip
    lines = [
        "token hf_" + "q7" * 17, "another hf_" + "abcDEF123" * 4, "key=correct horse battery",
        "OPENAI sk-proj-abcdefghijklmnop1234", "on lab-box-7.corp.example as mallory, also lab-box-7",
        'File "/data/people/mal lory/x/train.py", line 3', "see file:///opt/secret-project/a/b.txt",
        "--path=/opt/secret-project/run,/opt/secret-project/log", "C:\\Users\\eve\\models\\llama",
        "git https://pass:word@github.com/x/y", "tcp://172.17.0.9:41231", f"folder {tmp_path}/models/x",
        "GPU-1a2b3c4d-0000-1111-2222-333344445555",
        f"Bearer {jwt}, WANDB {key}", "at 10.1.2.3.", "host fe80::1ff:fe23 and 2001:db8:0:0:1:2:3:4",
        "ether 02:42:ac:11:00:02", 'File "/data/my own work/x/train.py"',
    ]  # fmt: skip
    useful = [
        "openai/gsm8k", "cudnn 9.1.0.70", "nvidia-cublas==12.4.5.8", "3 /4 + 5/6", "12:34:56", "c10::Error",
        "torch.ops.x[1::2]",
        "</answer>", "\\frac{1}{2} \\times 3", "40 km/h", "train.py",
        "b.txt", "https://huggingface.co/unsloth/Llama-3.2-1B-Instruct", "skip_special_tokens",
        "3 / 4 = 0.75",
    ]  # fmt: skip
    write_json(tmp_path / "speed-r1nb.json", {"failed": lines, "said": {"mallory": useful}})
    (tmp_path / "speed-r1nb.log").write_text("\n".join([*lines, *useful]))
    with zipfile.ZipFile(pack(tmp_path, PARTS)) as file:
        assert sorted(file.namelist()) == ["speed-r1nb.json", "speed-r1nb.log"]
        part, log = json.loads(file.read("speed-r1nb.json")), file.read("speed-r1nb.log").decode()
    for text in (log, "\n".join(part["failed"])):
        assert [word for word in planted if word in text] == []
    assert part["said"] == {"mallory": useful}  # keys are ours
    assert [word for word in useful if word not in log] == []


def test_a_bundle_keeps_the_words_of_the_results_and_leaves_out_other_files(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "unsloth")
    monkeypatch.setenv("DB_PASSWORD", "bitsandbytes")
    monkeypatch.setattr("pathlib.Path.home", lambda: Path("/root"))
    monkeypatch.setattr("socket.gethostname", lambda: "llama31")
    result = {"recipe": "llama31-8b-16gb", "way": "unsloth", "model": "unsloth/x", "optim": "bitsandbytes"}
    write_json(tmp_path / "speed-r1nb.json", result)
    write_json(tmp_path / "kaggle.json", {"key": "x"})
    (tmp_path / "mine.log").write_text("mine")
    (tmp_path / "accuracy-train.json").write_text('{"steps": 1')
    with zipfile.ZipFile(pack(tmp_path, PARTS)) as file:
        assert json.loads(file.read("speed-r1nb.json")) == result
        assert "failed" in json.loads(file.read("accuracy-train.json"))
        assert sorted(file.namelist()) == ["accuracy-train.json", "speed-r1nb.json"]
