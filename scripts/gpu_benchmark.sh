#!/usr/bin/env bash
# What is to be measured on a GPU: LLaVA-OneVision-7B (random weights, nothing to download), bfloat16, 32 frames,
# batch 1 and 8, all methods at 25/20/15/10 %, the largest number of frames, and a profile.
#
#     scripts/gpu_benchmark.sh                       on the first GPU, results under benchmarks/results/<GPU>/
#     scripts/gpu_benchmark.sh --dry-run             the same commands with a toy on the CPU, results under /tmp
#
# Afterwards: python benchmarks/page.py. A run that was interrupted is continued by starting it again.
# HOLITOM (default: holitom), ATTENTION (default: sdpa; or flash_attention_2) and OUT may be set.
set -euo pipefail

HOLITOM=${HOLITOM:-holitom}
ATTENTION=${ATTENTION:-sdpa}
if [[ "${1:-}" == "--dry-run" ]]; then
    where=(--preset tiny --device cpu --dtype float32)
    frames=8 warmup=0 repeats=1 answer=4 limit=(--frame-limit 32)
    OUT=${OUT:-/tmp/holitom-gpu-benchmark}
else
    where=(--preset llava-onevision-7b --device cuda --dtype bfloat16)
    frames=32 warmup=2 repeats=7 answer=64 limit=()
    name=$(python -c 'import torch; print(torch.cuda.get_device_name().lower().replace(" ", "-"))')
    OUT=${OUT:-benchmarks/results/$name}
fi
common=("${where[@]}" --attention "$ATTENTION")
retentions=(--retention 0.25 --retention 0.2 --retention 0.15 --retention 0.1)

for batch in 1 8; do
    # shellcheck disable=SC2086
    $HOLITOM bench "${common[@]}" --frames "$frames" --batch-size "$batch" --answer-tokens "$answer" \
        --method all "${retentions[@]}" --repeats "$repeats" --warmup "$warmup" --out "$OUT-batch-$batch"
done
# shellcheck disable=SC2086
$HOLITOM bench "${common[@]}" --frames "$frames" --answer-tokens 8 --repeats 1 --profile --out "$OUT-profile"
# shellcheck disable=SC2086
$HOLITOM bench "${common[@]}" --frames "$frames" --answer-tokens 8 --repeats 2 --max-frames "${limit[@]}" --out "$OUT-sweep"
