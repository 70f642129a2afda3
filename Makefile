# Every command of this repository. Each target installs or builds what it needs first, shows what it does,
# and works without a network from the second time on. The work itself is in scripts/ and compat-tests/.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup run build test lint check compat compat-secure clients clients-secure clients-kills tools tools-compare transactions log-ends cluster run-cluster bench crash soak disk-full zookeeper-faults disk-faults hostile admin authorization tokens

TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
RELEASE := $(TARGET_DIR)/release/klamm
CARGO := scripts/cargo

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing for building and testing (apt; only what is missing)
	@scripts/setup.sh build test

run: ## build, then serve on port 9092 with config/server.properties; data in ./data
	@scripts/setup.sh build
	@$(CARGO) build --release --locked
	@exec $(RELEASE) config/server.properties --override log.dirs=$(CURDIR)/data

build: ## build the release binary; its path is the last line
	@scripts/setup.sh build
	@$(CARGO) build --release --locked
	@echo $(RELEASE)

test: ## all tests: cargo's, then stock clients against the broker
	@scripts/setup.sh build test
	@scripts/test.sh

lint: ## rustfmt and clippy, warnings are errors
	@scripts/setup.sh build
	cargo fmt --check
	@$(CARGO) clippy --locked --all-targets -- -D warnings

check: ## does it compile (fast; for working on the code)
	@scripts/setup.sh build
	@$(CARGO) check --locked --all-targets

compat: ## librdkafka's own suite against a fresh klamm, or three of them (TESTS="0001 0002", JOBS=4, BROKERS=3, SCENARIO=noautocreate, SECURE=1, IDEMPOTENT=1); about 10 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) KLAMM_BROKERS=$(or $(BROKERS),1) compat-tests/run librdkafka

compat-secure: ## the tests of librdkafka's that ask for TLS and SASL (0097, 0126, 0135, 0142), for real, against three brokers and a provider of tokens (ONLY=0142; AGAINST=3.9.1 asks Kafka); about 14 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) KLAMM_AGAINST=$(AGAINST) compat-tests/run librdkafka.secured $(if $(ONLY),--only $(ONLY))

clients: ## the word list through stock clients of six makers against a fresh klamm, one row each (CLIENTS="kcat sarama", BROKERS=3); about 4 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) KLAMM_BROKERS=$(or $(BROKERS),1) compat-tests/run clients

clients-secure: ## the same clients over TLS, by PLAIN, SCRAM, OAUTHBEARER and certificates, one row each (CLIENTS="kcat sarama"); about 4 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run clients --secure

clients-kills: ## five of them against three brokers, of which the leader, the coordinator and the controller die in turn; about 6 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run clients --kills

tools-compare: ## some 220 calls of Apache Kafka's scripts against Apache Kafka 3.9.1 and klamm, and what differs; about 10 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run tools.compare

tools: ## Apache Kafka's command line tools, 3.9 and 4.1, against a fresh klamm, one row each; about 2 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run tools

transactions: ## transactions as a stock librdkafka client sees them, through fences, time-outs and kills, one row each (AGAINST=3.9.1 asks Kafka); about 1 minute
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) KLAMM_AGAINST=$(AGAINST) compat-tests/run transactions
	@test -n "$(AGAINST)" || KLAMM_BINARY=$(RELEASE) compat-tests/run transactions --zookeeper

log-ends: ## every way in which a log may end, read to its end by four stock clients in both isolation levels, one row each (AGAINST=3.9.1 asks Kafka); about 1 minute
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) KLAMM_AGAINST=$(AGAINST) compat-tests/run log_ends

