# make demo, make test: each makes its environment in .venv first, if it is not there. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
SOURCES := pyproject.toml constraints.txt CMakeLists.txt $(wildcard csrc/*)
# An editable install knows its modules by name, so a stamp of what is installed holds for one list of modules.
MODULES := $(shell find src -name '*.py' | LC_ALL=C sort | cksum | cut -d' ' -f1)
DEMO := $(VENV)/.demo-$(MODULES)
TEST := $(VENV)/.test-$(MODULES)
# The constraints hold for what the build needs as well; pip has called that setting by two names.
INSTALL := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 \
	$(RUN) -m pip install --quiet -c constraints.txt --editable

.PHONY: help demo test environment clean

help:         ## this list
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(DEMO)  ## the main job on a real record: learn, score, report, run live
	@$(VENV)/bin/segue demo

test: $(TEST)  ## everything that is checked before a change goes in: scripts/check
	@scripts/check

environment: $(TEST)  ## .venv with the package (editable) and all that the tests need

clean:        ## remove the environment and what tools left behind; runs stay
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"segue needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(DEMO): $(VENV)/bin/python $(SOURCES)
	@echo "installing segue into $(VENV) (torch is large: a few minutes on a slow line)"
	@$(INSTALL) '.[demo]'
	@touch $@

$(TEST): $(VENV)/bin/python $(SOURCES)
	@echo "installing segue and the tools of its tests into $(VENV)"
	@$(INSTALL) '.[demo,test]'
	@touch $@ $(DEMO)
