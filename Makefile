# The two commands of the README are `make demo` and `make test`; each works on a fresh clone with Python 3.11+.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Busy neighbours make spinning OpenMP threads ten times slower; yielding costs nothing measurable.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test lint bench reproduce reproduce-ulicny leaderboard search-mlp search-cnn certify-mlp clean
demo: $(STAMP)
	$(BIN)/noiseopt demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Hours on two cores; stop it when you like, it goes on. The images come from NOISEOPT_DATA, or by download.
TABLES ?= table3 figure3 why table4
reproduce: $(STAMP)
	$(BIN)/noiseopt reproduce $(TABLES)
	for table in $(TABLES); do $(BIN)/noiseopt publish runs/$$table results/mnist || exit 1; done
	$(BIN)/noiseopt replication results/mnist -o docs/replication.md

# The second paper; hours, too.
ULICNY ?= ulicny-search ulicny-table2 ulicny-clean ulicny-figures ulicny-figure8
reproduce-ulicny: $(STAMP)
	$(BIN)/noiseopt reproduce $(ULICNY)
	for table in $(ULICNY); do $(BIN)/noiseopt publish runs/$$table results/ulicny || exit 1; done
	$(BIN)/noiseopt replication results/ulicny -o docs/replication-ulicny.md
	test -d studies/figure8 || $(BIN)/noiseopt study create figure8
	$(BIN)/noiseopt study analyse studies/figure8 --networks-only
	mkdir -p results/ulicny/figure8-study
	cp studies/figure8/analysis/accuracy-networks-only.csv studies/figure8/analysis/analysis-networks-only.json results/ulicny/figure8-study
	cp studies/figure8/analysis/figure8-networks-only.png docs/figures/study-networks-only.png

# Which noise helps: settings chosen on validation images, then trained, audited, proved, published, ranked. A pass of the
# convolutional networks takes a hundred of the MLP's: fewer images, draws and queries.
BOARDS ?= leaderboard-mlp leaderboard-cnn leaderboard-lenet leaderboard-cifar10
SETTINGS := $(filter leaderboard-mlp-settings leaderboard-cnn-settings leaderboard-lenet-settings,$(BOARDS:%=%-settings))
QUICKER := --images 300 --draws 1,5,20 --queries 100
AUDIT_leaderboard-mlp := --seeds 0,1,2
AUDIT_leaderboard-cnn := --seeds 0,1,2,3,4 $(QUICKER)
AUDIT_leaderboard-lenet := --seeds 0,1,2 $(QUICKER)
AUDIT_leaderboard-cifar10 := --seeds 0,1,2
leaderboard: $(SETTINGS:%=settings-%) $(BOARDS:%=board-%)
	$(BIN)/noiseopt leaderboard results/leaderboard -o docs/leaderboard.md

settings-%: $(STAMP)
	$(BIN)/noiseopt reproduce $*
	$(BIN)/noiseopt publish runs/$* results/leaderboard

board-leaderboard-mlp: search-mlp
board-leaderboard-cnn: search-cnn
board-%: $(STAMP)
	$(BIN)/noiseopt reproduce $*
	for noise in "" --noise-off; do \
	  $(BIN)/noiseopt audit runs/$* $(AUDIT_$*) $$noise || [ $$? -eq 3 ] || exit 1; done
	$(if $(filter leaderboard-mlp,$*),$(MAKE) certify-mlp)
	$(BIN)/noiseopt publish runs/$* results/leaderboard
	$(BIN)/python -m benchmarks.training_cost $* --json results/leaderboard/$*/cost.json

# The proofs of docs/which-noise.md.
certify-mlp: $(STAMP)
	$(BIN)/noiseopt certify runs/leaderboard-mlp --seeds 0,1,2 --images 500 --draws 10000 --row "smoothing 0.25" \
	  --row "smoothing 0.5" --row "smoothing 0.75" --row "smoothing 1.0" --row "pixels, 0.3"

# The fixed noise of every layer that trying finds, up to 12 and up to 32.
search-mlp: $(STAMP)
	$(BIN)/noiseopt search leaderboard-mlp --row "fixed 1.0" --trials 40 --highest 12
	cp runs/leaderboard-mlp-search/fixed-1-0/best.yaml results/leaderboard/search-mlp.yaml
	$(BIN)/noiseopt search leaderboard-mlp --row "fixed 1.0" --trials 40 --highest 32 --runs-dir runs/wide
	cp runs/wide/leaderboard-mlp-search/fixed-1-0/best.yaml results/leaderboard/search-mlp-wide.yaml

search-cnn: $(STAMP)
	$(BIN)/noiseopt search leaderboard-cnn --row "fixed 0.5" --trials 16 --images 200 --highest 2
	cp runs/leaderboard-cnn-search/fixed-0-5/best.yaml results/leaderboard/search-cnn.yaml

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -m noiseopt.warm
	touch $(STAMP)

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache
