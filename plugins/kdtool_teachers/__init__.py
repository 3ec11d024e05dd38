"""The built-in teacher sources: timm, torchvision, and the networks of the papers that neither of them has.

They are plugins like those of a third party. The catalogue lists the last kind; each of its families has a file.
"""
