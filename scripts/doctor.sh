#!/bin/sh
# Says what this machine lacks for building Shoal, one line each with the command that brings it, before anything
# else is done. Called by `make setup` with the Python to use; silent and 0 when nothing is missing.
set -u
python=$1
rust_minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
missing=0

lacks() { # what, the command that brings it
    echo "missing: $1 -- get it with: $2" >&2
    missing=1
}

package() { # Debian's name, what to say elsewhere
    if command -v apt-get >/dev/null 2>&1; then
        if [ "$(id -u)" = 0 ]; then echo "apt-get install -y $1"; else echo "sudo apt-get install -y $1"; fi
    else
        echo "your package manager ($2)"
    fi
}

if ! command -v "$python" >/dev/null 2>&1; then
    lacks "Python 3.11 or newer" "$(package 'python3 python3-venv' 'python3')"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    lacks "Python 3.11 or newer ($python is $("$python" -V 2>&1))" "make setup PYTHON=/path/to/python3.11"
elif ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
    lacks "Python's venv module" "$(package python3-venv 'python3 with venv and ensurepip')"
fi

if ! command -v cc >/dev/null 2>&1; then
    lacks "a C compiler (the Rust linker)" "$(package 'gcc libc6-dev' 'gcc')"
fi

rust_command="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
if ! command -v cargo >/dev/null 2>&1 || ! command -v rustc >/dev/null 2>&1; then
    if command -v rustup >/dev/null 2>&1; then
        lacks "a Rust toolchain" "rustup default stable"
    else
        lacks "Rust $rust_minimum or newer (cargo, rustc)" "$rust_command"
    fi
else
    found=$(rustc --version | sed 's/^rustc \([0-9.]*\).*/\1/')
    oldest=$(printf '%s\n%s\n' "$rust_minimum" "$found" | sort -V | head -n 1)
    if [ "$oldest" != "$rust_minimum" ]; then
        if command -v rustup >/dev/null 2>&1; then rust_command="rustup update stable"; fi
        lacks "Rust $rust_minimum or newer (found $found)" "$rust_command"
    fi
fi

exit $missing
