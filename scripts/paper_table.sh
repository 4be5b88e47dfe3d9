#!/usr/bin/env bash
# The paper's main table: LLaVA-OneVision-7B on MVBench, EgoSchema (subset), LongVideoBench and VideoMME at
# 25/20/15/10 %, with and without the stage inside the LLM, the methods it is compared with, and the full model.
#
#     pip install 'holitom[lmms-eval]'
#     scripts/paper_table.sh                         all rows; or only some: scripts/paper_table.sh holitom-0.10
#     GPUS=8 scripts/paper_table.sh                  one process on each of eight GPUs
#     scripts/paper_table.sh --print                 prints the commands
#
# Needs the weights (16 GB) and the data sets, which lmms-eval downloads; some want a Hugging Face account
# that has accepted their terms (huggingface-cli login). MODEL, TASKS, GPUS and OUT may be set.
set -euo pipefail

MODEL=${MODEL:-llava-hf/llava-onevision-qwen2-7b-ov-hf}
TASKS=${TASKS:-mvbench,egoschema_subset,videomme,longvideobench_val_v}
GPUS=${GPUS:-1}
OUT=${OUT:-runs/paper_table}
show=
[[ "${1:-}" == "--print" ]] && { show=1; shift; }

declare -A rows=([full]="method=none")
for retention in 0.25 0.20 0.15 0.10; do
    rows[holitom-$retention]="method=holitom,retention=$retention"
    rows[holitom-outer-$retention]="method=holitom,retention=$retention,layer=none"
    for method in visionzip dycoke prunevid fastvid; do
        rows[$method-$retention]="method=$method,retention=$retention"
    done
done
rows[fastv]="method=fastv,layer=2"
unset 'rows[dycoke-0.20]' 'rows[dycoke-0.15]' 'rows[dycoke-0.10]' # it keeps every fourth frame whole

for row in ${@:-$(printf '%s\n' "${!rows[@]}" | sort)}; do
    arguments=${rows[$row]:?there is no row $row}
    command=(accelerate launch --num_processes "$GPUS" -m lmms_eval --model holitom
        --model_args "pretrained=$MODEL,frames=32,dtype=bfloat16,$arguments"
        --tasks "$TASKS" --batch_size 1 --log_samples --output_path "$OUT/$row")
    if [[ -n $show ]]; then echo "${command[*]}"; else "${command[@]}"; fi
done
