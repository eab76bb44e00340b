# The front door. Two commands: `make reproduce` and `make test`; both start from nothing.

# Other targets: `make check` is a fast part of `make test`.

.PHONY: reproduce test check fuzz test-kills test-scale benchmarks readme docs environment clean
.SILENT:
# A system that forbids Python to keep compiled files makes every start seconds slower.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin

reproduce: environment
	PATH="$$PWD/$(BIN):$$PATH" snakemake --cores all --resources gpu=1
	echo
	echo "results: results/paper/results.md results/paper/results.csv"
	echo "figures:"
	ls results/paper/*.pdf results/paper/*.png
	echo
	PATH="$$PWD/$(BIN):$$PATH" python -m skill verdict

test: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	PATH="$$PWD/$(BIN):$$PATH" lint-imports
	OMP_NUM_THREADS=1 PATH="$$PWD/$(BIN):$$PATH" python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

FAST := test_cli.py test_surface.py config/test_params.py similarity/test_cka.py \
	similarity/test_clustering.py distillation/test_losses.py distillation/test_targets.py \
	distillation/test_gates.py distillation/test_pruning.py encoder/test_gating.py \
	superb/test_metrics.py training/test_loop.py utils/test_files.py utils/test_provenance.py

# Two minutes: style, types, imports, and the tests that need no training.
check: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$$PWD/$(BIN):$$PATH" lint-imports
	OMP_NUM_THREADS=1 PATH="$$PWD/$(BIN):$$PATH" python -m pytest --numprocesses 2 $(addprefix tests/,$(FAST))

# Ten minutes: the property tests with new examples, ten times (`make test` repeats the same ones).
fuzz: environment
	for run in 1 2 3 4 5 6 7 8 9 10; do \
		PATH="$$PWD/$(BIN):$$PATH" python -m pytest -q --hypothesis-profile fuzz tests/config/test_fuzz.py tests/test_mutated_files.py || exit 1; \
	done

# An hour: a run and its parts are killed at many moments, and must give the same results.
test-kills: environment
	PATH="$$PWD/$(BIN):$$PATH" python -m pytest -m slow tests/workflow/test_kills.py

# Slow, and needs 8 GB of memory: a WavLM Base+ through all phases, LibriSpeech's number of files.
test-scale: environment
	PATH="$$PWD/$(BIN):$$PATH" python -m pytest -m slow tests/scale

# Forty minutes, after `make reproduce`; nothing else should run. Replaces docs/benchmarks/. The
# peers are optional: `pip install pytorch-cka dtw-python`, PEER=FOLDER (a checkout of DPHuBERT).
benchmarks: DPHUBERT = $(if $(PEER),--peer "$(PEER)")
benchmarks: environment
	mkdir -p docs/benchmarks
	measure() { \
		file=docs/benchmarks/$$1; program=benchmarks/$$2.py; shift 2; \
		echo "$$program $$*"; \
		$(BIN)/python $$program "$$@" --output $$file.json > $$file.txt; \
	}; \
	measure encoder encoder --repeats 9 && \
	measure similarity similarity --peers pytorch-cka --rounds 4 && \
	measure training training --rounds 5 $(DPHUBERT) && \
	measure training-sample training --size sample --rounds 5 $(DPHUBERT) && \
	measure export export --repeats 9 && \
	measure superb superb && \
	measure loader loader results/corpora/queen.csv --rounds 1 --steps 20

# Copies the last run's tables into the README and docs/sample/. RUNS="DIR DIR" also makes the values
# anew that `skill verdict` expects, from this run and those, which other processors made.
readme:
	$(BIN)/python tools/readme.py
	$(if $(RUNS),$(BIN)/python tools/runs.py . $(RUNS))
	$(if $(RUNS),$(BIN)/python -m skill expect . $(RUNS) --output presets/expected/sample.csv)

# Keys of params.yaml (docs/params.md); pages of docs/ and of the docstrings, in site/.
docs: environment
	$(BIN)/python tools/reference.py
	$(BIN)/mkdocs build --strict --quiet
	echo "pages: site/index.html"

environment:
	sh tools/environment.sh

clean:
	echo "removes .venv, .snakemake and all results, scratch files and logs; press Ctrl-C to keep them"
	sleep 5
	rm -rf .venv .snakemake results scratch logs benchmarks/snakemake
