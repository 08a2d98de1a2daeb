"""What the kernels of CPUs and GPUs share."""
