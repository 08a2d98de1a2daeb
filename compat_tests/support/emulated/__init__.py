"""The kernels of a CPU on another processor's instructions: compiled for it, run by QEMU.

Everything around the kernels is this process's. `tracing` notes the kernels of a module of graphs,
`program` makes them a program for the other processor, `session` runs graphs by it.
"""
