"""kdtool beside torchdistill and a plain PyTorch loop: ``python -m benchmarks.peers --help``."""
