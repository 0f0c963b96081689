"""The judge, called through a real server process on this machine."""

import subprocess
import sys
import time

import pytest

from r1nb.errors import UserError
from r1nb.recipes.loading import load_recipe
from r1nb.rewards.judge import _client

# It answers like an OpenAI-compatible server; a word in the reply decides its score.
SERVER = """
import json, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SAYS = {"RIGHT": "SCORE: 10", "HALF": " SCORE: 5\\n", "CHATTY": "I would say SCORE: 9",
        "TOOMUCH": "SCORE: 11", "SILENT": "", "ARABIC": "SCORE: \\u0665"}

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][0]["content"]
        if "BROKEN" in asked:
            self.send_response(400); self.end_headers(); return
        time.sleep(0.5)
        said = next((s for word, s in SAYS.items() if word in asked), "SCORE: 0")
        message = {"role": "assistant", "content": said}
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
                 "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def server():
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        process.kill()


def judged(url, texts):
    recipe = load_recipe(rewards={"judge_reward_func": 1.0}, judge_url=url, judge_model="any")
    (func,) = recipe.reward_funcs()
    count = len(texts)
    return func(completions=texts, answer=["His son."] * count, question=["Who is it?"] * count,
                completion_ids=[[1]] * count)  # fmt: skip


def test_valid_scores_are_read_and_all_else_is_none(server):
    texts = ["RIGHT", "HALF", "wrong", "CHATTY", "TOOMUCH", "SILENT", "ARABIC", "BROKEN"]
    assert judged(server, texts) == [1.0, 0.5, 0.0, None, None, None, None, None]


def test_calls_are_made_in_parallel(server):
    start = time.monotonic()
    assert judged(server, ["RIGHT"] * 16) == [1.0] * 16
    assert time.monotonic() - start < 6  # one after the other takes 8 seconds


def test_an_unreachable_judge_gives_none_as_score():
    url = "http://127.0.0.1:9/v1"  # no server runs there
    _client(url).max_retries = 0
    assert judged(url, ["RIGHT", "wrong"]) == [None, None]


def test_a_judge_without_url_is_refused():
    with pytest.raises(UserError, match="needs judge_url and judge_model"):
        load_recipe(rewards={"judge_reward_func": 1.0})


def test_the_code_of_the_judge_stays_short():
    import inspect

    from r1nb.rewards import judge

    code = inspect.getsource(judge).split("from r1nb.rewards.registry import reward\n")[1]
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 40
