"""The graphs of a CPU: each takes a whole network, in kernels that share out their work."""
