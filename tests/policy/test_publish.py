"""Pushing to the Hub, for which a local server stands in: what is sent, and refusals in one sentence."""

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import indent

import pytest
from huggingface_hub import ModelCard

from r1nb.errors import UserError
from r1nb.paths import DATA
from r1nb.policy.loading import attach_lora, load_policy
from r1nb.runs.run import CARD

PUSHED = {"README.md", "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "r1nb.json",
          "tokenizer.json", "tokenizer_config.json"}  # fmt: skip
LOAD = "from r1nb import load_trained\npolicy, _, _ = load_trained({!r})\n"


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's protocol that huggingface_hub needs to push files of under 10 MB."""

    def do_GET(self):
        if self.headers.get("Authorization") != "Bearer hf_good":
            return self.answer(401, {"error": "Invalid user token."})
        if self.path == "/api/whoami-v2":
            return self.answer(200, {"name": "me", "type": "user"})
        private = self.server.private[self.path.removeprefix("/api/models/")]
        return self.answer(200, {"id": "me/first", "private": private, "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            known = name in self.server.private
            self.server.private.setdefault(name, asked["visibility"] == "private")
            url = f"http://{self.headers['Host']}/{name}"
            return self.answer(409 if known else 200, {"url": url})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": modes})
        url = f"http://{self.headers['Host']}/me/first"
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer(200, {"commitUrl": f"{url}/commit/{'a' * 40}", "commitOid": "a" * 40})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        self.server.requests.append(self.path)


@pytest.fixture
def hub(tmp_path):
    """Return a function that runs code with the server as the Hub: (code, **environment) -> its output."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.requests, server.files, server.private = [], {}, {"me/public": False}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hf")}

    def run(code, **environment):
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        code = (
            f"from r1nb.errors import UserError\ntry:\n{indent(code, ' ')}\nexcept UserError as e: print(e)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=inherited | home | environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    run.server = server
    yield run
    server.shutdown()
    server.server_close()


@pytest.fixture
def trained(saved, tmp_path):
    """Return a copy of the run on another base folder, with files in it that are nobody's business."""
    folder = tmp_path / "secret-runs" / "run-001"
    shutil.copytree(saved.folder, folder)
    shutil.copytree(DATA / "tiny-policy", tmp_path / "secret-base")
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("tiny-policy", str(tmp_path / "secret-base")))
    card = (folder / "adapter" / CARD).read_text()
    (folder / "adapter" / CARD).write_text(card.replace("tiny-policy", str(tmp_path / "secret-base"), 1))
    for name in ("optimizer.pt", "rows.jsonl", "notes.txt"):
        (folder / "adapter" / name).write_text("secret")
    return folder


def test_the_adapter_is_pushed_with_its_card_and_nothing_else(saved, trained, hub, tmp_path):
    said = hub(LOAD.format(str(trained)) + "policy.push_to_hub('me/first')", HF_TOKEN="hf_good")
    files = hub.server.files
    assert f"/me/first (private): {', '.join(files)}." in said
    assert set(files) == PUSHED
    assert hub.server.private["me/first"]
    for name in PUSHED - {"README.md", CARD}:
        assert files[name] == (saved.adapter / name).read_bytes()
    for name, content in files.items():
        assert b"secret-runs" not in content, name
        assert str(tmp_path).encode() not in content, name
    assert json.loads(files[CARD])["model"]["model_name"] == "secret-base"
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.library_name, card.data.base_model) == ("mit", "peft", None)
    assert 'PeftModel.from_pretrained(base, "me/first")' in card.text
    assert "- test, 10 problems, before: 50.0% strict [20.0%, 80.0%], format 90.0%" in card.text
    assert (
        "- test, 10 problems: 3 were right before training and are wrong now; 3 were wrong and" in card.text
    )
    assert "- test, kind `sums`: 5 of 5 right before, 2 after" in card.text
    assert "kind `products`" not in card.text  # more of them are right
    assert "- `correctness_reward_func`, reward weight 1.0" in card.text
    assert "None" not in str(card)


def test_what_would_push_too_much_or_fail_is_refused_in_a_sentence(saved, hub):
    push = f"""
from pathlib import Path
from r1nb.policy.publish import push
for name in {{}}: push(None, Path({str(saved.adapter)!r}), name, True)"""
    assert "Nobody is logged in to the Hub: run `hf auth login`" in hub(push.format("['me/first']"))
    assert "'first' is not the name of a repository: write owner/model" in hub(push.format("['first']"))
    assert hub.server.requests == []  # nothing was asked before
    said = hub(push.format("['me/first']"), HF_TOKEN="hf_bad")
    assert "me/first was not pushed: " in said
    assert "Invalid user token" in said
    said = hub(push.format("['me/public']"), HF_TOKEN="hf_good")
    assert "me/public is public: choose another name, or push with private=False." in said
    assert hub.server.files == {}


def test_a_policy_that_is_not_saved_is_not_pushed(tiny_recipe):
    policy = load_policy(tiny_recipe)
    with pytest.raises(UserError, match="has not been saved"):
        policy.push_to_hub("me/first")
    attach_lora(policy, tiny_recipe)
    policy.save_adapter(tiny_recipe_folder := Path(tiny_recipe.output.runs_dir, "adapter"))
    assert policy.folder == tiny_recipe_folder
    attach_lora(policy, tiny_recipe)
    assert policy.folder is None  # the new adapter is not that one
