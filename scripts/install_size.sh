#!/usr/bin/env bash
# How large an installation is: packages and megabytes in a fresh virtual environment, torch and what it brings aside.
#
#     scripts/install_size.sh                    this checkout
#     scripts/install_size.sh ".[corpora]"       with an extra
#     TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu" scripts/install_size.sh
set -euo pipefail

what=${1:-.}
venv=$(mktemp -d)
trap 'rm -rf "$venv"' EXIT
python3 -m venv "$venv"
size() { du -sm "$venv" | cut -f1; }
count() { "$venv/bin/pip" list --format freeze --exclude pip --exclude setuptools | wc -l; }

# shellcheck disable=SC2086
"$venv/bin/pip" install --quiet ${TORCH:-torch}
packages=$(count) megabytes=$(size)
"$venv/bin/pip" install --quiet "$what"
echo "$what: $(($(count) - packages)) packages and $(($(size) - megabytes)) MB beside torch ($packages packages, $megabytes MB)"
