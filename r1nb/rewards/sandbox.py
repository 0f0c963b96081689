"""Code that reads what a model wrote, in a process of its own: it can be stopped, and it may do nothing.

math-verify and some tasks of reasoning-gym evaluate an answer as Python or SymPy. An innocent looking
tower of powers keeps them busy for ever, and a time-out by signal works in the main thread alone; so
here the process is killed, whichever thread or worker process asks. In it, an audit hook refuses to
start programs, to write files and to open sockets, in case an answer is a program. That stops what a
model stumbles into; it is no sandbox against somebody who means harm.
"""

import atexit
import json
import os
import secrets
import subprocess
import sys
import threading
from functools import cache
from importlib import import_module

from r1nb.errors import UserError

MEMORY = 4 << 30  # bytes of address space
FORBIDDEN = ("subprocess", "socket", "ctypes", "shutil", "os", "pty", "sqlite3")  # families of audit events
HARMLESS = ("os.listdir", "os.scandir", "os.walk")


def ask(function: str, library: str, *arguments, seconds: float):
    """What `function` ("module:name") returns for JSON arguments; None if it took longer than `seconds`.

    `library` is imported first, and does not count. Raises UserError if it is missing.
    """
    return _child(function, library, os.getpid()).ask(arguments, seconds)


@cache
def _child(function: str, library: str, _pid: int) -> "Child":
    """One for each function and process: a forked process must not read its parent's answers."""
    return Child(function, library)


class Child:
    def __init__(self, function: str, library: str):
        self.function, self.library = function, library
        self.lock, self.process = threading.Lock(), None
        atexit.register(self._stop)

    def ask(self, arguments, seconds: float):
        with self.lock:
            token = secrets.token_hex(8)  # a reply without it is not a reply to this question
            if self.process is None or self.process.poll() is not None:
                self.process = self._start()
            process, late, reply = self.process, threading.Event(), ""
            timer = threading.Timer(seconds, lambda: (late.set(), process.kill()))
            try:
                process.stdin.write(json.dumps([token, *arguments]) + "\n")
                process.stdin.flush()
                timer.start()
                reply = process.stdout.readline()
                reply = reply.removeprefix(token) if reply.startswith(token) else ""
            except OSError:  # it ended before it was asked
                pass
            finally:
                timer.cancel()
                if late.is_set() or not reply:  # also if this thread is interrupted: no one waits for it
                    self._stop()
        return json.loads(reply) if reply else None

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "r1nb.rewards.sandbox", self.function, self.library],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | {"PYTHONHASHSEED": "0"},  # some tasks depend on the order of a set
        )  # fmt: skip
        if process.stdout.readline() != "ready\n":
            process.communicate()
            raise UserError(
                f"The process that needs {self.library} did not start; is it installed? "
                "pip install 'r1nb[rewards,gym]'."
            )
        return process


def _refuse(event: str, arguments: tuple) -> None:
    writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or (event.partition(".")[0] in FORBIDDEN and event not in HARMLESS):
        raise PermissionError(f"{event} is not allowed to code that reads a model's answer")


def _serve(function: str, library: str) -> None:
    import logging

    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # tasks print
    import_module(library)
    module, _, name = function.partition(":")
    called = getattr(import_module(module), name)
    logging.disable()
    sys.dont_write_bytecode = True
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.modules["_posixsubprocess"] = sys.modules["_ctypes"] = None  # they start programs unheard
    subprocess._fork_exec = None
    sys.addaudithook(_refuse)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        token, *arguments = json.loads(line)
        try:
            result = called(*arguments)
        except Exception:  # whatever it makes of what a model wrote
            result = False
        print(token, json.dumps(result), file=replies, flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
