"""What the graphs of CPUs and GPUs share."""
