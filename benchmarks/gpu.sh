#!/usr/bin/env bash
# The checks that need a CUDA device, within ten minutes: the tests marked gpu, then one race of
# encoding. Without such a device it says so and exits with 0. Needs the test group installed.
#
#   benchmarks/gpu.sh [FOLDER]     the results go to FOLDER, by default the current one
set -euo pipefail
output=$(realpath "${1:-.}")
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}

"$python" -c 'import torch, pytest'
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "This machine has no CUDA device: nothing was run."
  exit 0
fi
"$python" -c 'import torch; print(torch.cuda.get_device_name(), torch.__version__)'

code=0
timeout 300 "$python" -m pytest -m gpu -q -p no:cacheprovider || code=$?
if [ "$code" -eq 5 ]; then # pytest: no test was selected
  echo "No test is marked gpu."
  code=0
fi
timeout 240 "$python" benchmarks/encode.py --model mini --sentences 20000 --rounds 3 --max-length 128 \
  --only "simcse, auto" --only sentence-transformers --output "$output/encode-gpu.json" || code=$?
exit "$code"
