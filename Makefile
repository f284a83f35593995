# make demo [PROMPT="..."]         install, generate with the small model of the repository, write a page with the samples
# make app                         install, open a web page to generate with the same model
# make train-demo [PROMPT="..."]   install, train small models on rendered music, generate with them
# make test                        install, lint, type-check, check the imports, run the tests

PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
PROMPT ?= slow and gentle piano in a major key
# Recipes take the prompt from the environment: the shell and make do not interpret quotes, backticks and $ in it.
override PROMPT := $(value PROMPT)
export PROMPT
BIN = $(VENV)/bin
INSTALLED = $(VENV)/installed
APP = $(VENV)/app
RENDERING = $(VENV)/rendering
TESTABLE = $(VENV)/testable
DEMO = results/demo
DEMO_HOURS ?= 0.5
MODEL = demo/configs/model.json
TRAINING = demo/configs/training.json
TRAIN = --model_config $(MODEL) --training_config $(TRAINING) --overwrite
TOKENIZERS = --rvq_path $(DEMO)/clap_rvq --kmeans_path $(DEMO)/hubert_kmeans

.PHONY: install demo app train-demo test lint clean
.DELETE_ON_ERROR:

install: $(INSTALLED)

$(INSTALLED): setup.py constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.10 to 3.13 is needed; name it with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --constraint constraints.txt --editable .
	touch $@

$(APP): $(INSTALLED)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[app]"
	touch $@

$(RENDERING): $(INSTALLED)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[demo]"
	$(BIN)/python -m pip install --constraint constraints.txt --no-deps tinysoundfont pretty_midi
	touch $@

$(TESTABLE): $(RENDERING)
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[analyze,app,laion,evaluate,test,lint]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/python demo/generate.py "$$PROMPT" --results_folder $(DEMO)/generated

app: $(APP)
	$(BIN)/python scripts/app.py --checkpoint_dir demo/bundle

train-demo: $(DEMO)/coarse/done
	$(BIN)/python scripts/infer_top_match.py "$$PROMPT" --num_samples 4 --num_top_matches 2 --duration 4 \
		--model_config $(MODEL) $(TOKENIZERS) --semantic_path $(DEMO)/semantic --coarse_path $(DEMO)/coarse \
		--results_folder $(DEMO)/generated_by_own

$(DEMO)/corpus/done: | $(RENDERING)
	$(BIN)/python scripts/make_demo_corpus.py --output $(DEMO)/corpus --hours $(DEMO_HOURS) --seed 0
	touch $@

$(DEMO)/clap_rvq/done: $(DEMO)/corpus/done $(MODEL)
	$(BIN)/python scripts/train_clap_rvq.py --results_folder $(DEMO)/clap_rvq $(TRAIN)
	touch $@

$(DEMO)/hubert_kmeans/done: $(DEMO)/clap_rvq/done
	$(BIN)/python scripts/train_hubert_kmeans.py --results_folder $(DEMO)/hubert_kmeans $(TRAIN)
	rm -rf $(DEMO)/tokens # made with other tokenizers, if there are any
	touch $@

$(DEMO)/tokens/done: $(DEMO)/hubert_kmeans/done
	$(BIN)/python scripts/preprocess_data.py --model_config $(MODEL) --training_config $(TRAINING) $(TOKENIZERS)
	touch $@

$(DEMO)/semantic/done: $(DEMO)/tokens/done
	$(BIN)/python scripts/train_semantic_stage.py --results_folder $(DEMO)/semantic $(TRAIN) $(TOKENIZERS)
	touch $@

$(DEMO)/coarse/done: $(DEMO)/semantic/done
	$(BIN)/python scripts/train_coarse_stage.py --results_folder $(DEMO)/coarse $(TRAIN) $(TOKENIZERS)
	touch $@

lint: $(TESTABLE)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(TESTABLE) lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

clean:
	rm -rf $(DEMO)