cluster: ## three brokers and a ZooKeeper under kills, pauses, cuts, losses of power and rolls, one of them from the commit before; a history checker decides, one row a scenario (QUICK=1; AGAINST=3.9.1 asks Kafka, AGAINST="3.9.1 3.9.1 klamm" mixes: 15 minutes; ONLY=R5; SEED=n; SOAK=minutes plays that row alone; cuts need root and nft, losses of power root and FUSE); 75 minutes, quick 10
	@scripts/setup.sh build test compat cluster
	@$(if $(AGAINST),$(if $(filter klamm,$(AGAINST)),,:)) $(CARGO) build --release --locked
	@old=$${KLAMM_OLD_BINARY:-}; $(if $(AGAINST)$(SOAK)$(if $(ONLY),$(if $(findstring upgrade,$(ONLY)),,other)),:,old=$${old:-$$(scripts/earlier-klamm.sh)} || exit 1); \
	  KLAMM_BINARY=$(RELEASE) KLAMM_OLD_BINARY=$$old KLAMM_AGAINST="$(AGAINST)" compat-tests/run cluster \
	  $(if $(QUICK),--quick) $(if $(SOAK),--soak $(SOAK)) $(if $(ONLY),--only $(ONLY)) $(if $(SEED),--seed $(SEED))

run-cluster: ## build, then a ZooKeeper and three brokers on this machine until Ctrl-C, on ports 9092 to 9094; data in ./data-cluster
	@scripts/setup.sh build test
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) exec scripts/cluster

bench: ## klamm beside Apache Kafka 3.9.1, both warm, driven in turn by stock clients, one table (BENCH="produce latency" for parts); an hour or two
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run perf $(BENCH)

admin: ## every method of Java's Admin, against Apache Kafka 3.9.1 and klamm: what differs, and why
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run admin

crash: ## twenty rounds of SIGKILL under load; what was acknowledged must be there, once (ROUNDS=20); about 3 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run crash --rounds $(or $(ROUNDS),20)

soak: ## the same load for a long time: memory, descriptors, disk and CPU must stay level (MINUTES=10)
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run soak --minutes $(or $(MINUTES),10)

disk-full: ## a disk without space on a small tmpfs (needs root), and one that fails, one row per case; about 1 minute
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run disk_full

zookeeper-faults: ## klamm on a real ZooKeeper 3.8 that is restarted, paused and taken away, one row per scenario (GONE=60 seconds); about 6 minutes
	@scripts/setup.sh build test
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run zookeeper --gone $(or $(GONE),20)

disk-faults: ## a disk that loses power, flips bits, fails and fills up, played by a FUSE file system, one row per case (QUICK=1; KLAMM_SEED=n; needs root); about 28 minutes, quick 5
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/disk_faults/run $(if $(QUICK),--quick)

sim: ## a cluster of three on one thread from a seed, with faults all the while (SEEDS=1000, FROM=1); about 100 seeds in 10 seconds
	@scripts/setup.sh build test
	@KLAMM_SIM_SEEDS=$(or $(SEEDS),1000) KLAMM_SIM_FROM=$(or $(FROM),1) $(CARGO) test --locked --lib sim:: -- --nocapture

authorization: ## every key under every grant of ACLs, beside Apache Kafka 3.9.1 with its AclAuthorizer, one row a grant; about 3 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run authorization --full
	@KLAMM_BINARY=$(RELEASE) compat-tests/run authorization --full --named

tokens: ## delegation tokens against what Apache Kafka 3.9.1 answered and beside a broker of it, and a ZooKeeper that asks who comes; about 1 minute
	@scripts/setup.sh build test compat
	@$(CARGO) build --release --locked
	@KLAMM_BINARY=$(RELEASE) compat-tests/run tokens --jvm
	@KLAMM_BINARY=$(RELEASE) compat-tests/run zookeeper.guarded

hostile: ## hostile input over every decoder, through real connections, as noise, and beside Apache Kafka 3.9.1, one row per case (KLAMM_SEED=n repeats a run); about 5 minutes
	@scripts/setup.sh build test compat
	@$(CARGO) test --locked --test hostile
	@$(CARGO) build --locked --bin klamm
	@status=0; for suite in connections noise codes; do \
	  KLAMM_BINARY=$(TARGET_DIR)/debug/klamm compat-tests/run hostile.$$suite || status=1; done; exit $$status
