#!/usr/bin/env bash
# Runs a program for Windows under Wine.
#
# Wine 8.0 ends the other threads of a process that exits by SIGQUIT. Now and then that signal ends
# the process itself, after libtest has told that every test passed: in 4 of 20 runs of a program
# with 16 tests, and in none where each test ran alone. Such a run counts as what libtest told. A
# program that a signal ends before that, or by another signal, has failed.
#
# Once, behind such a run, the next program was not started at all: Wine's server, which they share,
# had closed the connection. So a program that never began, for that reason, is started again.
set -uo pipefail

WINE=/usr/lib/wine/wine64
KILLED_BY_SIGQUIT=131

told=$(mktemp)
complaint=$(mktemp)
trap 'rm -f "$told" "$complaint"' EXIT

run() {
    "$WINE" "$@" 2> >(tee "$complaint" >&2) | tee "$told"
    status=${PIPESTATUS[0]}
}

was_refused() {
    [[ $status -ne 0 && ! -s $told ]] || return 1
    # `tee` may still be writing.
    sleep 1
    grep -q '^wine client error:0: .*Connection reset by peer' "$complaint"
}

run "$@"
if was_refused; then
    echo "Wine's server closed the connection before the program began; once more" >&2
    run "$@"
fi
if [[ $status -eq $KILLED_BY_SIGQUIT ]] && tail -n 3 "$told" | grep -q '^test result: ok\.'; then
    echo "Wine ended the process by SIGQUIT after its last test" >&2
    status=0
fi
exit "$status"
