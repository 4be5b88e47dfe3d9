#!/usr/bin/env bash
# What docs/tower.md shows, on a machine with a dozen cores and more: the time of two towers at full depth, and the
# testbed with designs inside the tower, on plain clips, with a camera's noise and with a camera that turns.
#
#     scripts/tower_benchmark.sh FOLDER            about 7 minutes on 16 cores; results under FOLDER
#     scripts/tower_benchmark.sh FOLDER --dry-run  the same commands on two clips and two blocks
#
# A run that was interrupted is continued by starting it again. Afterwards: copy FOLDER/*.json to benchmarks/results, and
# python docs/testbed_tables.py. PYTHON, PARTS (processes for the testbed) and THREADS (of each tower) may be set.
set -euo pipefail

cd "$(dirname "$0")/.."
out=$1
PYTHON=${PYTHON:-python3}
PARTS=${PARTS:-12}
THREADS=${THREADS:-2}
export OMP_NUM_THREADS=1 PYTHONPATH=$PWD
tower=(--threads "$THREADS" --rounds 2 --out "$out")
clips=(-n 200)
if [[ "${2:-}" == --dry-run ]]; then
    tower+=(--blocks 2 --frames 2 --static 0.9)
    clips=(-n 2 --split val)
    PARTS=2
fi
few=(--designs renewal:layer=0 renewal:layer=1 repeatframes --alone)
testbed() { "$PYTHON" benchmarks/testbed_tower.py "${clips[@]}" --rows "$out/rows" "$@"; }

mkdir -p "$out"
for name in siglip qwen2.5-vl; do
    "$PYTHON" benchmarks/tower.py --towers "$name" "${tower[@]}" >"$out/tower_$name.txt" 2>&1 &
done
for part in $(seq "$PARTS"); do
    {
        testbed --shard "$part/$PARTS"
        testbed --shard "$part/$PARTS" --noise 10 "${few[@]}"
        testbed --shard "$part/$PARTS" --pan 8 "${few[@]}"
    } >"$out/part-$part.txt" 2>&1 &
done
failed=0
for job in $(jobs -p); do wait "$job" || failed=1; done
cat "$out"/tower_*.txt
[[ $failed == 0 ]] || { tail -n 3 "$out"/part-*.txt >&2; exit 1; }
testbed --json "$out/testbed_tower.json"
testbed --noise 10 "${few[@]}" --json "$out/testbed_tower_noise.json"
testbed --pan 8 "${few[@]}" --json "$out/testbed_tower_pan.json"
