"""A plain PyTorch loop of logit distillation, as one would write it first: the least that a tool has to beat."""

import argparse
import json

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("settings", help="JSON that benchmarks.peers writes")
with open(parser.parse_args().settings, encoding="utf-8") as file:
    settings = json.load(file)

torch.manual_seed(settings["seed"])
plain = [transforms.ToTensor(), transforms.Normalize(settings["mean"], settings["std"])]
augmented = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *plain]
loaders = {
    split: DataLoader(
        datasets.ImageFolder(f"{settings['data']}/{split}", transforms.Compose(steps)),
        batch_size=settings["batch"],
        shuffle=split == "train",
        num_workers=settings["workers"],
    )
    for split, steps in (("train", augmented), ("val", plain), ("test", plain))
}


def network(name: str) -> nn.Module:
    made = getattr(models, name)(num_classes=10)
    if settings["stem"] == "small":
        made.conv1, made.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return made


def accuracy(module: nn.Module, split: str) -> float:
    module.eval()
    with torch.no_grad():
        right = sum((module(images).argmax(1) == labels).sum().item() for images, labels in loaders[split])
    return right / len(loaders[split].dataset)


teacher, student = network(settings["teacher"]), network(settings["student"])
teacher.load_state_dict(torch.load(settings["weights"], weights_only=True)["model"])
teacher.eval()
optimizer = torch.optim.SGD(student.parameters(), lr=settings["lr"], momentum=0.9, weight_decay=settings["decay"])
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings["epochs"])
alpha, temperature = settings["alpha"], settings["temperature"]
for _ in range(settings["epochs"]):
    student.train()
    for images, labels in loaders["train"]:
        with torch.no_grad():
            target = F.softmax(teacher(images) / temperature, dim=1)
        output = student(images)
        soft = F.kl_div(F.log_softmax(output / temperature, dim=1), target, reduction="batchmean")
        loss = (1 - alpha) * F.cross_entropy(output, labels) + alpha * temperature**2 * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
    accuracy(student, "val")
print(json.dumps({"accuracy": accuracy(student, "test")}))
