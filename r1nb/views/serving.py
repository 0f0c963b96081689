"""The lines that load, serve and share what a run has trained, with its own values filled in."""

import contextlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from r1nb.errors import UserError
from r1nb.machine.model_files import locate
from r1nb.paths import read_json, shown
from r1nb.policy.adapters import CONFIG
from r1nb.policy.cards import read_card
from r1nb.policy.usage import QUESTION, python_lines, to_quantize
from r1nb.recipes.loading import recipe_of_run
from r1nb.recipes.recipe import Recipe
from r1nb.runs.run import Run

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as --max-lora-rank
TOKENIZER = "tokenizer_config.json"
SERVER = "http://localhost:8000/v1/chat/completions"


class Lines(str):
    """Markdown that Jupyter renders."""

    def _repr_markdown_(self) -> str:
        return str(self)


def serving_lines(run, folder: Path | str | None = None, absolute: bool = False) -> Lines:
    """The lines for PEFT, vLLM, Ollama and the Hub, as Markdown.

    `folder` is that of merged weights; without it the run's own adapter or model is meant. Paths are relative
    to the current folder if they are near it, unless they are to be `absolute`. Raises UserError if the run
    has saved no weights.
    """
    card = read_card(run.trained)
    if card is None:
        raise UserError(f"{run.label} has saved no trained weights yet, so there is nothing to serve.")
    trained = Path(folder).expanduser().resolve() if folder else run.trained
    served = _Served(run, recipe_of_run(run), card.prompt, trained, str if absolute else shown)
    temperature = served.recipe.grpo.get("temperature", 1.0)
    intro = f"Answers are greedy (temperature 0), as in the evaluations; training sampled at {temperature:g}."
    parts = (intro, *served.transformers(), *served.vllm(), *served.ollama(), *served.hub())
    return Lines("\n\n".join(parts) + "\n")


def write_serving_lines(run) -> None:
    """Write serve.md into the run folder: the same lines with absolute paths."""
    with contextlib.suppress(OSError):  # on a full disk the run is finished without it
        (run.folder / "serve.md").write_text(serving_lines(run, absolute=True), encoding="utf-8")


@dataclass(frozen=True)
class _Served:
    """What is served: the weights in the folder `trained` of a run; `place` writes a path as text."""

    run: Run
    recipe: Recipe
    prompt: str  # with {question} in place of the question
    trained: Path
    place: Callable[[Path], str]

    @property
    def base(self) -> str | None:
        """The base model: its name on the Hub, folder or GGUF file; None if `trained` is a whole model."""
        name = self.recipe.model.model_name
        path = Path(name) if name.endswith(".gguf") else Path(locate(name)[0])
        known = self.place(path) if path.exists() else name
        return known if (self.trained / CONFIG).is_file() else None

    @property
    def merged(self) -> str:
        return self.place(self.run.folder / "merged" if self.base else self.trained)

    @property
    def tokenizer(self) -> str:
        own = self.base is None or (self.trained / TOKENIZER).is_file()  # older adapters have none
        return self.place(self.trained) if own else self.base

    @property
    def messages(self) -> list[dict]:
        return self.recipe.layout.build_messages(QUESTION)

    @property
    def most(self) -> int:
        return self.recipe.grpo["max_completion_length"]

    @property
    def in_4bit(self) -> bool:
        return self.base is not None and to_quantize(dict(self.recipe.model))

    def loaded(self, *imports: str) -> list[str]:
        path = json.dumps(self.place(self.run.folder), ensure_ascii=False)
        return ["from r1nb import load_trained", *imports, "", f"policy, _, _ = load_trained({path})"]

    def transformers(self) -> list[str]:
        trained = self.place(self.trained)
        lines = python_lines(self.base, trained, self.tokenizer, self.messages, self.most, self.in_4bit)
        return [f"**transformers{' and PEFT' if self.base else ''}**", _block("python", lines)]

    def vllm(self) -> list[str]:
        name, model, first = self.run.name, self.recipe.model, ""
        if self.base and not self.base.endswith(".gguf"):
            rank = next((rank for rank in RANKS if rank >= self.recipe.lora.r), self.recipe.lora.r)
            adapter = shlex.quote(f"{name}={self.place(self.trained)}")
            lines = [
                f"vllm serve {shlex.quote(self.base)}",
                f"--tokenizer {shlex.quote(self.tokenizer)}",
                f"--enable-lora --max-lora-rank {rank} --lora-modules {adapter}",
                *(["--quantization bitsandbytes"] if self.in_4bit else []),
            ]
            first = "`pip install vllm-bnb-plugin` for weights in 4 bits, then " * model.load_in_4bit
        else:
            first = "merge the adapter as under Ollama, then " if self.base else ""
            lines = [f"vllm serve {shlex.quote(self.merged)}", f"--served-model-name {shlex.quote(name)}"]
        dtype = f" --dtype {model.dtype}" if model.dtype else ""
        lines.append(f"--max-model-len {model.max_seq_length}{dtype}")
        body = {"model": name, "messages": self.messages, "max_tokens": self.most, "temperature": 0,
                "repetition_penalty": 1.0}  # fmt: skip
        ask = f"curl {SERVER} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
        return [
            f"**vLLM**: {first}start the server, then ask it from another terminal.",
            _block("sh", " \\\n  ".join(lines)),
            _block("sh", ask),
        ]

    def ollama(self) -> list[str]:
        save = self.loaded("from r1nb.policy import save_merged")
        save.append(f"save_merged(policy, {json.dumps(self.merged, ensure_ascii=False)})")
        file = f"{self.run.name}.gguf"
        convert = ["python", "llama.cpp/convert_hf_to_gguf.py", self.merged, "--outfile", file]
        create = ["ollama", "create", self.run.name, "-f", "Modelfile"]
        system = self.recipe.layout.system_prompt
        begin = read_json(self.trained / TOKENIZER, {}).get("bos_token") or ""  # llama.cpp adds it itself
        template = self.prompt.removeprefix(begin).replace(system, "{{ .System }}")
        template = template.replace("{question}", "{{ .Prompt }}").replace("{date}", "{{ currentDate }}")
        modelfile = [
            f"FROM ./{file}",
            f'TEMPLATE """{template}"""',
            f'SYSTEM """{system}"""',
            "PARAMETER temperature 0",
            "PARAMETER repeat_penalty 1.0",
            f"PARAMETER num_predict {self.most}",
            f"PARAMETER num_ctx {self.recipe.model.max_seq_length}",
        ]
        return [
            "**Ollama** (not tested): convert to GGUF with llama.cpp (github.com/ggml-org/llama.cpp); save "
            "the last block as `Modelfile`.",
            *([_block("python", *save)] if self.base else []),
            _block("sh", shlex.join(convert), shlex.join(create)),
            _block("", *modelfile),
        ]

    def hub(self) -> list[str]:
        push = f'policy.push_to_hub("YOUR-NAME/{self.run.name}")'
        return [
            "**Hugging Face Hub**: log in with `hf auth login` first. The repository is private; "
            "`private=False` makes it public.",
            _block("python", *self.loaded(), push),
        ]


def _block(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])
