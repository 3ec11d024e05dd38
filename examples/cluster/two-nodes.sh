#!/bin/bash
# Two agents as on two machines, by loopback: each starts one process, and they meet at 127.0.0.1:29500.
# On real machines run the one torchrun line on each, with the name of the first one as the end point. The files have to
# be under the same paths on both; the first process alone writes.
set -euo pipefail
export OMP_NUM_THREADS=1

agent() {
    torchrun --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:29500 --rdzv-id kdtool \
        -m kdtool teacher kdtool:lenet-5 --data digits --epochs 3 --resume -o teacher.pt
}
agent &
first=$!
agent
wait "$first"
