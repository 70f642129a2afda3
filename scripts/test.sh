#!/usr/bin/env bash
# All tests of `make test`: cargo's, then stock clients against the broker. The last line is the sum of them all.
set -uo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
log=$scratch/log
longest=$scratch/longest-standstill-ms
status=0
watching=
trap '[ -z "$watching" ] || kill "$watching" 2>/dev/null; rm -rf "$scratch"' EXIT

# A virtual machine may stand still for seconds. A test that waits for a time-out of the broker's then fails, though
# nothing is wrong, so what failed beside such a standstill is asked once more. Without one, what fails has failed.
STANDSTILL_MS=1000
watch_for_standstills() {
  local last now late most=0
  # Of this machine's uptime: its clock may be set meanwhile.
  read -r last _ </proc/uptime
  while kill -0 "$$" 2>/dev/null && sleep 0.1; do
    read -r now _ </proc/uptime
    late=$(((10#${now/./} - 10#${last/./}) * 10 - 100))
    last=$now
    if [ "$late" -gt "$most" ]; then
      most=$late
      echo "$most" >"$longest"
    fi
  done
}

# Whether each binary of the tests ran to its end, and each test that failed is known by its name.
every_failure_has_a_name() {
  local started ended counted
  started=$(grep -c '^ *\(Running\|Doc-tests\) ' "$log")
  ended=$(grep -c '^test result: ' "$log")
  counted=$(awk '/^test result: / { for (i = 2; i <= NF; i++) if ($i == "failed;") sum += $(i - 1) } END { print sum + 0 }' "$log")
  [ "$started" -eq "$ended" ] && [ "$counted" -eq "${#failed[@]}" ]
}

echo "== cargo test"
again=0
scripts/cargo test --locked --no-run || status=1
echo 0 >"$longest"
watch_for_standstills >/dev/null &
watching=$!
scripts/cargo test --locked --no-fail-fast 2>&1 | tee -a "$log" || status=1
kill "$watching"
watching=
if [ "$status" -ne 0 ] && ! grep -q '^test result: FAILED' "$log"; then
  echo "FAIL  cargo test did not finish" | tee -a "$log"
elif [ "$status" -ne 0 ] && [ "$(cat "$longest")" -ge "$STANDSTILL_MS" ]; then
  mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
  if every_failure_has_a_name; then
    echo "== this machine stood still for $(cat "$longest") ms: once more what failed, ${failed[*]}"
    if scripts/cargo test --locked --no-fail-fast -- --exact "${failed[@]}"; then
      again=${#failed[@]}
      status=0
    fi
  fi
fi

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
