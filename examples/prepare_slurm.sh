#!/bin/sh
# Prepare a data set as a Slurm job array: each task is one part, and whichever comes last completes the pack.
#
#     sbatch --array=0-15 examples/prepare_slurm.sh coco /shared/coco --out /shared/packs/coco --shard-images 512
#
# Source and --out must be on a file system that all nodes see. A task that was requeued goes on from where it was; if some
# tasks failed, submit those again: sbatch --array=3,7 ... (the number of parts is then --export=PARTS=16).
#SBATCH --job-name=t2i-prepare
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=02:00:00
#SBATCH --requeue
set -eu
parts=${PARTS:-$SLURM_ARRAY_TASK_COUNT}
exec t2i-prepare "$@" --shard "$SLURM_ARRAY_TASK_ID/$parts"
