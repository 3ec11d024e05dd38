"""Training in 8 bits: which numbers of a network are rounded, and the network that rounds them.

`calls` watches the calls of a forward pass, `places` chooses the tensors that onnxruntime computes in 8 bits,
`fake` rounds them in training and validation (Jacob et al., 2018, arXiv:1712.05877), and `integers` makes the network
with real integers that is exported.

Written on torch's own functions, since no library that is kept serves networks of every kind within onnxruntime's
format. Tried with torch 2.14 on a ResNet-20, a MobileNetV3, an EfficientNet and a ViT:

- torchao 0.18, ``prepare_qat_pt2e`` with its X86 quantizer, works on a traced graph. The graph keeps the train mode of
  everything but batch-norm and dropout: an EfficientNet drops blocks at random in validation and in its ONNX file. It
  has no layers, so that no map can be watched. The sum behind a convolution is computed with it in float, so that
  onnxruntime runs 9 of the 19 convolutions of a ResNet-20 in float.
- torchao's ``quantize_`` with ``QATConfig`` knows linear layers and embeddings, no convolutions.
- NVIDIA's ModelOpt rounds the inputs and the weights of layers; onnxruntime runs a convolution in 8 bits only if its
  output is rounded too.
"""
