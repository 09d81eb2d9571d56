# make run: set up and run the main job. make test: set up and run the tests.
# make models: train the bundled model anew from the shared data, on one thread, for hours; goes on
# where it was cut off. Ends with whether its weights are those that are bundled, or how it scores.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

DATA := $(or $(SIMCSE_DATA),../shared/data)
START := $(or $(SIMCSE_MODELS),../shared/models)/minilm-l6-h384
TRAIN = $(BIN)/simcse train --output $(@D) --resume model.normalize=true optim.warmup=0.1 \
	precision=bf16 train.threads=1

.PHONY: run test check format docs clean models

run: $(STAMP)
	$(BIN)/simcse quickstart --output quickstart

# Two workers of one thread each: most tests wait for a process or use one thread anyway.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/ruff check --fix src tests benchmarks

docs: $(STAMP)
	$(BIN)/python docs/generate.py

models: models/mini/model.safetensors
	cmp $< src/simcse/bundled/mini/model.safetensors || $(BIN)/simcse evaluate sts $(<D) mini

models/next.tsv.gz: | $(STAMP)
	mkdir -p $(@D)
	$(BIN)/simcse data pairs $(DATA)/wiki/wiki_ordered.txt.gz --from neighbors --next 2 --output $@

models/nli.tsv.gz: | $(STAMP)
	mkdir -p $(@D)
	$(BIN)/simcse data nli $(DATA)/nli/nli_labelled.tsv.gz --positives entailment \
		--hard-negatives contradiction,neutral --every --output $@

models/neighbors/report.html: models/next.tsv.gz
	$(TRAIN) --model $(START) --train $< model.pooling=mean model.max_length=32 \
		optim.lr=3e-4 optim.batch_size=128 data.limit=80000 eval.every=100

SUPERVISED = $(TRAIN) --model models/neighbors/last --train $< model.pooling=mean_first_last \
	model.max_length=128 loss.matryoshka=256,128,64 optim.lr=2e-4 optim.batch_size=64 eval.every=274

models/plain/seeds.json: models/nli.tsv.gz models/neighbors/report.html
	$(SUPERVISED) --seeds 3

models/sharp/seeds.json: models/nli.tsv.gz models/neighbors/report.html
	$(SUPERVISED) --seeds 2 model.dropout=0.0 loss.temperature=0.02

models/mini/model.safetensors: models/sharp/seeds.json models/plain/seeds.json
	rm -rf $(@D)
	$(BIN)/simcse average models/sharp/seed-*/best models/plain/seed-*/best --output models/average
	$(BIN)/simcse sif models/average --fit $(DATA)/wiki/wiki1m.txt.gz --limit 100000 \
		--pooling mean_embedding_last --output models/sif
	$(BIN)/simcse export models/sif --to sentence-transformers --dtype fp16 --output $(@D)

# torch first and by itself: with the pinned build in place nothing else pulls another one in.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("simcse needs Python 3.10 or newer, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[serve,index,parquet,postgres]' --group test
	touch $@

clean:
	rm -rf .venv quickstart
