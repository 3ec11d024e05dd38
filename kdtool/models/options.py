"""Options of a network: its classes, its input and its stem."""

from __future__ import annotations

from kdtool.plugins.options import Options, option


class NetworkOptions(Options):
    """Choose the classes, input and stem of a network; the defaults are those of the data, else of the network."""

    classes: int | None = option(
        None, minimum=1, help="number of classes; unset: those of the data, else of the network"
    )
    in_channels: int | None = option(
        None, minimum=1, help="channels of an image; unset: those of the data, else of the network"
    )
    image_size: int | None = option(
        None, minimum=1, help="height and width of an image, in pixels; unset: that of the data, else of the network"
    )
    stem: str | None = option(
        None, choices=("default", "small"), help="small: a 3x3 stride-1 stem without pool, for small images"
    )
