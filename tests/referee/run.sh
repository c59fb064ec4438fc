#!/bin/sh
# Checks the public referee, then holds the pool against it: see check.py and vendors.py.
set -e
here=$(dirname "$0")
python3 -c 'import ensurepip, venv' 2>/dev/null || {
  echo "skipped: python3 with venv is not on this machine, and the referee is installed into one (apt-get install python3-venv)"
  exit 0
}
python3 "$here/check.py"
exec python3 "$here/vendors.py" "$@"
