"""kdtool: make a trained vision network small.

The names that `__init__.pyi` lists are the public API for notebooks and plugins; each is imported when it is first
used, so that neither `kdtool --help` nor a plugin's import waits for torch. More public names are in the sub-packages:
`kdtool.surgery`, `kdtool.features`, `kdtool.training` and the others whose `__init__.pyi` lists them.
"""

import os

import lazy_loader

# Since 1.29 onnxruntime sends names and hashes of networks to Microsoft, unless this is set before it is imported
# (https://github.com/microsoft/onnxruntime/pull/27379).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
