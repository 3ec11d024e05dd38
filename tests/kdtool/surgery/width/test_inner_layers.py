"""With a scope of inner, widths inside of blocks change, and the widths that blocks add stay."""

from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.surgery import halve_widths


def network(spec, image_size=None, **own):
    own = {name: value for name, value in own.items() if value is not None}
    return create(spec, options=NetworkOptions(classes=10, image_size=image_size), data=None, own=own)


def test_a_scope_of_inner_leaves_what_blocks_add_up():
    net = network("kdtool:resnet20", 32)
    small = halve_widths(net, scope="inner").module
    block = small.layer2[1]
    assert [layer.out_channels for layer in (block.conv1, block.conv2)] == [16, 32]
    assert small.conv1.out_channels == 16
    assert small.fc.in_features == 64


def test_a_scope_of_inner_narrows_the_perceptrons_of_a_transformer():
    net = network("timm:test_vit", 160)
    wide, small = net.module.blocks[0], halve_widths(net, scope="inner", init="inherit").module.blocks[0]
    assert small.mlp.fc1.weight.shape == (wide.mlp.fc1.out_features // 2, wide.mlp.fc1.in_features)
    assert small.mlp.fc2.out_features == wide.mlp.fc2.out_features
    assert small.attn.qkv.weight.shape == wide.attn.qkv.weight.shape
