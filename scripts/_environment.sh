# shellcheck shell=bash
# Sourced by the other scripts (bash, in the top folder of the checkout): makes .venv with everything that the
# project and its tests need, and puts it first on PATH. Does nothing when nothing has changed.

_say() { echo "environment: $*" >&2; }

# The first Python that really runs and is new enough: a shim for python3.13 may be on PATH and fail when called.
_find_python() {
    local candidate
    while read -r candidate; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done < <(
        printf '%s\n' python3.14 python3.13 python3.12 python3
        printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 | sort --version-sort --reverse
    )
    cat >&2 <<'END'
environment: Python 3.12 or newer is needed, and none was found. Install one and try again:
  Debian 13, Ubuntu 24.04:  apt install python3 python3-venv
  Debian 12 (has 3.11):     pyenv install 3.13   or   uv python install 3.13, with ~/.local/bin on PATH
  macOS:                    brew install python
  Fedora:                   dnf install python3
END
    return 1
}

_make_venv() {
    local python
    python=$(_find_python) || return 1
    _say "making .venv with $("$python" --version) ($(command -v "$python"))"
    rm -rf .venv
    "$python" -m venv .venv >"$_log" 2>&1 && return
    # Debian without python3-venv: no ensurepip, but perhaps a pip that can serve another Python
    rm -rf .venv
    "$python" -m venv --without-pip .venv >>"$_log" 2>&1 &&
        "$python" -m pip --python .venv/bin/python install pip >>"$_log" 2>&1 && return
    rm -rf .venv
    _say "a virtual environment could not be made: install python3-venv, or python3-pip, and try again ($_log)."
    return 1
}

# Its noise goes to the log; on a terminal one line shows where it is.
_pip() {
    .venv/bin/python -m pip install --no-input --disable-pip-version-check --progress-bar off "$@" 2>&1 | tee -a "$_log" |
        while read -r word name _; do
            if [[ -t 2 && $word == Collecting ]]; then printf '\r\033[Kenvironment: collecting %s' "$name" >&2; fi
        done
    local status=${PIPESTATUS[0]}
    if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
    return "$status"
}

_install() {
    _say "installing the project and its tools; the first time takes a minute or two (log: $_log)"
    # --group needs pip 25.1
    if _pip --upgrade 'pip>=25.1' && _pip --constraint constraints.txt --editable ".[all]" --group dev; then return; fi
    tail -n 15 "$_log" >&2
    _say "pip failed; its last lines are above, all of them in $_log"
    return 1
}

_set_up() {
    local stamp=.venv/stamp want started=$SECONDS
    _log=$PWD/.cache/environment.log
    mkdir -p .cache
    want="$PWD $(cat pyproject.toml constraints.txt | cksum)"
    # a checkout that was moved or copied: the programs in .venv name the old place
    if [[ -f $stamp && $(<"$stamp") != "$PWD "* ]]; then rm -rf .venv; fi
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then _make_venv || return 1; fi
    if [[ ! -f $stamp || $(<"$stamp") != "$want" ]]; then
        rm -f "$stamp"
        _install || return 1
        echo "$want" >"$stamp"
        _say "ready after $((SECONDS - started)) s"
    fi
}

_set_up || exit 1
export PATH="$PWD/.venv/bin:$PATH"
