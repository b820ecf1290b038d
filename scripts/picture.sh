#!/usr/bin/env bash
# Takes the pictures of the demo that the documents show, from the running demo in Chromium.
set -euo pipefail
cd "$(dirname "$0")/.."
(cd tests/browser && npm ci --no-audit --no-fund --silent)
node tests/browser/picture.mjs docs
# To 256 colours: a third of the bytes, and no eye sees it.
pngquant --force --skip-if-larger --ext .png docs/demo.png docs/demo-dark.png
ls -l docs/demo.png docs/demo-dark.png
