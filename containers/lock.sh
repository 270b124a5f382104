#!/usr/bin/env bash
# Write the lock files of the images: every package with the hashes of its files, none of torch's
# CUDA parts (they belong to its build, which is an argument of the images). UV=… names another uv.
set -euo pipefail
cd "$(dirname "$0")/.."
UV="${UV:-.venv/bin/uv}"
TORCH="${TORCH:-torch==2.13.0}"
common=(pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate
  --no-emit-index-url --no-emit-find-links)

compile() { "$UV" "${common[@]}" "$@"; }

mapfile -t without < <(echo "$TORCH" | compile - |
  sed -n -E 's/^(nvidia-[^=]+|cuda-[^=]+|triton)==.*/--no-emit-package=\1/p')
torch_is=$(mktemp)
trap 'rm -f "$torch_is"' EXIT
echo "$TORCH" > "$torch_is"
compile --upgrade --generate-hashes --constraint "$torch_is" --no-emit-package=torch "${without[@]}" \
  --extra wandb --output-file containers/requirements.lock pyproject.toml > /dev/null
echo 'hatchling>=1.26' | compile --upgrade --generate-hashes \
  --output-file containers/build.lock - > /dev/null
if grep -n -E '(https?|file)://|^-' containers/*.lock; then
  echo "an address got into the lock files" >&2
  exit 1
fi
grep -c '==' containers/*.lock
