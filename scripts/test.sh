#!/usr/bin/env bash
# All tests of `make test`: cargo's, then stock clients against the broker. The last line is the sum of them all.
set -uo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0

echo "== cargo test"
scripts/cargo test --locked --no-fail-fast 2>&1 | tee -a "$log" || status=1
if [ "$status" -ne 0 ] && ! grep -q '^test result: FAILED' "$log"; then
  echo "FAIL  cargo test did not finish" | tee -a "$log"
fi

# Each suite prints one row per test, beginning with PASS, FAIL or SKIP, and ends with 1 if one failed.
scripts/cargo build --locked --bin klamm || exit 1
export KLAMM_BINARY=${CARGO_TARGET_DIR:-$PWD/target}/debug/klamm
for suite in smoke history perf.warm "zookeeper --quick" zookeeper.guarded zookeeper.secure "cluster --short" "hostile.connections --quick" "hostile.noise --quick" "log_ends --quick" "librdkafka.secured --quick" authorization "authorization --named" tls sasl tokens quota quota.replication log_dirs "disk_full --quick"; do
  echo "== $suite"
  # Unquoted: a suite may have arguments.
  compat-tests/run $suite 2>&1 | tee -a "$log" || status=1
done

awk -v status="$status" '
  /^test result: / { for (i = 2; i <= NF; i++) { if ($i == "passed;") passed += $(i - 1); if ($i == "failed;") failed += $(i - 1) } }
  /^PASS / { passed++ }
  /^FAIL / { failed++ }
  /^SKIP / { skipped++ }
  END {
    # A suite that failed without saying which test counts as one.
    if (status != 0 && failed == 0) failed = 1
    printf "%d passed, %d failed", passed, failed
    if (skipped) printf ", %d skipped", skipped
    print ""
  }' "$log"
exit "$status"
