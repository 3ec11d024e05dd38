#!/bin/bash
# One training in two processes on this machine: a teacher on the digits, then its half.
# A GPU machine: as many processes as GPUs, and no OMP_NUM_THREADS. kdtool distill ... --processes 2 does the same.
set -euo pipefail
export OMP_NUM_THREADS=1

torchrun --nproc-per-node 2 -m kdtool teacher kdtool:lenet-5 --data digits --epochs 3 --resume -o teacher.pt
torchrun --nproc-per-node 2 -m kdtool distill teacher.pt --refiner halve --epochs 3 --resume -o student.pt
