# What one types. `make` alone lists it.

.DEFAULT_GOAL := help
.PHONY: help demo test bench

help:
	@echo 'make demo    a throwaway server, the relay in front, and a page to watch'
	@echo 'make test    install what the tests need and run them all'
	@echo 'make bench   mapping index, payload rendering, fan-out beside its floor'

demo:
	@scripts/need.sh cargo server
	@cargo build --quiet
	@scripts/built.sh demo

test:
	scripts/need.sh cargo server node chromium
	cargo test
	cargo build
	cd tests/browser && npm ci --no-audit --no-fund && npm test

bench:
	scripts/need.sh cargo server
	cargo bench
