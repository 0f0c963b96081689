"""Models from the Hub, for which a local server stands in: downloads, and refusals in one sentence."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from r1nb.machine.model_files import cannot_load
from r1nb.paths import DATA

FILES = {path.name: path.read_bytes() for path in (DATA / "tiny-policy").iterdir()}
FILES["original/consolidated.00.pth"] = b"the same weights once more"
COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """The part of the Hub's protocol that huggingface_hub needs for a download."""

    def do_GET(self):
        path = self.path.partition("?")[0]
        if "/api/models/org/unknown" in path:
            return self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if path.endswith(f"/tree/{COMMIT}"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": "0"} for name, data in FILES.items()
            ]
            return self.answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        if "/tree/" in path:  # it asks for a folder of chat templates: there is none
            return self.answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in FILES]
            info = {"id": "org/open", "sha": COMMIT, "siblings": siblings}
            return self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        if "/org/gated/" in path:
            status = 403 if self.headers.get("Authorization") else 401
            return self.answer(status, b"gated", {"X-Error-Code": "GatedRepo"})
        name = path.split(f"/resolve/{COMMIT}/")[-1].split("/resolve/main/")[-1]
        if name not in FILES:
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        self.server.sent.append((self.command, name))
        etag = hashlib.sha256(FILES[name]).hexdigest()
        return self.answer(200, FILES[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'})

    do_HEAD = do_GET  # noqa: N815

    def answer(self, status, body, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path):
    """Return a function that runs code with the server as the Hub: (code, **environment) -> its output."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.sent = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hf")}

    def run(code, **environment):
        offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_TOKEN", "HF_HUB_DISABLE_PROGRESS_BARS")
        inherited = {key: value for key, value in os.environ.items() if key not in offline}
        code = (
            "from r1nb.errors import UserError\nfrom r1nb.recipes.loading import load_recipe\n"
            "from r1nb.policy.loading import load_policy\n"
            f"try:\n    {code}\nexcept UserError as error: print('REFUSED', error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=inherited | home | environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        run.progress = done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    run.sent = server.sent
    yield run
    server.shutdown()
    server.server_close()


def test_a_model_is_downloaded_once_with_a_progress_bar(hub):
    code = "for _ in range(2): load_policy(load_recipe(model_name='org/open'))"
    hub(code, TQDM_POSITION="-1")  # bars as in a terminal
    assert "model.safetensors" in hub.progress
    assert "%" in hub.progress
    assert [name for command, name in hub.sent if command == "GET"].count("model.safetensors") == 1
    assert not any("original" in name for _, name in hub.sent)
    hub("load_policy(load_recipe(model_name='org/open'))", HF_HUB_OFFLINE="1")
    hub.sent.clear()
    hub("from r1nb.machine.model_files import load_config; load_config('org/open')")
    assert hub.sent == []  # the plan of a model in the cache needs no network


def test_a_gated_model_becomes_one_sentence(hub):
    code = "load_policy(load_recipe(model_name='org/gated'))"
    said = hub(code)
    assert "REFUSED org/gated is gated: accept its licence at https://huggingface.co/org/gated" in said
    assert "set HF_TOKEN" in said
    assert "and the token in HF_TOKEN has no access" in hub(code, HF_TOKEN="hf_" + "x" * 34)
    assert "is gated" in hub("from r1nb.machine.model_files import load_config; load_config('org/gated')")


def test_an_unknown_model_is_not_called_gated(hub):
    said = hub("load_policy(load_recipe(model_name='org/unknown'))")
    assert "REFUSED org/unknown cannot be loaded" in said


def test_the_message_says_why_a_model_cannot_be_loaded():
    said = cannot_load("org/open", OSError(28, "No space left on device"))
    assert said.startswith("org/open cannot be loaded ([Errno 28] No space left on device): it is neither")
    assert "available from the Hub. Check the name and the network; to work offline, set HF_HUB_OFF" in said
    said = cannot_load("unsloth/Qwen3-17B", OSError("no network"))
    assert "available from the Hub; did you mean 'Qwen3-1.7B'? Check the name" in said
