"""A plain PyTorch loop of logit distillation, as one would write it first: the least that a tool has to beat."""

import json

import torch
from shared import accuracy, images_of, networks_of, read_settings
from torch.nn import functional as F
from torch.utils.data import DataLoader

settings = read_settings(__doc__)
loaders = {
    split: DataLoader(images, batch_size=settings["batch"], shuffle=split == "train", num_workers=settings["workers"])
    for split, images in images_of(settings).items()
}
teacher, student = networks_of(settings)
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
    accuracy(student, loaders["val"])
print(json.dumps({"accuracy": accuracy(student, loaders["test"])}))
