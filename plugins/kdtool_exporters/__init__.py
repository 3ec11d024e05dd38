"""The built-in exporter, to ONNX: the file, its model and the check that it gives the network's outputs.

It is a plugin like one of a third party: kdtool finds it through its entry point.
"""
