#!/usr/bin/env bash
# What is to be measured on a GPU, in at most seven minutes: LLaVA-OneVision-7B with random weights (nothing to
# download), bfloat16, 32 frames.
#
#     scripts/gpu_benchmark.sh                       all steps, on the first GPU
#     scripts/gpu_benchmark.sh tower batch-8         some of them
#     scripts/gpu_benchmark.sh --dry-run [STEP ...]  the same commands with a toy on the CPU, results under /tmp
#
# Each step is one process with a time limit, and writes its results as they come, to benchmarks/results/<GPU>-<step>:
# a step that is cut off keeps what it has, and goes on from there when it is started again. Afterwards:
# python benchmarks/page.py. HOLITOM (default: holitom; for a checkout: "python3 -m holitom", with PYTHONPATH), ATTENTION
# (default: sdpa), COMPILE (default: inductor; cudagraphs compiles sooner) and OUT (a folder, or the start of the names of
# the results) may be set; WORKERS for pytest-xdist, and LIMIT, the limits in per cent.
#
# Seconds that are expected on an H100, with about 15 for Python and the model: tests 75 (WORKERS=7), batch-1 70 to 90
# and batch-8 90 to 120 (each method takes 30 to 50 to compile; uncompressed comes first, then holitom, and what is cut off
# is the last), tower 30, methods 20, frames 40, profile 35. First comes what was never measured, or not since it changed: the
# kernel that chooses Renewal's rows (tests), its cost where nothing is static (tower, and its gaps in the profile), compiled
# decoding at batch 1, and frames until memory ends.
set -uo pipefail
cd "$(dirname "$0")/.."

HOLITOM=${HOLITOM:-holitom}
ATTENTION=${ATTENTION:-sdpa}
preset=llava-onevision-7b device=cuda dtype=bfloat16 frames=32 answer=64 backend=${COMPILE:-inductor}
most=1024 start=128 limit=${LIMIT:-100}
if [[ "${1:-}" == --dry-run ]]; then
    shift
    preset=tiny device=cpu dtype=float32 frames=8 answer=4 backend=eager most=16 start=8 limit=2000
    OUT=${OUT:-/tmp/holitom-gpu-benchmark}
fi
if [[ -z "${OUT:-}" || -d "$OUT" ]]; then
    gpu='import torch; print(torch.cuda.get_device_name().lower().replace(" ", "-") if torch.cuda.is_available() else "cpu")'
    OUT=${OUT:-benchmarks/results}/$(python3 -c "$gpu")
fi
mkdir -p "$(dirname "$OUT")"

# step SECONDS COMMAND ...: at most so long; what ends badly or late does not end the others
failed=0
step() {
    local seconds=$(($1 * limit / 100)) began=$SECONDS code=0
    shift
    timeout --kill-after=5 "$seconds" "$@" || code=$?
    echo "[$name: $((SECONDS - began)) s$([[ $code == 0 ]] || echo ", ended with $code")]" >&2
    [[ $code == 0 ]] || failed=1
}
# HOLITOM may be several words
# shellcheck disable=SC2086
bench() {
    step "$1" $HOLITOM bench --preset $preset --device $device --dtype $dtype --attention "$ATTENTION" "${@:2}"
}
batch() {
    bench "$1" --frames $frames --answer-tokens $answer --compile $backend --warmup 1 --method holitom "${@:2}" \
        --out "$OUT-$name"
}

read -ra steps <<<"${*:-tests tower profile batch-1 frames methods batch-8}"
for name in "${steps[@]}"; do
    case $name in
        tests) step 75 python3 -m pytest -q -p no:cacheprovider tests/gpu --durations=5 ${WORKERS:+-n "$WORKERS"} ;;
        batch-1) batch 90 --repeats 2 --method spread:retention=0.1 ;;
        batch-8) batch 120 --repeats 1 --batch-size 8 --longer 4 --method holitom:exact=true ;;
        tower)
            step 35 python3 benchmarks/tower_gpu.py --preset $preset --device $device --dtype $dtype \
                --frames $frames --rounds 3 --out "$OUT-tower/tower.json"
            ;;
        methods)
            step 20 python3 benchmarks/methods.py --device $device --dtype $dtype --frames $frames --rounds 5 \
                --json "$OUT-methods/methods.json"
            ;;
        frames)
            bench 40 --frames $start --answer-tokens 2 --repeats 1 --max-frames --frame-limit $most \
                --out "$OUT-frames"
            ;;
        profile)
            bench 35 --frames $frames --answer-tokens 8 --repeats 1 --warmup 0 --profile --method holitom \
                --method "renewal|holitom" --out "$OUT-profile"
            ;;
        *) echo "there is no step $name" >&2 && exit 2 ;;
    esac
done
exit $failed
