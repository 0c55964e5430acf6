# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OLDEST := .venv-oldest

.PHONY: help install demo test test-slow test-oldest faults check lint coverage benchmarks clean slurm-up slurm-down

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(INSTALLED) ## create .venv with the pinned versions

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "megdet needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
	@echo 'megdet is installed in $(VENV), for this shell by: . $(BIN)/activate'

demo: $(INSTALLED) ## a small sweep by real training, the paper's tables of it, figures: all in demo/ (some minutes)
	mkdir -p demo
	cd demo && ../$(BIN)/megdet launch -m experiment=demo batch=8,32 bn_size=0,8 hydra/launcher=local_parallel
	cd demo && ../$(BIN)/megdet tables
	cd demo && ../$(BIN)/megdet figures
	@echo 'Go on in demo/:  . $(BIN)/activate && cd demo && megdet status'

test: $(INSTALLED) ## the tests that take seconds
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

lint: $(INSTALLED) ## format, style, types and the architecture's arrows
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

test-slow: $(INSTALLED) ## the others: whole runs, a real Slurm, MLflow server, browser and TeX
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

test-oldest: $(OLDEST)/.installed ## what needs torch, on the oldest torch and torchvision of pyproject.toml, in .venv-oldest
	$(OLDEST)/bin/python -m pytest -n 2 --dist loadfile -m "not slow" \
	  tests/model tests/training tests/trained tests/studies tests/data tests/benchmarks tests/test_check_equivalence.py

# Everything else is as pinned. NVIDIA's packages and Triton belong to a release of torch, which names its own.
$(OLDEST)/.installed: pyproject.toml constraints.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	grep -vE '^(torch|torchvision|triton|nvidia-[^=]*|cuda-[^=]*)==' constraints.txt > $(OLDEST)/constraints.txt
	sed -nE 's/^ *"(torch|torchvision)>=([0-9.]+)".*/\1==\2.*/p' pyproject.toml >> $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OLDEST)/constraints.txt -e '.[dev]'
	@touch $@

faults: $(INSTALLED) ## break runs on purpose, and see that nothing is lost (three hours on two cores; needs a Slurm)
	rm -f results/faults/told.jsonl
	MEGDET_KILLS=250 MEGDET_SLURM_KILLS=30 MEGDET_TIMES=5 MEGDET_RUNS=1000 MEGDET_TOLD=results/faults/told.jsonl \
	  $(BIN)/python -m pytest -s tests/faults tests/slurm/test_kills.py tests/slurm/test_many_runs.py
	$(BIN)/python -m tests.faults.confusion results/faults/told.jsonl

coverage: $(INSTALLED) ## `make test`, and how much of the code it reaches, other processes included: at least 96 %
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" --cov

check: lint coverage test-slow ## what CI runs

benchmarks: $(INSTALLED) ## ours and its peers, side by side (an hour on two cores; nothing else should run)
	$(BIN)/python -m benchmarks.start_up
	$(BIN)/python -m benchmarks.sweep_planning
	$(BIN)/python -m benchmarks.coco_eval
	$(BIN)/python -m benchmarks.eval_ranks
	$(BIN)/python -m benchmarks.read_data
	$(BIN)/python -m benchmarks.small_model
	for ranks in 2 4; do \
	  $(BIN)/python -m benchmarks.cgbn --ranks $$ranks && $(BIN)/python -m benchmarks.cgbn --ranks $$ranks --channels-last || exit 1; \
	done
	$(BIN)/python -m benchmarks.synced_step
	$(BIN)/python -m benchmarks.train_step --model r18_fpn --size 128 --images 4
	$(BIN)/python -m benchmarks.train_step --model r18_fpn --size 256 --images 4
	$(BIN)/python -m benchmarks.train_step --model r50_fpn --size 800 --images 1
	$(BIN)/python -m benchmarks.modules --model tiny --size 128 --images 8
	$(BIN)/python -m benchmarks.analysis
	$(BIN)/python -m benchmarks.mlflow_ui
	$(BIN)/python -m benchmarks.summary

clean: ## remove demo/ (nothing else: runs/ and results/ are yours)
	rm -rf demo

slurm-up: $(INSTALLED) ## a real Slurm of pretended nodes on this host (root; ARGS=--accounting for sacct)
	$(BIN)/python -m tests.slurm.cluster up $(ARGS)

slurm-down: $(INSTALLED) ## end it
	$(BIN)/python -m tests.slurm.cluster down
