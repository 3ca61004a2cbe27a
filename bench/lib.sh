# Shared by the benchmarks: a private server with a release build, timed statements, medians, a table of ratios.
# shellcheck shell=bash

. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

REPS=${REPS:-3}
WORK_MEM=${WORK_MEM:-256MB}
# Where events end that the recipe counts too: by its arithmetic the last 150 microseconds of five minutes belong to the
# next five, and what is spread evenly between whole minutes stays clear of them.
UNTIL="date_trunc('minute', now())"

sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -d bench "$@"; }

# bench_server: builds, installs, starts, creates the database bench; everything goes when the script ends.
bench_server() {
    step "Building the extension (release)"
    mkdir -p "$TARGET"
    "$ROOT/scripts/build" release >"$TARGET/bench.build.log" 2>&1 || { tail -60 "$TARGET/bench.build.log"; die "the build failed"; }
    PG_CONFIG=$(private_pg bench)
    "$ROOT/scripts/install" release >/dev/null
    [ -f "$("$PG_CONFIG" --sharedir)/extension/hll.control" ] ||
        die "the peer is missing: install the package postgresql-$(pg_major)-hll"
    dir=$(scratch_dir bench)
    trap 'trap "" INT TERM PIPE; server_remove "$dir"' EXIT
    trap 'exit 130' HUP INT TERM PIPE
    server_start "$dir" "shared_buffers = 1GB" "work_mem = $WORK_MEM" "max_wal_size = 16GB" "checkpoint_timeout = 1h" \
        "autovacuum = off" "$@"
    psql -X -q -d postgres -c 'CREATE DATABASE bench'
    sql -c 'CREATE EXTENSION rollup_ext'
    say "    $(sql -c 'SHOW server_version'), work_mem $WORK_MEM, $REPS repetitions in turn, medians, $(nproc) CPUs"
}

# timed STATEMENT...: runs the statements in one session; the milliseconds of the last one
timed() {
    local statement arguments=()
    for statement in "$@"; do arguments+=(-c "$statement"); done
    psql -X -A -t -v ON_ERROR_STOP=1 -d bench -c '\timing on' "${arguments[@]}" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | tail -1
}

# record NAME MILLISECONDS, median NAME
declare -A TIMES
record() { TIMES[$1]="${TIMES[$1]:-} $2"; }
median() {
    printf '%s\n' ${TIMES[$1]:-} | sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "-" }'; }
