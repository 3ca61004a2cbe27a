# Shared by the scripts of this project: paths, the server's operating-system user, private servers.
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
CARGO_PGRX_VERSION=$(sed -n 's/^pgrx = "=\(.*\)"/\1/p' "$ROOT/Cargo.toml")
PG_CONFIG=${PG_CONFIG:-pg_config}
export PG_CONFIG

# cargo is where rustup puts it, also for a shell that did not read its profile
case ":$PATH:" in *:"${CARGO_HOME:-$HOME/.cargo}/bin":*) ;; *) PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin ;; esac
# pgrx keeps nothing outside the build directory, and finds PostgreSQL through PG_CONFIG alone
export PGRX_HOME=$TARGET/pgrx

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' CYAN=$'\e[36m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' YELLOW='' CYAN='' PLAIN=''
fi

say() { printf '%s\n' "$*"; }
step() { printf '%s==>%s %s%s%s\n' "$CYAN" "$PLAIN" "$BOLD" "$*" "$PLAIN"; }
die() { printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2; exit 1; }

# PostgreSQL refuses to run as root: root's servers run as the package's user.
if [ "$(id -u)" = 0 ]; then
    SERVER_USER=postgres
    as_server() { (cd / && exec runuser -u "$SERVER_USER" -- "$@"); }
else
    SERVER_USER=$(id -un)
    as_server() { "$@"; }
fi

pg_major() { "$PG_CONFIG" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'; }

# Directory of the test programs that PostgreSQL installs for extensions: pg_regress, pg_isolation_regress.
pg_test_dir() { (cd "$(dirname "$("$PG_CONFIG" --pgxs)")/../test" && pwd); }

# Where private installations live: in the build directory, or, when the server's user cannot get there
# (a checkout below /root), in /var/tmp under a name that belongs to this checkout.
private_dir() {
    mkdir -p "$TARGET/postgres"
    if as_server test -x "$TARGET/postgres"; then
        say "$TARGET/postgres"
    else
        local dir
        dir=/var/tmp/rollup_ext.$(id -u).$(printf %s "$ROOT" | cksum | cut -d' ' -f1)
        mkdir -p -m 755 "$dir"
        [ -O "$dir" ] || die "$dir belongs to somebody else"
        say "$dir"
    fi
}

# private_pg NAME: a copy of the PostgreSQL behind PG_CONFIG, under NAME; prints its pg_config. PostgreSQL finds
# its files relative to its programs, so the copy runs by itself and the system's installation stays untouched.
private_pg() {
    local copy option dir
    copy=$(private_dir)/$1
    for option in --bindir --pkglibdir --sharedir --includedir-server; do
        dir=$("$PG_CONFIG" $option)
        mkdir -p "$copy$dir"
        cp -a --update --no-target-directory "$dir" "$copy$dir"
    done
    say "$copy$("$PG_CONFIG" --bindir)/pg_config"
}

# A TCP port nobody listens on; the server's socket carries its number.
free_port() {
    local port
    for port in $(seq "${1:-54320}" 65000); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { say "$port"; return; }
    done
    die "no free port"
}

# scratch_dir NAME: a new directory that belongs to the server's user and is closed to others.
scratch_dir() {
    local dir
    dir=$(mktemp -d "${TMPDIR:-/tmp}/rollup_ext.$1.XXXXXX")
    chmod 700 "$dir"
    [ "$(id -u)" != 0 ] || chown "$SERVER_USER" "$dir"
    say "$dir"
}

# server_start DIR [SETTING...]: a server with data, socket and log in DIR, made there at the first start, and
# PGHOST, PGPORT, PGUSER pointing to it. Programs are those of PG_CONFIG. Nobody but the owner of DIR can connect.
server_start() {
    local dir=$1 bin setting
    shift
    bin=$("$PG_CONFIG" --bindir)
    if [ ! -d "$dir/data" ]; then
        as_server "$bin/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 --no-locale >"$dir/initdb.log" ||
            die "initdb failed, see $dir/initdb.log"
        {
            say "listen_addresses = ''"
            say "port = $(free_port)"
            say "unix_socket_directories = '$dir'"
            say "shared_preload_libraries = 'rollup_ext'"
            for setting in "$@"; do say "$setting"; done
        } >>"$dir/data/postgresql.conf"
    fi
    as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -s start || {
        tail -20 "$dir/log" >&2
        die "the server in $dir did not start"
    }
    export PGHOST=$dir PGUSER=postgres PGDATABASE=postgres PGPORT
    PGPORT=$(sed -n 's/^port = //p' "$dir/data/postgresql.conf" | tail -1)
    PATH=$bin:$PATH
}

# server_remove DIR: stops the server in DIR, if it runs, and removes everything.
server_remove() {
    local dir=$1
    [ -d "$dir" ] || return 0
    if [ -f "$dir/data/postmaster.pid" ]; then
        as_server "$("$PG_CONFIG" --bindir)/pg_ctl" -D "$dir/data" -m immediate -w -s stop || true
    fi
    rm -rf "$dir"
}
