"""What a phase asks of a CUDA device in every step alike, recorded once and launched as a whole (CUDA graphs)."""
