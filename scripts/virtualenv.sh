# For scripts/bench_all, scripts/demo and scripts/test, which source it at the root of the repository:
# finds a Python and makes .venv.

PYTHONS="python3.13 python3.12 python3.11 python3 python python3.14"

# Interpreters that pyenv has installed count, whichever it has switched on.
for bin in "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[1-4]*/bin; do
    if [ -d "$bin" ]; then PATH=$PATH:$bin; fi
done
export PATH

usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Prints the path of a Python >= 3.11, for the command named $1.
find_python() {
    local candidate found
    for candidate in $PYTHONS; do
        # Every hit on the PATH, since the first may be a shim that leads nowhere.
        while read -r found; do
            if usable "$found"; then
                echo "$found"
                return
            fi
        done < <(type -aP "$candidate" || true)
    done
    echo "$1: no Python >= 3.11 with venv found; install one (on Debian: apt-get install python3-venv)" >&2
    return 1
}

has_virtualenv() {
    usable .venv/bin/python
}

# Makes .venv with the interpreter $1, if it is not there, and brings pip into one that an
# interruption, or uv, left without.
make_virtualenv() {
    has_virtualenv || "$1" -m venv --clear .venv
    [ -x .venv/bin/pip ] || .venv/bin/python -m ensurepip --default-pip >/dev/null
}

HELP_WAS_SHOWN=100 # as in scripts/arguments.py

# Exits where the function parse of module $1 refuses the other arguments, or has shown help.
# Needs no environment: nothing is made or installed for a mistyped word.
check_arguments() {
    local checked=0 module=$1
    shift
    "$python" -B -c "from scripts.arguments import check; from $module import parse; check(parse)" "$@" ||
        checked=$?
    case $checked in
        0) ;;
        "$HELP_WAS_SHOWN") exit 0 ;;
        *) exit "$checked" ;;
    esac
}
