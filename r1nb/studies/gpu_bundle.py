"""Pack the results of the GPU bench into one zip file, without secrets, paths, and names of host and user."""

import json
import os
import re
import socket
import sys
import tempfile
import zipfile
from pathlib import Path

from r1nb.machine.hardware import PACKAGES
from r1nb.paths import PACKAGE, read_json
from r1nb.studies.gpu_parts import WAYS

OURS = ("recipe", "way", "engine")  # keys of results whose values are always r1nb's own words
SECRET = re.compile(r"token|key|secret|passw|credential|auth|cookie", re.IGNORECASE)  # names of variables
LOOKS_SECRET = re.compile(
    r"\b(?:hf_|gh[a-z]_|github_pat_|sk-|glpat-|xox[a-z]-|AKIA)[\w-]{12,}|(?<=://)[^/\s@]+(?=@)"
    r"|\beyJ[\w-]{10,}(?:\.[\w-]+)*|\b[0-9a-f]{32,}\b"
)
# A folder's name may have up to four words.
FOLDERS = re.compile(
    r"(?<![\w./~-])(?:file://|~|[A-Za-z]:)?(?:/[^\s/:;,|'\"<>(){}]+(?: [A-Za-z][^\s/:;,|'\"<>(){}]*){0,3})+/"
    r"|\b[A-Za-z]:(?:\\[^\\:\"<>|\n]+)+\\"
)
# IPv6 or a MAC address, an IPv6 address with ::, and a card's id.
ADDRESS = re.compile(
    r"(?<![\w:.])(?:(?:[\da-fA-F]{1,4}:){3,7}[\da-fA-F]{1,4}"
    r"|[\da-fA-F]{3,4}(?::[\da-fA-F]{1,4})*::(?:[\da-fA-F]{1,4}(?::[\da-fA-F]{1,4})*)?)(?![\w:])"
    r"|\bGPU-[0-9a-f-]{36}"
)
# NVIDIA's libraries have versions that look like an address.
IPV4 = re.compile(
    r"(?P<version>(?:==|\b(?:cu(?:da|dnn|blas|fft|rand|solver|sparse)|nccl|version)\W{1,2}))?"
    r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\d|\.\d)",
    re.IGNORECASE,
)


def pack(folder: Path, parts: dict) -> Path:
    """Write the results and logs of the parts into one zip file, cleaned; returns its path.

    Other files in the folder are left out.
    """
    clean = cleaner()
    bundle = folder / "gpu-bench.zip"
    partial = bundle.with_suffix(".part")
    names = ["environment", *parts]
    measured = {given["recipe"] for function, given in parts.values() if function == "steps"}
    names += [f"weights-{recipe}" for recipe in sorted(measured)]
    paths = [folder / f"{name}.json" for name in names] + sorted(folder.glob("answers-*-*.json"))
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as file:
        for path in paths:
            if path.is_file():
                part = read_json(path, {"failed": "Its result cannot be read."})
                file.writestr(path.name, json.dumps(_each_text(part, clean), indent=1))
            if (log := path.with_suffix(".log")).is_file():
                file.writestr(log.name, clean(log.read_text(encoding="utf-8", errors="replace")))
    partial.replace(bundle)
    return bundle


def cleaner():
    """A function that takes secrets, folders, addresses, and the names of host and user out of a text.

    Secrets are the values of environment variables with such names, the token of the Hub, and what looks like
    a token. Of a path only its last name stays.
    """
    from huggingface_hub import get_token

    secrets = {value for name, value in os.environ.items() if SECRET.search(name) and len(value) > 5}
    secrets |= {token} if (token := get_token()) else set()
    host, user = socket.gethostname(), os.environ.get("USER", "")
    names = {host: "<host>", host.partition(".")[0]: "<host>", user: "<user>", Path.home().name: "<user>"}
    ordinary = {"", "root", *PACKAGES, *WAYS}  # words that results are made of
    secrets, names = secrets - ordinary, {name: said for name, said in names.items() if name not in ordinary}
    patterns = [(re.escape(secret), "<secret>") for secret in sorted(secrets, key=len, reverse=True)]
    ours = {Path.home(), Path.cwd(), PACKAGE.parent, Path(sys.prefix), Path(tempfile.gettempdir())}
    ours = sorted((str(path) for path in ours if path != Path("/")), key=len, reverse=True)
    patterns += [(re.escape(path), "/<folder>") for path in ours]  # with spaces, perhaps
    patterns += [(LOOKS_SECRET, "<secret>"), (FOLDERS, "<folder>/"), (ADDRESS, "<address>")]
    patterns += [(IPV4, lambda found: found[0] if found["version"] else "<address>")]
    patterns += [(rf"\b{re.escape(name)}\b", said) for name, said in names.items()]

    def clean(text: str) -> str:
        for pattern, said in patterns:
            text = re.sub(pattern, said, text)
        return text

    return clean


def _each_text(value, change):
    """A value of JSON in which each text has been changed, but no key, and no value of OURS."""
    if isinstance(value, dict):
        return {key: held if key in OURS else _each_text(held, change) for key, held in value.items()}
    if isinstance(value, list):
        return [_each_text(held, change) for held in value]
    return change(value) if isinstance(value, str) else value
