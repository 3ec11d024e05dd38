"""Networks in the formats of other programs, and how fast they run there.

An `Exporter` writes a network to a file. The core knows no exporter by name: it asks for one by the suffix of its files
(`exporter.exporter_of_suffix`). The latency of an ONNX file is measured here and not in an exporter, because pruning by
latency and the comparison of networks measure it as well.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
