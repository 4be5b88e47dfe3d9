#!/usr/bin/env bash
# What is to be measured on a GPU: LLaVA-OneVision-7B (random weights, nothing to download), bfloat16, 32 frames,
# batch 1 and 8, all methods at 25/20/15/10 %, the largest number of frames, and a profile.
#
#     scripts/gpu_benchmark.sh                       on the first GPU, results under benchmarks/results/<GPU>-*
#     scripts/gpu_benchmark.sh --short               the same in about five minutes: all methods at 10 %, HoliTom at
#                                                    all four, fewer rounds and frames, batch 8 with a few
#     scripts/gpu_benchmark.sh --dry-run             the same commands with a toy on the CPU, results under /tmp
#
# Afterwards: python benchmarks/page.py. A run that was interrupted is continued by starting it again.
# HOLITOM (default: holitom), ATTENTION (default: sdpa; or flash_attention_2) and OUT may be set.
set -euo pipefail

HOLITOM=${HOLITOM:-holitom}
ATTENTION=${ATTENTION:-sdpa}
four=(--retention 0.25 --retention 0.2 --retention 0.15 --retention 0.1)
all=(--method all "${four[@]}")
all_of_eight=("${all[@]}")
where=(--preset llava-onevision-7b --device cuda --dtype bfloat16)
frames=32 warmup=2 repeats=7 repeats_of_eight=7 answer=64 limit=()
case "${1:-}" in
    --dry-run)
        where=(--preset tiny --device cpu --dtype float32)
        frames=8 warmup=0 repeats=1 repeats_of_eight=1 answer=4 limit=(--frame-limit 32)
        OUT=${OUT:-/tmp/holitom-gpu-benchmark}
        ;;
    --short)
        some=()
        for retention in 0.25 0.2 0.15; do some+=(--method "holitom:retention=$retention"); done
        all=(--method all --retention 0.1 "${some[@]}")
        all_of_eight=(--method holitom --method visionzip --method fastv --retention 0.1)
        warmup=1 repeats=3 repeats_of_eight=3 answer=32 limit=(--frame-limit 256)
        ;;
esac
if [[ -z "${OUT:-}" ]]; then
    name=$(python3 -c 'import torch; print(torch.cuda.get_device_name().lower().replace(" ", "-"))')
    OUT=benchmarks/results/$name
fi
common=("${where[@]}" --attention "$ATTENTION" --frames "$frames")

# HOLITOM may be several words
# shellcheck disable=SC2086
bench() { $HOLITOM bench "${common[@]}" "$@"; }

bench --answer-tokens "$answer" "${all[@]}" --repeats "$repeats" --warmup "$warmup" --out "$OUT-batch-1"
bench --answer-tokens "$answer" "${all_of_eight[@]}" --repeats "$repeats_of_eight" --warmup "$warmup" \
    --batch-size 8 --out "$OUT-batch-8"
bench --answer-tokens 8 --repeats 2 --max-frames "${limit[@]}" --out "$OUT-sweep"
bench --answer-tokens 8 --repeats 1 --profile --out "$OUT-profile"

# inside the vision tower: stock transformers, the same features sooner, and rows on videos of which a share never changes;
# of 32 frames 0.57 and 0.84 leave half and 0.28 of the rows behind the first block
for share in 0 0.57 0.84; do
    bench --answer-tokens 8 --repeats "$repeats" --warmup "$warmup" --static "$share" --retention 0.1 \
        --method uncompressed:stock=true --method holitom --method "renewal|holitom:retention=0.1" --out "$OUT-static-$share"
done
