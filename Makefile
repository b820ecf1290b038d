# What one types. `make` alone lists it.

.DEFAULT_GOAL := help
.PHONY: help demo picture test autobahn fuzz chaos bench bench-check bench-growth package try-package try-image

help:
	@echo 'make demo      two regions with a relay each, and a page to click and watch'
	@echo 'make picture   the pictures of it in docs, anew'
	@echo 'make test      install what the tests need and run them all'
	@echo 'make autobahn  the WebSocket protocol, by the suite that browsers are tested with'
	@echo 'make fuzz      each fuzz target for FUZZ_SECONDS (600)'
	@echo 'make chaos     random schedules of writes, faults and subscribers, until Ctrl-C'
	@echo 'make bench-growth  how it grows with subscribers, channels, mappings, rate and size, as pictures in docs/performance'
	@echo 'make package   the Debian package'
	@echo 'make try-package  build, judge, install, upgrade and remove it, on a Debian in a folder'
	@echo 'make try-image  build the container image, run it alone and with compose.yaml'
	@echo 'make bench     what keyrelay costs beside the least that its work can cost, in ten minutes'
	@echo 'make bench-check  the same, held against what is recorded in benches/recorded.json'

demo:
	@scripts/need.sh cargo server
	@cargo build
	@scripts/built.sh demo

picture:
	scripts/need.sh cargo server node chromium fonts pngquant
	cargo build
	scripts/picture.sh

test:
	scripts/need.sh cargo server node chromium ruby proxies rails suites systemd pages promtool
	KEYRELAY_TEST_PROMTOOL=1 KEYRELAY_TEST_RUBY=1 KEYRELAY_TEST_SYSTEMD=1 KEYRELAY_TEST_PAGES=1 KEYRELAY_MODEL_SECONDS=300 cargo test
	cargo build
	cd tests/browser && npm ci --no-audit --no-fund && KEYRELAY_TEST_RAILS=1 KEYRELAY_TEST_SUITES=1 npm test
	@cat target/model.txt

autobahn:
	scripts/need.sh cargo
	scripts/autobahn.sh

fuzz:
	scripts/need.sh cargo c++
	scripts/fuzz.sh

# KEYRELAY_TEST_SERVER names the server, KEYRELAY_MODEL_SCHEDULES a number after which to stop. Seeds and outcomes are
# added to target/chaos.
chaos:
	scripts/need.sh cargo server
	cargo test --profile chaos --test model -- --ignored --exact chaos --nocapture

# BENCH has further arguments, as the names of the cases that are wanted or `--peer SCRIPT` (docs/performance.md). The other
# benches are `cargo bench --bench mapping`, `payload` and `expiry`.
bench:
	scripts/need.sh cargo server measuring
	cargo bench --bench wire -- --json $(CURDIR)/target/bench.json $(BENCH)

bench-check:
	scripts/need.sh cargo server measuring
	cargo bench --bench wire -- --json $(CURDIR)/target/bench.json --check $(CURDIR)/benches/recorded.json $(BENCH)

bench-growth:
	scripts/need.sh cargo server
	cargo bench --bench wire -- growth --plots $(CURDIR)/docs/performance --json $(CURDIR)/target/bench-growth.json

package:
	scripts/need.sh cargo
	@scripts/package.sh

try-package:
	scripts/try-package.sh

try-image:
	scripts/try-image.sh
