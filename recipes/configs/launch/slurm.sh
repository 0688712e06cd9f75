#!/bin/bash
# One process a GPU under SLURM; before its time is up the job saves, and is put into the queue again:
#
#   sbatch recipes/configs/launch/slurm.sh train_orderer --config recipes/configs/emoji.yaml
#
#SBATCH --job-name=sightline
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120        # to every task (not to this script): each saves within a step
#SBATCH --requeue                # also when a machine fails: --resume below goes on
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.txt
set -u

# What torchrun would set; srun gives every task its numbers under names of its own.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
WORLD_SIZE=$SLURM_NTASKS
export MASTER_ADDR MASTER_PORT WORLD_SIZE

# `exec`: the signal must reach python and not a shell around it. --wait ends the others 60 s after
# the first; --kill-on-bad-exit would at once, and make a saved run look like a killed one.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 --wait=60 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
    exec python -m "recipes.$0" "$@"
' "$@" --resume --preempted_code=75
code=$?

# srun hands the exit code on: 75 was saved in time and is not done.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
