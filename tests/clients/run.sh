#!/bin/sh
# Runs the example clients and workers: see run.py.
exec python3 "$(dirname "$0")/run.py" "$@"
