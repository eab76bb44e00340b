#!/bin/sh
# Make .venv with the exact versions of requirements.lock; does nothing where that is done already.
# The CPU build of torch comes through pip's configured links, where there is no NVIDIA GPU.
set -u
stamp=.venv/complete
made_of=$( (cat pyproject.toml requirements.lock; pwd) | cksum)
[ "$(cat $stamp 2>/dev/null)" = "$made_of" ] && .venv/bin/python -c "" 2>/dev/null && exit 0

stop() {
    echo "error: $1" >&2
    exit 1
}

python=
for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || stop "Python 3.11.5 or newer is missing (Debian 12 has 3.11.2): apt install python3.12 python3.12-venv where there is one, or make PYTHON=/path/to/a/newer/python"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    stop "Python's venv module is missing: apt install python3-venv (or python3.11-venv), or make PYTHON=/path/to/another/python3.11"

need=10000 # with CUDA's libraries
hint=
gpu=
if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
    gpu=yes
    PIP_FIND_LINKS= && export PIP_FIND_LINKS # links to CPU builds would win over the CUDA build
elif [ -n "${PIP_FIND_LINKS:-}${PIP_EXTRA_INDEX_URL:-}" ] ||
    "$python" -m pip config list 2>/dev/null | grep -qE 'find-links|extra-index'; then
    need=3000
else
    hint=" (3 GB with torch's CPU build: set PIP_EXTRA_INDEX_URL to where torch's page of installation says that it is)"
fi
free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1024) }')
[ -x .venv/bin/snakemake ] || [ "$free" -ge $need ] ||
    stop "$((need / 1000)) GB of disk space are needed here for the Python packages$hint, $free MB are free: make room, or clone to another disk"

mkdir -p logs
log=logs/environment.log
echo "installing Python packages into .venv (a minute or two; log: $log)"
clear=
grep -qF "$PWD/.venv" .venv/pyvenv.cfg 2>/dev/null || clear=--clear # a moved one names its old place
# shellcheck disable=SC2086
"$python" -m venv $clear .venv >"$log" 2>&1 || stop "the virtual environment .venv could not be made: remove .venv and try again; see $log"
.venv/bin/python -m pip install --no-compile --disable-pip-version-check \
    -e '.[dev]' -c requirements.lock >>"$log" 2>&1 ||
    stop "the Python packages could not be installed: check the network (or pip's index and proxy settings) and the disk space, then run the same command again; $log ends with: $(tail -n 1 "$log")"

# torchaudio's compiled libraries need CUDA; without them what is used of it works on a CPU, with
# them neither torchaudio nor transformers could be imported.
.venv/bin/python - "$gpu" <<'END' || stop "torch does not start: see above; remove .venv and try again"
import importlib.util, pathlib, sys, torch

if torch.version.cuda is None:
    if sys.argv[1]:
        print(
            "warning: there is an NVIDIA GPU, but pip found torch's CPU build first: to use the GPU, "
            "unset PIP_EXTRA_INDEX_URL, remove .venv and run the same command again",
            file=sys.stderr,
        )
    package = pathlib.Path(importlib.util.find_spec("torchaudio").origin).parent
    for library in (package / "lib").glob("*.so"):
        library.unlink()
END
echo "$made_of" >$stamp
