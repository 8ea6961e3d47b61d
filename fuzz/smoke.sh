#!/bin/sh
# The fuzz targets in `make test`: some seconds each, from the committed corpus.
exec "$(dirname "$0")/run.sh" "${FUZZ_SECONDS:-3}"
