# shellcheck shell=bash
# Sourced after _environment.sh by scripts/test --lowest: an environment in .cache/lowest with the lowest version of each
# direct dependency that pyproject.toml allows (and the newest of all others that goes with them), first on PATH.
source scripts/_release.sh

_oldest_python() {
    local candidate
    for candidate in python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3 .venv/bin/python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
}

_install_lowest() {
    local uv=.cache/release/bin/uv python
    python=$(_oldest_python)
    _say "installing the lowest versions into .cache/lowest with $("$python" --version)"
    "$uv" venv --quiet --clear --no-project --no-python-downloads --python "$python" .cache/lowest &&
        "$uv" pip compile --quiet --no-header --no-annotate --resolution lowest-direct --extra all \
            --python .cache/lowest/bin/python --output-file .cache/lowest/lowest.txt pyproject.toml &&
        "$uv" pip install --quiet --python .cache/lowest/bin/python --constraint .cache/lowest/lowest.txt \
            --editable '.[all]' --group dev
}

_install_lowest || { _say "the lowest versions cannot be installed; uv says why above" && exit 1; }
export PATH="$PWD/.cache/lowest/bin:$PATH"
python -m scripts.versions
