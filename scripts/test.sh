#!/usr/bin/env bash
# All tests of `make test`: cargo's, then stock clients against the broker. The last line is the sum of them all.
set -uo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
log=$scratch/log
longest=$scratch/longest-standstill-ms
status=0

# A virtual machine may stand still for seconds. A test that waits for a time-out of the broker's then fails, though
# nothing is wrong, so what failed beside such a standstill is asked once more. Without one, what fails has failed.
STANDSTILL_MS=1000
watch_for_standstills() {
  local last now late most=0
  last=${EPOCHREALTIME//[!0-9]/}
  while sleep 0.1; do
    now=${EPOCHREALTIME//[!0-9]/}
    late=$(((now - last) / 1000 - 100))
    last=$now
    if [ "$late" -gt "$most" ]; then
      most=$late
      echo "$most" >"$longest"
    fi
  done
}
echo 0 >"$longest"
watch_for_standstills &
watching=$!
trap 'kill "$watching" 2>/dev/null; rm -rf "$scratch"' EXIT

echo "== cargo test"
again=0
scripts/cargo test --locked --no-fail-fast 2>&1 | tee -a "$log" || status=1
if [ "$status" -ne 0 ] && ! grep -q '^test result: FAILED' "$log"; then
  echo "FAIL  cargo test did not finish" | tee -a "$log"
elif [ "$status" -ne 0 ] && [ "$(cat "$longest")" -ge "$STANDSTILL_MS" ]; then
  mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
  echo "== this machine stood still for $(cat "$longest") ms: once more what failed, ${failed[*]}"
  if scripts/cargo test --locked --no-fail-fast -- --exact "${failed[@]}" 2>&1; then
    again=${#failed[@]}
    status=0
  fi
fi
kill "$watching"

# Each suite prints one row per test, beginning with PASS, FAIL or SKIP, and ends with 1 if one failed.
scripts/cargo build --locked --bin klamm || exit 1
export KLAMM_BINARY=${CARGO_TARGET_DIR:-$PWD/target}/debug/klamm
for suite in smoke history perf.warm "zookeeper --quick" zookeeper.guarded zookeeper.secure "cluster --short" "hostile.connections --quick" "hostile.noise --quick" "log_ends --quick" "librdkafka.secured --quick" authorization "authorization --named" tls sasl tokens quota quota.replication log_dirs "disk_full --quick"; do
  echo "== $suite"
  # Unquoted: a suite may have arguments.
  compat-tests/run $suite 2>&1 | tee -a "$log" || status=1
done

# Why a run is red, next to its last line: what came in between is long.
if grep -q '^---- .* stdout ----$\|^FAIL ' "$log"; then
  echo "== what failed, if only once (longest standstill of this machine during cargo's tests: $(cat "$longest") ms)"
  awk '
    /^---- .* stdout ----$/ { shown = 1 }
    /^stack backtrace:/ || /^failures:/ || /^test result: / { shown = 0 }
    shown || /^FAIL / { print substr($0, 1, 1000) }' "$log"
fi

awk -v status="$status" -v again="$again" '
  /^test result: / { for (i = 2; i <= NF; i++) { if ($i == "passed;") passed += $(i - 1); if ($i == "failed;") failed += $(i - 1) } }
  /^PASS / { passed++ }
  /^FAIL / { failed++ }
  /^SKIP / { skipped++ }
  END {
    passed += again
    failed -= again
    # A suite that failed without saying which test counts as one.
    if (status != 0 && failed == 0) failed = 1
    printf "%d passed, %d failed", passed, failed
    if (skipped) printf ", %d skipped", skipped
    print ""
  }' "$log"
exit "$status"
