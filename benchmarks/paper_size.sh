#!/bin/sh
# Full-width networks on a machine with a GPU, in one command: train a zoo, measure what a scan costs there, scan what the
# time allows (in random order) and write both records. Needs python with torch, timm, numpy, scipy, safetensors and
# matplotlib; no service and no network.
#
#   benchmarks/paper_size.sh ZOO DATA SECONDS POLICY MODEL...
#
# ZOO: where the models go; what is there already is kept. DATA: where `zoo data paper-fashion --out DATA` wrote the
# pictures. SECONDS: for the scans. POLICY: a file or a name. MODEL...: models of the zoo for bench_ensemble.
# Environment: PYTHON, SPEC, DEVICE, JOBS (scans side by side), GUARD_BENCH_COMMIT (where the copy has no git).
set -eu
zoo=$1 data=$2 seconds=$3 policy=$4
shift 4
python=${PYTHON:-python3} device=${DEVICE:-cuda} jobs=${JOBS:-4}
cd "$(dirname "$0")/.."

"$python" -m benchmarks.zoo build "${SPEC:-paper-fashion}" --out "$zoo" --data-dir "$data" --device "$device" \
    --jobs 6 --threads 2 ||
    echo "some models were not built"
"$python" -m benchmarks.bench_ensemble --zoo "$zoo" --models "$@" --device "$device" --searches default \
    --name ensemble-paper-size
# INT, so that the pool ends its processes; what it has not reached is named in the record
timeout -s INT "$seconds" "$python" -m benchmarks.bench_detect --zoo "$zoo" --policy "$policy" --device "$device" \
    --jobs "$jobs" --scan-only || echo "scans were ended after $seconds s"
"$python" -m benchmarks.bench_detect --zoo "$zoo" --policy "$policy" --device "$device" --scanned --name paper-size \
    --note "${NOTE:-Full-width networks; nothing was chosen on them.}"
