#!/usr/bin/env bash
# How long a user waits: a clean debug build of a hello client and server, and `cargo check` after a change to it.
# Crates are fetched beforehand, so that the network is not measured.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

mkdir -p "$dir/src"
cat >"$dir/Cargo.toml" <<EOF
[package]
name = "hello"
version = "0.0.0"
edition = "2024"

[dependencies]
farcall = { path = "$root/crates/farcall" }
tokio = { version = "1", features = ["rt-multi-thread"] }

[workspace]
EOF
cp "$root/bench/hello.rs" "$dir/src/main.rs"
cp "$root/Cargo.lock" "$dir/Cargo.lock"
cd "$dir"
export CARGO_TARGET_DIR="$dir/target"
cargo fetch --quiet

seconds() {
    local start end
    start=$(date +%s%N)
    "$@" >/dev/null 2>&1
    end=$(date +%s%N)
    awk -v ns=$((end - start)) 'BEGIN { printf "%.1f", ns / 1e9 }'
}

clean=$(seconds cargo build)
target/debug/hello >/dev/null
cargo check --quiet
# A new method: the macro runs again, as it does for a user.
sed -i 's|    // another method goes here|    async fn more(\&self) -> Reply<u64>;|; s|    // its handler goes here|    async fn more(\&self) -> Reply<u64> { Ok(1) }|' src/main.rs
check=$(seconds cargo check)
crates=$(cargo tree --prefix none --edges normal,build | awk '{print $1}' | sort -u | wc -l)
printf '{"cores": %s, "crates": %s, "clean_build_s": %s, "incremental_check_s": %s}\n' "$(nproc)" "$crates" "$clean" "$check"
