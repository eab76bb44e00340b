# The front door. Two commands: `make reproduce` and `make test`; both start from nothing.

.PHONY: reproduce test test-scale benchmarks readme environment clean
.SILENT:
# A system that forbids Python to keep compiled files makes every start seconds slower.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin

reproduce: environment
	PATH="$$PWD/$(BIN):$$PATH" snakemake --cores all --resources gpu=1 --quiet host
	echo
	echo "results: results/paper/results.md results/paper/results.csv"
	echo "figures:"
	ls results/paper/*.pdf results/paper/*.png

test: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	PATH="$$PWD/$(BIN):$$PATH" python workflow/lint.py
	PATH="$$PWD/$(BIN):$$PATH" python -m pytest

# Slow, and needs 8 GB of memory: a WavLM Base+ through all phases, LibriSpeech's number of files.
test-scale: environment
	PATH="$$PWD/$(BIN):$$PATH" python -m pytest -m slow tests/scale

# Half an hour, after `make reproduce`; nothing else should run. Replaces docs/benchmarks/.
benchmarks: environment
	mkdir -p docs/benchmarks
	for work in encoder similarity training "training --size sample" export superb \
		"loader results/corpora/queen.csv"; do \
		echo "benchmarks/$$work"; \
		set -- $$work; name=$$1; shift; \
		file=docs/benchmarks/$$name$$(echo "$$*" | sed -n 's/--size /-/p'); \
		$(BIN)/python benchmarks/$$name.py "$$@" --output $$file.json > $$file.txt || exit 1; \
	done

# Copies the last run's tables into the README and docs/sample/.
readme:
	$(BIN)/python workflow/readme.py

environment:
	sh workflow/environment.sh

clean:
	echo "removes .venv, .snakemake and all results, scratch files and logs; press Ctrl-C to keep them"
	sleep 5
	rm -rf .venv .snakemake results scratch logs benchmarks/snakemake
