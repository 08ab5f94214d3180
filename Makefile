# Holdfast.  Two commands do everything on a fresh Debian 12 as root: `make demo` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Debian's own Python, whatever comes first in PATH: routers have no other.
SYSTEM_PYTHON := /usr/bin/python3
PYTHON := .venv/bin/python
UV_VERSION = $(shell sed -n '/^name = "uv"$$/{n;s/.*"\(.*\)"/\1/p}' uv.lock)
PYTEST := $(PYTHON) -m pytest -q
ONLY ?=

export DEBIAN_FRONTEND := noninteractive
export UV_PYTHON_DOWNLOADS := never

.PHONY: help
help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 10

.PHONY: demo
demo: setup  ## a router, a guest and the outside world on this machine: watch commands take effect (root)
	@$(PYTHON) -m holdfast.lab.demo

.PHONY: test
test: check lab  ## everything that has to pass: check, then the lab (root)

# Their files are in memory: what they sync, to have the order of things right, would cost a third of their time on a disk.
.PHONY: check
check: setup  ## lint, types and the tests that need neither root nor a network
	@echo "== ruff, mypy, pure tests"
	@.venv/bin/ruff check --quiet
	@.venv/bin/ruff format --check --quiet
	@.venv/bin/mypy --no-error-summary
	@PYTEST_DEBUG_TEMPROOT=/dev/shm $(PYTEST) -n 2 --dist worksteal -m "not lab and not soak"

.PHONY: lab
lab: setup  ## the tests that build routers out of namespaces (root)
	@echo "== lab tests"
	@$(PYTEST) -n 4 --dist loadfile --no-loadscope-reorder -m "lab and not soak and not alone and not appliance" tests/lab
	@$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "lab and not soak and alone and pair and not appliance" tests/lab
	@$(PYTEST) -m "lab and not soak and alone and not pair and not appliance" tests/lab

.PHONY: appliance
appliance: setup  ## whole stories: the demo, packages, upgrades, adoption of other machines (root)
	@$(PYTEST) -m "appliance and not soak" tests/lab

.PHONY: soak
soak: setup imaging  ## every test with full counts and repetitions, for hours; ONLY=tests/lab/test_pair.py for a part (root)
	@HOLDFAST_SOAK=1 $(PYTEST) $(ONLY)

.PHONY: bench
bench: setup  ## measure; ONLY=name for one benchmark (root)
	@$(PYTHON) bench/run.py $(ONLY)

.PHONY: deb
deb: setup  ## the Debian packages, in build/: amd64 and arm64, the same bytes each time, and what lintian says of them
	@command -v lintian >/dev/null || { echo "== installing lintian"; apt-get -qq update; \
	  apt-get -qq install --yes --no-install-recommends lintian >/dev/null; }
	@$(PYTHON) packaging/build.py --out build
	@lintian --allow-root --display-info --fail-on error,warning,info --tag-display-limit 0 build/holdfast_*.deb

.PHONY: image
image: setup imaging  ## the router VM, in build/: a root file system (tar) and a disk that boots (qcow2), amd64 (root)
	@$(PYTHON) packaging/image.py --out build

# What makes a disk that boots, and the machine that the test boots it in.
.PHONY: imaging
imaging:
	@[[ -x /usr/bin/qemu-img && -x /usr/bin/qemu-system-x86_64 && -x /sbin/mke2fs && -x /usr/bin/grub-mkimage && \
	  -f /usr/lib/grub/i386-pc/boot.img ]] || { \
	  echo "== installing qemu and grub's images"; apt-get -qq update; \
	  apt-get -qq install --yes --no-install-recommends qemu-utils qemu-system-x86 grub-common grub-pc-bin e2fsprogs >/dev/null; }

.PHONY: setup
setup: packages .venv/.synced  ## install what is missing: Debian packages and .venv; quick when all is there

# Asked each time and not kept as a stamp: a package that somebody removed is noticed.
.PHONY: packages
packages:
	@if ! $(SYSTEM_PYTHON) -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
	  echo "== installing python3-venv"; apt-get -qq update; \
	  apt-get -qq install --yes --no-install-recommends python3 python3-venv ca-certificates >/dev/null; fi
	@PYTHONPATH=src $(SYSTEM_PYTHON) -c 'from holdfast.lab.requirements import install; install()'

.venv/.synced: pyproject.toml uv.lock
	@echo "== making .venv: uv $(UV_VERSION) and what uv.lock names"
	@[[ -x $(PYTHON) ]] || $(SYSTEM_PYTHON) -m venv .venv
	@[[ -x .venv/bin/uv ]] || $(PYTHON) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@.venv/bin/uv sync --frozen --quiet
	@touch $@

.PHONY: sweep
sweep:  ## remove every namespace, mount and process that a lab has left behind (root)
	@PYTHONPATH=src $(SYSTEM_PYTHON) -c 'from holdfast.lab.ledger import sweep; [print("removed lab", name) for name in sweep()]'

.PHONY: clean
clean:  ## remove .venv and everything that was built
	@rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find src tests bench -name __pycache__ -prune -exec rm -rf {} +
