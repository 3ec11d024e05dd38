"""The names of what runs a network in onnxruntime; nothing is imported for them, not even numpy."""

PROVIDERS = {
    "cpu": ("CPUExecutionProvider", "onnxruntime"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
    "tensorrt": ("TensorrtExecutionProvider", "onnxruntime-gpu with TensorRT"),
    "openvino": ("OpenVINOExecutionProvider", "onnxruntime-openvino"),
    "coreml": ("CoreMLExecutionProvider", "onnxruntime for macOS"),
    "qnn": ("QNNExecutionProvider", "onnxruntime-qnn"),
}
"""By the value of ``--provider``: onnxruntime's name of what runs the network, and the package that has it."""
