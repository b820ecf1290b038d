# What one types. `make` alone lists it.

.DEFAULT_GOAL := help
.PHONY: help demo picture test autobahn fuzz chaos bench package try-package try-image

help:
	@echo 'make demo      two regions with a relay each, and a page to click and watch'
	@echo 'make picture   the pictures of it in docs, anew'
	@echo 'make test      install what the tests need and run them all'
	@echo 'make autobahn  the WebSocket protocol, by the suite that browsers are tested with'
	@echo 'make fuzz      each fuzz target for FUZZ_SECONDS (600)'
	@echo 'make chaos     random schedules of writes, faults and subscribers, until Ctrl-C'
	@echo 'make package   the Debian package'
	@echo 'make try-package  build, judge, install, upgrade and remove it, on a Debian in a folder'
	@echo 'make try-image  build the container image, run it alone and with compose.yaml'
	@echo 'make bench     mapping index, payload rendering, fan-out beside its floor, expiry'

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

bench:
	scripts/need.sh cargo server
	cargo bench

package:
	scripts/need.sh cargo
	@scripts/package.sh

try-package:
	scripts/try-package.sh

try-image:
	scripts/try-image.sh
