"""Run a parser in a subprocess with a time limit: for code that reads what a model wrote.

math-verify and some tasks of reasoning-gym evaluate an answer as Python or SymPy code. An answer like 9**9**9
would keep them busy for ever, and a time limit by signal works only in the main thread. A subprocess can be
killed from any thread or process. An audit hook in it refuses to start programs, to write files and to open
sockets, in case an answer is a program. This protects against what a model writes by accident, not against
an attacker.
"""

import atexit
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
from functools import cache
from pkgutil import resolve_name

from r1nb.errors import UserError

MEMORY = 4 << 30  # bytes of address space
FORBIDDEN = ("subprocess", "socket", "ctypes", "shutil", "os", "pty", "sqlite3")  # prefixes of audit events
HARMLESS = ("os.listdir", "os.scandir", "os.walk")


def run_sandboxed(function: str, library: str, *arguments, seconds: float):
    """Call `function` ("module:name") with JSON arguments in a subprocess; None if it takes over `seconds`.

    The subprocess imports `library` when it starts, which does not count towards the time. Raises UserError
    if the library is missing.
    """
    return _sandbox(function, library, os.getpid()).run(arguments, seconds)


@cache
def _sandbox(function: str, library: str, _pid: int) -> "Sandbox":
    """One sandbox per function and process: after a fork, both processes would read the same replies."""
    return Sandbox(function, library)


class Sandbox:
    """A function in a subprocess, which is started when first needed, and again after it was killed."""

    def __init__(self, function: str, library: str):
        self.function, self.library = function, library
        self.lock, self.process = threading.Lock(), None
        atexit.register(self._stop)

    def run(self, arguments: tuple, seconds: float):
        with self.lock:
            token = secrets.token_hex(8)  # a reply without it does not belong to this request
            if self.process is None or self.process.poll() is not None:
                self.process = self._start()
            process, reply = self.process, ""
            timer = threading.Timer(seconds, process.kill)
            try:
                process.stdin.write(json.dumps([token, *arguments]) + "\n")
                process.stdin.flush()
                timer.start()
                reply = process.stdout.readline()
                reply = reply.removeprefix(token) if reply.startswith(token) else ""
            except OSError:  # the subprocess ended before the request
                pass
            finally:
                if not reply or not timer.is_alive():  # too late, or this thread is interrupted
                    self._stop()
                timer.cancel()
        return json.loads(reply) if reply else None

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "r1nb.rewards.sandbox", self.function, self.library],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=os.environ | {"PYTHONHASHSEED": "0"},  # some tasks depend on the order of a set
        )  # fmt: skip
        if process.stdout.readline() != "ready\n":
            process.communicate()
            raise UserError(f"{self.library} is missing or did not start: pip install 'r1nb[rewards,gym]'.")
        return process


def _refuse(event: str, arguments: tuple) -> None:
    """The audit hook: raise PermissionError for forbidden events and for opening a file to write."""
    writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or (event.partition(".")[0] in FORBIDDEN and event not in HARMLESS):
        raise PermissionError(f"{event} is not allowed in the sandbox")


def _answer_requests(function: str, library: str) -> None:
    """Run in the subprocess: answer each line of JSON with a line of JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles ^C and may still need replies
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # so that what tasks print is not taken for a reply
    resolve_name(library)
    parse = resolve_name(function)
    logging.disable()
    sys.dont_write_bytecode = True
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.modules["_posixsubprocess"] = sys.modules["_ctypes"] = None  # they can start programs unaudited
    subprocess._fork_exec = None
    sys.addaudithook(_refuse)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        token, *arguments = json.loads(line)
        try:
            result = parse(*arguments)
        except Exception:  # a model's answer may cause any exception
            result = False
        print(token, json.dumps(result), file=replies, flush=True)


if __name__ == "__main__":
    _answer_requests(*sys.argv[1:])
