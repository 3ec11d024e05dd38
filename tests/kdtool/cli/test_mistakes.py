"""What a new user writes, and what is answered: a wrong suggestion is worse than none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdtool.models.names import other_task, remember
from kdtool.plugins.registry import make

# Fixtures of conftest.py.
Run = Callable[..., Any]
Fails = Callable[..., str]

MISTAKES = {
    # Names of commands.
    "train": "there is no command 'train'; did you mean teacher?",
    "train teacher.pt": "there is no command 'train'; did you mean teacher?",
    "help": "there is no command 'help'; write kdtool --help, or kdtool COMMAND --help",
    "help distill": "there is no command 'help'; write kdtool --help, or kdtool COMMAND --help",
    "version": "there is no command 'version'; write kdtool --version",
    "quantize teacher.pt": "there is no command 'quantize'; write kdtool export FILE --int8",
    "onnx teacher.pt": "there is no command 'onnx'; did you mean export?",
    "test teacher.pt": "there is no command 'test'; did you mean evaluate?",
    "eval teacher.pt": "there is no command 'eval'; did you mean evaluate?",
    "predict teacher.pt": "there is no command 'predict'; in Python: kdtool.load(FILE).predict(IMAGE)",
    "info teacher.pt": "there is no command 'info'; did you mean inspect?",
    "diff teacher.pt student.pt": "there is no command 'diff'; did you mean compare?",
    "pruning teacher.pt": "there is no command 'pruning'; did you mean prune?",
    "distillation teacher.pt": "there is no command 'distillation'; did you mean distill?",
    "student teacher.pt": "there is no command 'student'; did you mean distill?",
    "ikd teacher.pt": "there is no command 'ikd'; ikd is a method: write kdtool distill --method ikd",
    "lottery teacher.pt": "there is no command 'lottery'; lottery is a method: write kdtool prune --method lottery",
    "list": "there is no command 'list'; kdtool plugins lists the methods, and kdtool models the networks",
    "resume": "there is no command 'resume'; write the interrupted command again, with --resume",
    "teacher.pt": "there is no command 'teacher.pt'; it is a file: write kdtool COMMAND teacher.pt, such as kdtool "
    "inspect teacher.pt",
    "none.pt": "there is no command 'none.pt'; files stand behind a command: write kdtool COMMAND none.pt, such as "
    "kdtool inspect none.pt",
    "timm:resnet18": "there is no command 'timm:resnet18'; a network stands behind a command, such as kdtool teacher "
    "timm:resnet18",
    "--method kd distill teacher.pt": "kdtool has no option --method; options stand behind the command that they "
    "belong to, as in kdtool distill --method NAME",
    # Names of methods.
    "distill teacher.pt --method KD --refiner halve": "no distiller is called 'KD'; did you mean kd?",
    "distill teacher.pt --method hinton": "no distiller is called 'hinton'; did you mean kd?",
    "distill teacher.pt --method attention": "no distiller is called 'attention'; did you mean at?",
    "distill teacher.pt --method dml": "no distiller is called 'dml'; did you mean mutual?",
    "distill teacher.pt --method fitnet": "no distiller is called 'fitnet'; did you mean fitnets?",
    "distill teacher.pt --method kd,at": "no distiller is called 'kd,at'; did you mean kd+at?",
    "distill teacher.pt --method kd+att": "kd+att: att is no term of a sum: no distiller is called 'att'; did you "
    "mean at?",
    "distill teacher.pt --kd": "distill has no option --kd; did you mean --method kd?",
    "distill teacher.pt --refiner 0.5": "no refiner is called '0.5'; did you mean halve?",
    "prune teacher.pt --method l1": "no pruner is called 'l1'; did you mean filter-l1 or magnitude?",
    "prune teacher.pt --method L1": "no pruner is called 'L1'; did you mean filter-l1 or magnitude?",
    "prune teacher.pt --method lth": "no pruner is called 'lth'; did you mean lottery?",
    "prune teacher.pt --method slim": "no pruner is called 'slim'; did you mean bn-scale?",
    "prune teacher.pt --method channel": "no pruner is called 'channel'; did you mean filter-l1?",
    "prune teacher.pt --structured": "prune has no option --structured; did you mean --method filter-l1?",
    "plugins kd": "plugins: unexpected argument 'kd'; kdtool distill --method kd --help explains it",
    # Options.
    "distill teacher.pt --workers 4": "distill has no option --workers; the workers that decode images are chosen "
    "automatically",
    "distill teacher.pt --processes ²": "--processes ²: is neither auto nor a number",
    "distill teacher.pt --seed 99999999999999999999": "Invalid value for '--seed': 99999999999999999999 is out of "
    "range (0 <= x <= 9.22337e+18)",
    "distill teacher.pt --refiner halve --stem small": "--stem: belongs to a student that is built by its name, "
    "--student SOURCE:NAME; leave it out",
    "distill teacher.pt --refiner halve --repair-images 64": "--repair-images: belongs to --repair; give that too, or "
    "leave it out",
    "distill teacher.pt --split-seed 99999999999999999999": "Invalid value for '--split-seed': 99999999999999999999 is "
    "out of range (0 <= x <= 9.22337e+18)",
    "distill teacher.pt --gpus 2": "distill has no option --gpus; write --device cuda",
    "distill teacher.pt --mixup": "--mixup: needs a value: alpha of mixup, 0.2 to 1; the teacher sees the mixed "
    "images too",
    "distill teacher.pt --optimizer": "--optimizer: needs a value: one of adam, adamw, muon, sgd",
    "distill teacher.pt --epochs --force": "Invalid value for '--epochs': expected a whole number, got '--force'; the "
    "option stands without its value",
    "distill teacher.pt --method ikd --epochs": "--epochs: needs a value: passes over the train split, for each phase",
    "export teacher.pt --format onnx": "export has no option --format; write --onnx, or --method NAME for another "
    "exporter",
    "export teacher.pt --onnx --method pt2": "--onnx and --method pt2: export writes one format; for all write export "
    "--onnx export --method pt2",
    "export teacher.pt --hub-folder hub --onnx": "--hub-folder hub and --onnx: export writes one format; for all write "
    "export --hub-folder hub export --onnx",
    "distill teacher.pt --config x.yaml": "distill has no option --config; --recipe FILE.toml takes options of the "
    "training from a file, and kdtool run FILE.toml whole commands",
    "export teacher.pt --config x.yaml": "export has no option --config; kdtool run FILE.toml takes commands with "
    "their options from a file",
    "distill --teacher teacher.pt": "distill has no option --teacher; the teacher is named without an option: kdtool "
    "distill teacher.pt",
    "distill teacher.pt --model timm:resnet18": "distill has no option --model; did you mean --student?",
    "distill teacher.pt --pretrained": "distill has no option --pretrained; it is an option of kdtool teacher",
    "distill teacher.pt --batch 32": "distill has no option --batch; did you mean --batch-size?",
    "distill teacher.pt --batch_size 32": "distill has no option --batch_size; did you mean --batch-size?",
    "distill teacher.pt --learning_rate 1": "distill has no option --learning_rate; did you mean --lr?",
    "distill teacher.pt --tau 4": "distill has no option --tau; did you mean --temperature?",
    "distill teacher.pt --early-stopping": "distill has no option --early-stopping; did you mean --patience?",
    "distill teacher.pt --amp": "distill has no option --amp; did you mean --precision?",
    "distill teacher.pt --loss kd": "distill has no option --loss; did you mean --method?",
    "distill teacher.pt --out x.pt": "distill has no option --out; did you mean --output?",
    "distill teacher.pt --overwrite": "distill has no option --overwrite; did you mean --force?",
    "distill teacher.pt -epochs 3": "distill has no option -epochs; did you mean --epochs?",
    "distill teacher.pt \u2013epochs 3": "\u2013epochs: there is no such file; it begins with a dash: an option begins "
    "with two hyphens, --epochs",
    "distill teacher.pt --xyzzy": "distill has no option --xyzzy",
    "evaluate teacher.pt --dataset digits": "evaluate has no option --dataset; did you mean --data?",
    "evaluate teacher.pt --top5": "evaluate has no option --top5; the balanced accuracy and the top-5 accuracy are "
    "shown without an option; evaluate --per-class lists the classes",
    "evaluate teacher.pt --confusion": "evaluate has no option --confusion; evaluate -o FILE.png draws the confusion "
    "matrix",
    "distill teacher.pt --weighted": "distill has no option --weighted; did you mean --class-weights?",
    "distill teacher.pt --oversample": "distill has no option --oversample; did you mean --sampling?",
    "prune teacher.pt --sparsity 0.8": "prune has no option --sparsity; did you mean --ratio?",
    "prune teacher.pt --method filter-l1 --target-latency 5ms": "prune has no option --target-latency; kdtool "
    "compress FILE --max-latency 5ms keeps within a time; a pruner of channels, such as --method filter-l1, takes --of "
    "latency --ratio 0.5 to remove half of the time",
    "export teacher.pt --half": "export has no option --half; did you mean --fp16?",
    "export teacher.pt --torchscript": "export has no option --torchscript; no exporter of that name is installed; "
    "kdtool writes ONNX, which other tools convert",
    "teacher timm:resnet18 --num-classes 9": "teacher has no option --num-classes; did you mean --classes?",
    "teacher timm:resnet18 --img-size 9": "teacher has no option --img-size; did you mean --image-size?",
    "teacher timm:resnet18 --load x.pth": "teacher has no option --load; did you mean --weights?",
    "teacher --network timm:resnet18": "teacher has no option --network; did you mean --model?",
    "export --model teacher.pt": "export has no option --model; a file is named without an option: kdtool export "
    "teacher.pt",
    "export --checkpoint=teacher.pt": "export has no option --checkpoint; a file is named without an option: kdtool "
    "export teacher.pt",
    "export --checkpoint": "export has no option --checkpoint; a file is named without an option: kdtool export FILE",
    "distill teacher.pt --int8": "distill has no option --int8; --quantize int8 trains for 8 bits, and kdtool export "
    "FILE --int8 writes the file",
    "prune teacher.pt --int8": "prune has no option --int8; kdtool export FILE --int8 writes a network in 8 bits",
    "export teacher.pt --int4": "export has no option --int4; the lowest precision is 8 bits, --int8",
    "distill teacher.pt --format onnx": "distill has no option --format; kdtool export FILE --onnx writes the result "
    "for other programs",
    "distill teacher.pt --wandb": "distill has no option --wandb; write --track wandb",
    "distill teacher.pt --logdir logs": "distill has no option --logdir; write --track tensorboard:logs",
    "distill teacher.pt --ddp": "distill has no option --ddp; did you mean --processes?",
    "distill teacher.pt --output": "--output: needs a value: output file",
    "compress teacher.pt --model timm:resnet18": "compress has no option --model; compress finds the student by "
    "itself; a student with a name is trained by kdtool distill FILE --student timm:resnet18",
    "compress teacher.pt --budget 5ms": "compress has no option --budget; a budget is --max-latency 5ms or 0.4x, "
    "--max-size 2MB or --max-macs 0.3x",
    "compress teacher.pt --latency 5ms": "compress has no option --latency; did you mean --max-latency?",
    "compress teacher.pt --size 1MB": "compress has no option --size; did you mean --max-size?",
    "compress teacher.pt --speedup 2": "compress has no option --speedup; for half of the time write --max-latency "
    "0.5x",
    "compress teacher.pt --params 1M": "compress has no option --params; the budgets are --max-latency, --max-size "
    "(the bytes of the file) and --max-macs",
    "measure student.onnx --runs 10": "measure has no option --runs; did you mean --pairs?",
    "prune teacher.pt --iterations 5": "prune has no option --iterations; did you mean --steps?",
    "teacher timm:resnet18 --steps 100": "teacher has no option --steps; the length of a training is given in epochs: "
    "--epochs",
    "teacher timm:resnet18 --train": "teacher has no option --train; a network is trained if images are given: --data",
    "teacher timm:resnet18 --no-augment": "teacher has no option --no-augment; write --augment none",
    "teacher timm:resnet18 --no-seed": "teacher has no option --no-seed; leave it out",
    "distill teacher.pt --save-every 5": "distill has no option --save-every; every epoch is saved in the run beside "
    "the output, OUTPUT.run, and --resume goes on from there",
    "distill teacher.pt --log-interval 5": "distill has no option --log-interval; -v prints a line for each epoch",
    "evaluate teacher.pt --image cat.png": "evaluate has no option --image; in Python: kdtool.load(FILE).predict("
    "IMAGE)",
    "evaluate teacher.pt --on val": "evaluate has no option --on; did you mean --split?",
    "models --pattern res": "models has no option --pattern; write kdtool models res",
    "export teacher.pt --verify": "export has no option --verify; every file is checked: it is written only if it "
    "gives the outputs of the network",
    "export teacher.pt --tflite": "export has no option --tflite; did you mean --litert?",
    "export teacher.pt --method tflite": "no exporter is called 'tflite'; did you mean litert?",
    "plugins --kind distiller": "plugins has no option --kind; kdtool plugins lists the methods of all kinds",
    "prune teacher.pt --finetune-epochs 3": "prune has no option --finetune-epochs; did you mean --epochs?",
    # Values.
    "teacher timm:resnet18 --image-size 224x224": "Invalid value for '--image-size': expected a whole number, got "
    "'224x224'; write 224",
    "distill teacher.pt --refiner halve --search temperature=1..8": "Invalid value for '--search': temperature=1..8: a "
    "search needs at least two values, all different, such as temperature=1,2,4",
    "prune teacher.pt 0.5": "0.5: there is no such file; a number stands behind its option, such as --ratio 0.5",
    "new-plugin my-loss --kind loss": "--kind loss: no methods are called so; did you mean distiller?",
    "new-plugin my-loss --kind prune": "--kind prune: no methods are called so; did you mean pruner?",
    "new-plugin my-loss --kind logger": "--kind logger: no methods are called so; did you mean tracker?",
    "new-plugin my-loss --kind xyzzy": "--kind xyzzy: no methods are called so; it is one of teacher, refiner, "
    "distiller, pruner, exporter, dataset, tracker",
    "prune teacher.pt --ratio 80%": "Invalid value for '--ratio': expected a number, got '80%'; for 80 % write 0.8",
    "prune teacher.pt --ratio 80": "Invalid value for '--ratio': 80.0 is out of range (0 < x < 1); for 80 % write 0.8",
    "prune teacher.pt --ratio 0,8": "Invalid value for '--ratio': expected a number, got '0,8'; write 0.8",
    "prune teacher.pt --ratio 180": "Invalid value for '--ratio': 180.0 is out of range (0 < x < 1)",
    "prune teacher.pt --epochs 1e3": "Invalid value for '--epochs': expected a whole number, got '1e3'; write 1000",
    "prune teacher.pt --epochs -1": "Invalid value for '--epochs': -1 is out of range (0 <= x)",
    "prune teacher.pt --optimizer SGD": "Invalid value for '--optimizer': 'SGD' is not a choice; did you mean sgd?",
    "refine teacher.pt --method depth --keep [1,1]": "Invalid value for '--keep': expected a whole number, got '[1'; "
    "a list is written as 1,2,3",
    # Files, networks and data.
    "teacher --model resnet20": "resnet20: write kdtool:resnet20",
    "teacher --model nets:make_net": "no teacher source is called 'nets', nor a module nets here; there are hf, "
    "kdtool, python, timm, torchvision",
    "teacher timm:": "timm: the name of a network is missing; kdtool models timm: lists them",
    "teacher kdtool:resnet20 --model kdtool:lenet-5": "--model kdtool:lenet-5: the network is named already, "
    "kdtool:resnet20; leave one out",
    "teacher torch:resnet18": "no teacher source is called 'torch'; did you mean torchvision?",
    "distill https://a.org/teacher.pt --refiner halve": "https:/a.org/teacher.pt: there is no such file; kdtool reads "
    "files of this machine: download it first",
    "distill teacher.pt --refiner halve -o s.onnx": "-o s.onnx: the name of this file must end in .pt; kdtool export "
    "writes ONNX: add export -o FILE.onnx",
    "report teacher.pt -o report.pdf": "-o report.pdf: the name of a report must end in .html, .md or .csv",
    "watch teacher.pt": "teacher.pt: is a file without a run beside it; name the directory of a run or of a study",
    "measure": "measure: no file given; name an ONNX file (kdtool measure FILE.onnx); kdtool export writes one",
    "models kdtool": "models: no network matches 'kdtool'; for those of kdtool write kdtool:",
    "distill teacher.pt timm:resnet18": "distill: timm:resnet18 is a network; if it is the student, write --student "
    "timm:resnet18",
    "distill teacher.pt student.pt": "--method kd learns from one teacher, not 2; for several teachers use --method "
    "ensemble; if student.pt is the student, write --student student.pt",
    "distill timm:resnet18 --student student.pt": "timm:resnet18: there is no such file; resnet18 is a network: kdtool "
    "teacher timm:resnet18 makes a checkpoint of it",
    "distill teacher.pt --student halve": "--student halve: is a refiner; write --refiner halve",
    "distill teacher.pt --student resnet20": "--student resnet20: there is no such file; write kdtool:resnet20",
    "teacher resnet20": "resnet20: write kdtool:resnet20",
    "teacher kdtool/resnet20": "kdtool/resnet20: write kdtool:resnet20",
    "teacher kdtool resnet20": "teacher: unexpected argument 'resnet20'; write kdtool:resnet20",
    "teacher yolov8": "yolov8: is a network for detection, and kdtool works with image classifiers",
    "teacher teacher.pt": "teacher.pt: is a file, and the network comes first; kdtool inspect teacher.pt shows what it "
    "is; to train a checkpoint for longer: kdtool distill teacher.pt --student teacher.pt --method none",
    "teacher photos": "photos: is a directory, and the network comes first: kdtool teacher SOURCE:NAME --data DATA",
    "teacher timm:resnet18 photos": "teacher: unexpected argument 'photos'; a folder of images is named with --data "
    "folder:photos",
    "teacher timm:resnet18 digits": "teacher: unexpected argument 'digits'; a data set is named with --data digits",
    "teacher timm:resnet18 --data ./photos": "--data ./photos: no data set is called so; for images in a folder for "
    "each class write folder:./photos",
    "teacher timm:resnet18 --data photos": "--data photos: no data set is called so; for images in a folder for each "
    "class write folder:photos",
    "teacher timm:resnet18 --data photos.zip": "--data photos.zip: is an archive; unpack it, and write folder:PATH",
    "teacher timm:resnet18 --data photos.tar": "--data photos.tar: no data set is called so; for this kind of file "
    "write webdataset:photos.tar",
    "teacher timm:resnet18 --data a/b.parquet": "--data a/b.parquet: no data set is called so; for this kind of file "
    "write parquet:a/b.parquet",
    "teacher timm:resnet18 --data hf:someone/pets": "no data set is called 'hf'; write hf-datasets:someone/pets",
    "teacher timm:resnet18 --data hf-datasets:../pets": "hf-datasets: ../pets: is no name on the Hub, such as "
    "uoft-cs/cifar100; a local folder is named with folder:, parquet: or webdataset:",
    "teacher timm:resnet18 --data imagenet": "no data set is called 'imagenet'; images in a folder for each class are "
    "folder:PATH",
    "teacher timm:resnet18 --data CIFAR10": "no data set is called 'CIFAR10'; did you mean cifar10?",
    "prune student.onnx": "student.onnx: is an ONNX file, which cannot be trained; give the checkpoint it is made "
    "from, such as student.pt",
    "distill teacher.pt --student student.onnx": "student.onnx: is an ONNX file, which cannot be trained; give the "
    "checkpoint it is made from, such as student.pt",
    "measure teacher.pt": "teacher.pt: is a checkpoint, and measure takes ONNX files; write kdtool export teacher.pt",
    "run teacher.pt": "teacher.pt: is a network, and run takes a recipe, FILE.toml; see kdtool run --help",
    "compare teacher.pt": "compare: takes two files or more, and got one; name another: kdtool compare teacher.pt FILE",
    "inspect photos": "photos: is a directory without a checkpoint; images in it are named with --data folder:photos",
    "inspect teacher": "teacher: no network given; write one as hf:NAME or kdtool:NAME or timm:NAME or "
    "torchvision:NAME or MODULE:FUNCTION; if the file teacher.pt is meant, write its whole name",
    "inspect student": "student: there is no such file; did you mean student.pt?",
    "inspect xyzzy.pt": "xyzzy.pt: there is no such file",
    "export teacher.pt teacher.onnx": "export: unexpected argument 'teacher.onnx'; the file to write is named with -o "
    "teacher.onnx",
}


@pytest.fixture
def surroundings(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a folder of images and an ONNX file beside the checkpoints; stdin is no pipe."""
    monkeypatch.setattr("kdtool.cli.stdin._is_pipe", lambda: False)
    monkeypatch.setenv("KDTOOL_CACHE", str(here.parent))
    remember(make("teachers", "kdtool"))
    (here / "photos" / "cats").mkdir(parents=True)
    (here / "student.onnx").write_bytes(b"\x08\x07")


@pytest.mark.parametrize(("line", "message"), MISTAKES.items())
def test_a_mistake_is_explained(api: Any, surroundings: None, fails: Fails, line: str, message: str) -> None:
    assert fails(line) == message
    assert api.calls == []


@pytest.mark.parametrize("line", ["-h", "distill -h"])
def test_the_short_form_of_help(run: Run, line: str) -> None:
    assert run(line).stdout.startswith("Usage: kdtool ")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("fasterrcnn_resnet50_fpn", "detection"),
        ("yolov5s", "detection"),
        ("detr-resnet-50", "detection"),
        ("fcn_resnet50", "segmentation"),
        ("bert-base-uncased", "text"),
        ("resnet18", ""),
        ("vit_base_patch16_clip_224", ""),
        ("beit_base_patch16_224", ""),
        ("samvit_base_patch16", ""),
    ],
)
def test_a_network_for_another_task_is_recognised(name: str, task: str) -> None:
    expected = f"; it is a network for {task}, and kdtool works with image classifiers" if task else ""

    assert other_task(name) == expected
