"""Logit distillation by torchdistill's own boxes: what its script for image classification runs.

It is run in an environment where torchdistill is installed, and kdtool is not.
"""

import json

import torch
from shared import accuracy, images_of, networks_of, read_settings
from torch.utils.data import RandomSampler, SequentialSampler
from torchdistill.core.distillation import get_distillation_box

settings = read_settings(__doc__)
data = images_of(settings)


def loader(split: str) -> dict:
    sampler = {"class_or_func": RandomSampler if split == "train" else SequentialSampler, "kwargs": {}}
    settings_of = {"batch_size": settings["batch"], "num_workers": settings["workers"]}
    return {"dataset_id": split, "sampler": sampler, "kwargs": settings_of}


teacher, student = networks_of(settings)
at_the_output = {
    f"{who}_module_{what}": end for who in ("student", "teacher") for what, end in (("path", "."), ("io", "output"))
}
kd = {
    "key": "KDLoss",
    "kwargs": {
        **at_the_output,
        "temperature": settings["temperature"],
        "alpha": 1 - settings["alpha"],
        "reduction": "batchmean",
    },
}
model = {"forward_proc": "forward_batch_only", "adaptations": {}, "sequential": [], "frozen_modules": []}
config = {
    "num_epochs": settings["epochs"],
    "train_data_loader": loader("train"),
    "val_data_loader": loader("val"),
    "teacher": {**model, "requires_grad": False},
    "student": {**model, "requires_grad": True},
    "optimizer": {
        "key": "SGD",
        "kwargs": {"lr": settings["lr"], "momentum": 0.9, "weight_decay": settings["decay"]},
    },
    "scheduler": {"key": "CosineAnnealingLR", "kwargs": {"T_max": settings["epochs"]}},
    "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"kd": {"criterion": kd, "weight": 1.0}}}},
}
box = get_distillation_box(teacher, student, data, config, torch.device("cpu"), None, False, 1)
for epoch in range(box.num_epochs):
    box.pre_epoch_process(epoch=epoch)
    for images, labels, extra in box.train_data_loader:
        box.post_forward_process(loss=box.forward_process(images, labels, extra))
    accuracy(student, box.val_data_loader)
    box.post_epoch_process()
test = torch.utils.data.DataLoader(data["test"], batch_size=settings["batch"], num_workers=settings["workers"])
print(json.dumps({"accuracy": accuracy(student, test)}))
