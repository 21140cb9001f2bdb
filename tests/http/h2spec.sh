#!/usr/bin/env bash
# Holds the HTTP door against h2spec: `h2spec.sh PROVIDER`, the path of examples/browser's program.
set -euo pipefail
version=v2.2.1
tools=${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../../target}/tools
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
[ -x "$tools/h2spec" ] || GOBIN=$tools GOFLAGS=-mod=mod go install "github.com/summerwind/h2spec/cmd/h2spec@$version+incompatible" 2>"$tools/go.log" || { cat "$tools/go.log" >&2; exit 1; }

coproc PROVIDER { exec "$1" tcp://127.0.0.1:0; }
provider=$PROVIDER_PID
trap 'kill "$provider" 2>/dev/null || true' EXIT
read -r page <&"${PROVIDER[0]}"
port=${page##*:}
report=$("$tools/h2spec" -h 127.0.0.1 -p "$port" -P /healthz -o 3 2>&1) || true
if ! grep -q '^145 tests, 145 passed, 0 skipped, 0 failed$' <<<"$report"; then
    echo "$report"
    echo "h2spec: not all of its 145 cases pass" >&2
    exit 1
fi
grep 'tests,' <<<"$report"
