"""What the peers share: their settings, networks, images and accuracy. It needs torch and torchvision alone."""

import argparse
import json

import torch
from torch import nn
from torchvision import datasets, models, transforms


def read_settings(about):
    """Return the settings that the command line names."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("settings", help="JSON that benchmarks.peers writes")
    with open(parser.parse_args().settings, encoding="utf-8") as file:
        settings = json.load(file)
    torch.manual_seed(settings["seed"])
    return settings


def images_of(settings):
    """Return the images of each split, those of train augmented."""
    plain = [transforms.ToTensor(), transforms.Normalize(settings["mean"], settings["std"])]
    augmented = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *plain]
    return {
        split: datasets.ImageFolder(f"{settings['data']}/{split}", transforms.Compose(steps))
        for split, steps in (("train", augmented), ("val", plain), ("test", plain))
    }


def networks_of(settings):
    """Return the trained teacher and a fresh student."""
    teacher, student = _network(settings, "teacher"), _network(settings, "student")
    teacher.load_state_dict(torch.load(settings["weights"], weights_only=True)["model"])
    return teacher, student


def _network(settings, role):
    made = getattr(models, settings[role])(num_classes=10)
    if settings["stem"] == "small":
        made.conv1, made.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return made


def accuracy(module, batches):
    """Return the part of the images that a network classifies rightly."""
    module.eval()
    with torch.inference_mode():
        right = sum((module(images).argmax(1) == labels).sum().item() for images, labels in batches)
    return right / len(batches.dataset)
