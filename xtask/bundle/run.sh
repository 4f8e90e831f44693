#!/bin/sh
# Checks and measures unimse on this machine's GPU: ./run.sh [--cpu] [--out FOLDER] [--rounds N] [--threads N] [--only TEXT]
#
# Needs python3 with torch 2.11, and an NVIDIA driver unless --cpu is given, which runs everything at tiny sizes to see that it works.
# With transformers, Hugging Face's T5 is measured beside; where it is missing, it is fetched into this folder if there is a network.
# Writes results.json and log.txt into FOLDER (default: results beside this file). PYTHON names another python3.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}
lib=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "lib")') || {
    echo "error: $python has no torch; hint: $python -m pip install torch==2.11.0, or PYTHON=... $0" >&2
    exit 1
}
# The programs look for libtorch here before the places they were built with.
export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$python" -u "$here/gpu_bench.py" "$@"
