# In the environment .venv where there is one, else with what is on the PATH.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.PHONY: check test
check: ; ruff format --check . && ruff check . && mypy && lint-imports
test: ; python -m pytest
