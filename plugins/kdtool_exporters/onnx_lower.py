"""Make the 8-bit or half-precision file of an exported network, and say how it was made."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdtool import Error, UsageError
from kdtool.surgery import LayerOptions
from kdtool_exporters.onnx_choice import Choice, Trial, within
from kdtool_exporters.onnx_images import calibration_images
from kdtool_exporters.onnx_quantise import Layer, lacks_dot_product, prepare

if TYPE_CHECKING:
    from torch import Tensor


def lowered(
    options: Any,
    source: Path,
    output: Path,
    spec: str,
    val: Iterable[tuple[Tensor, Tensor]] | None,
    slower: Callable[[Path, Path], float] | None,
) -> dict[str, Any]:
    """Write the file ``output`` in the precision that ``options`` ask for, and return how it was made, as plain data.

    ``options`` is the `Onnx` exporter, ``source`` the float file, in a folder for temporary files. ``val`` are batches
    of validation images, iterated several times; ``slower`` returns the latency of a file over that of another.

    Raises:
        kdtool.Error: there are no validation images that the options need, or too much accuracy is lost.
    """
    if len([*source.parent.iterdir()]) > 1:
        raise Error(f"{spec}: its weights do not fit into one ONNX file, and such files are not quantised; export it")
    if val is None and (options.int8 or options.max_drop is not None):
        flag = "--int8 calibrates with" if options.int8 else "--max-drop is measured on"
        raise Error(f"{spec}: {flag} validation images, and there is no validation split; name a data set with --data")
    model = source.with_name("prepared.onnx")
    layers = prepare(source, model)
    skipped = left_in_float(options, layers, spec)
    if options.fp16:
        return _half(options, model, layers, output, spec, val, skipped)
    assert val is not None
    images, classes = calibration_images(val, options.calibration_images, spec)
    seven_bits, lacking = options.reduce_range == "on", lacks_dot_product()
    if options.reduce_range == "auto" and lacking:
        seven_bits = True
        logging.getLogger("kdtool").warning(
            "%s: this processor has none of %s, so that sums of 8-bit products may overflow; weights get 7 bits, and "
            "the file is hardly faster here (--reduce-range off: 8 bits, for another device)",
            spec,
            lacking,
        )
    choice = Choice(spec, model, layers, val, images, seven_bits, skipped, slower)
    limit = None if options.max_drop is None else options.max_drop.fraction
    best = choice.int8(options.calibration, options.float_ends, limit)
    first = choice.drop(best)
    if limit is not None:
        best = _restored(choice, best, limit)
    shutil.copyfile(best.file, output)
    return {
        **_about(choice, best, "int8"),
        "calibration_images": sum(map(len, images)),
        "calibration_classes": classes,
        "weight_bits": 7 if seven_bits else 8,
        "drop_before": first,
        "tried": [trial.as_data() for trial in choice.trials],
    }


def _half(
    options: Any,
    model: Path,
    layers: Sequence[Layer],
    output: Path,
    spec: str,
    val: Iterable[tuple[Tensor, Tensor]] | None,
    skipped: tuple[str, ...],
) -> dict[str, Any]:
    if val is None:
        from kdtool_exporters.onnx_quantise import half

        half(model, output, skip=skipped)
        return {"precision": "fp16", "float_layers": list(skipped), "layers": len(layers) - len(skipped)}
    choice = Choice(spec, model, layers, val, skipped=skipped)
    best = choice.trial("fp16", None, skipped)
    if options.max_drop is not None:
        best = _restored(choice, best, options.max_drop.fraction)
    shutil.copyfile(best.file, output)
    return _about(choice, best, "fp16")


def _restored(choice: Choice, best: Trial, limit: float) -> Trial:
    if not within(choice.drop(best), limit):
        logging.getLogger("kdtool").warning(
            "%s: loses %.2f%% of the validation images; measures which layers lose most, and puts them back to float",
            choice.spec,
            100 * choice.drop(best),
        )
    return choice.restore(best, limit)


def _about(choice: Choice, best: Trial, precision: str) -> dict[str, Any]:
    quantisable = {layer.name for layer in choice.quantisable(best.way)}
    return {
        "precision": precision,
        "way": best.way,
        "calibration": best.calibration,
        "layers": len(quantisable - set(best.kept)),
        "float_layers": [layer.name for layer in choice.layers if layer.name not in quantisable - set(best.kept)],
        "val_images": len(choice.labels),
        "val_accuracy": best.accuracy,
        "val_accuracy_float": choice.float_accuracy,
        "drop": choice.drop(best),
    }


def left_in_float(options: Any, layers: Sequence[Layer], spec: str) -> tuple[str, ...]:
    """Return the names of the layers that ``options.only`` and ``options.skip`` leave in float.

    Raises:
        kdtool.UsageError: a pattern matches no layer, or no layer is left to quantise.
    """
    names = [layer.name for layer in layers]
    chosen = LayerOptions(only=options.only, skip=options.skip).chosen(names, spec)
    if names and not chosen:
        raise UsageError(f"{spec}: --only and --skip leave all layers in float; drop one of them")
    return tuple(name for name in names if name not in chosen)
