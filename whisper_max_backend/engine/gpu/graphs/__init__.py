"""The graphs of a GPU: one artifact for each model's dimensions, type and kind of device.

They have the doors of the CPU's graphs. A CPU runs them too, in float32, so that everything but
the speed is tested where there is no GPU.
"""
