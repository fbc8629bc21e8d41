# shellcheck shell=bash
# Sourced after _environment.sh by the scripts that release: the group "release" of pyproject.toml, in .cache/release.

_release_tools() {
    local stamp=.cache/release/stamp want
    want="$PWD $(cat pyproject.toml constraints.txt | cksum)"
    [[ -f $stamp && $(<"$stamp") == "$want" ]] && return
    _say "installing the tools of a release into .cache/release"
    rm -rf .cache/release
    if ! { python -m venv --without-pip .cache/release &&
        python -m pip --python .cache/release/bin/python install --quiet --no-input --disable-pip-version-check \
            --constraint constraints.txt --group release; } >>.cache/environment.log 2>&1; then
        _say "pip failed; see .cache/environment.log"
        return 1
    fi
    echo "$want" >"$stamp"
}

_release_tools || exit 1
