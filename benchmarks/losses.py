"""What an epoch of each distillation loss costs over the same loss in a loop written by hand.

Both train the same student (ResNet-18 of half the widths) with the same teacher (ResNet-18) from the same weights on
the same digits, in turn, in fp32 on one thread; nothing is cached, and the taps, the adapters and the teacher are in
both. The loop of kdtool also augments, normalises, schedules and looks at the loss. Prints the median of the paired
ratios of CPU time. Goal: at most 1.2.

    python benchmarks/losses.py --rounds 9 --subset 0.5 --size 32
"""

import argparse
import copy
import statistics
import time

import torch
from loop_overhead import Nowhere
from torch import nn
from torch.nn import functional as F

from kdtool import make
from kdtool.data.opening import open_data
from kdtool.data.options import DataOptions
from kdtool.distillation.classifier_reuse import reuse_classifier
from kdtool.models.options import NetworkOptions
from kdtool.models.sources import create
from kdtool.training import Auxiliary
from kdtool.training.engine import Engine
from kdtool.training.loop import Loop
from kdtool.training.optimization.optimizer import make_optimizer
from kdtool.training.options import Training
from kdtool.training.plan import FitPlan
from kdtool_distillers.exits import Exits, taps_of
from kdtool_distillers.fusion import Fusion
from kdtool_distillers.mutual import Mutual, MutualLoss
from kdtool_distillers.peers import Peers
from kdtool_distillers.self import Self, SelfLoss
from kdtool_distillers.simkd import MapLoss

METHODS = (
    "kd", "dkd", "dist", "logit-std", "fitnets", "at", "reviewkd", "simkd", "rkd", "sp", "cc", "fsp", "kd+at",
    "mutual", "self",
)  # fmt: skip
# Without a teacher.
ALONE = ("mutual", "self")


def forward(net, images):
    """The five maps of a ResNet of torchvision, and its logits."""
    maps = [net.relu(net.bn1(net.conv1(images)))]
    x = net.maxpool(maps[0])
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)
        maps.append(x)
    return maps, net.fc(net.avgpool(x).flatten(1))


def soft(student, teacher, temperature):
    p, q = (F.log_softmax(one / temperature, dim=1) for one in (student, teacher))
    return F.kl_div(p, q, reduction="batchmean", log_target=True) * temperature**2


def kd(s, t, y, extra):
    return 0.1 * F.cross_entropy(s[1], y) + 0.9 * soft(s[1], t[1], 4)


def dkd(s, t, y, extra):
    right = F.one_hot(y, s[1].shape[1]).bool()
    p, q = (F.softmax(one / 4, dim=1) for one in (s[1], t[1]))
    ours, theirs = (torch.stack([(one * right).sum(1), (one * ~right).sum(1)], dim=1) for one in (p, q))
    first = F.kl_div(ours.log(), theirs, reduction="batchmean") * 16
    return F.cross_entropy(s[1], y) + (first + 8 * soft(s[1] - 1000.0 * right, t[1] - 1000.0 * right, 4)) / 20


def dist(s, t, y, extra):
    def one_minus(a, b):
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        return 1 - ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-8)).mean()

    p, q = (F.softmax(one / 4, dim=1) for one in (s[1], t[1]))
    return F.cross_entropy(s[1], y) + 2 * 16 * one_minus(p, q) + 2 * 16 * one_minus(p.t(), q.t())


def logit_std(s, t, y, extra):
    ours, theirs = ((one - one.mean(1, keepdim=True)) / (one.std(1, keepdim=True) + 1e-7) for one in (s[1], t[1]))
    return 0.1 * F.cross_entropy(s[1], y) + 9 * soft(ours, theirs, 2)


def fitnets(s, t, y, extra):
    return F.cross_entropy(s[1], y) + 100 * F.mse_loss(extra(s[0][2]), t[0][2])


def at(s, t, y, extra):
    def where(maps):
        return F.normalize(maps.pow(2).mean(1).flatten(1))

    terms = [(where(a) - where(b)).pow(2).mean() for a, b in zip(s[0][1:], t[0][1:], strict=True)]
    return F.cross_entropy(s[1], y) + 1000 * sum(terms)


def reviewkd(s, t, y, extra):
    # kdtool takes the maps before the last ReLU; by hand they would cost the same.
    total = 0
    for ours, theirs in zip(extra(s[0][1:]), t[0][1:], strict=True):
        loss, weight, weights = F.mse_loss(ours, theirs), 1.0, 1.0
        for side in (4, 2, 1):
            if side < ours.shape[2]:
                weight /= 2
                small = F.adaptive_avg_pool2d(ours, side), F.adaptive_avg_pool2d(theirs, side)
                loss, weights = loss + weight * F.mse_loss(*small), weights + weight
        total += loss / weights
    return F.cross_entropy(s[1], y) + total / 20


def simkd(s, t, y, extra):
    return F.mse_loss(s[0][4], t[0][4])


def rkd(s, t, y, extra):
    distances, angles = [], []
    for maps in (s[0][4], t[0][4]):
        features = maps.mean((2, 3))
        apart = features.unsqueeze(0) - features.unsqueeze(1)
        square = features.pow(2).sum(1)
        far = (square[:, None] + square[None] - 2 * features @ features.t()).clamp(min=1e-12).sqrt()
        far = far * (1 - torch.eye(len(far)))
        distances.append(far / far[far > 0].mean())
        unit = F.normalize(apart, dim=2)
        angles.append(torch.bmm(unit, unit.transpose(1, 2)))
    return F.cross_entropy(s[1], y) + 25 * F.smooth_l1_loss(*distances) + 50 * F.smooth_l1_loss(*angles)


def sp(s, t, y, extra):
    ours, theirs = (F.normalize(one[0][4].flatten(1) @ one[0][4].flatten(1).t()) for one in (s, t))
    return F.cross_entropy(s[1], y) + 3000 * (ours - theirs).pow(2).sum() / len(y) ** 2


def cc(s, t, y, extra):
    kernels = []
    for maps in (s[0][4], t[0][4]):
        rows = F.normalize(maps.mean((2, 3)))
        x = 0.8 * rows @ rows.t()
        kernels.append((1 + x + x**2 / 2) * 0.449329)
    return F.cross_entropy(s[1], y) + 100 * F.mse_loss(*kernels)


def fsp(s, t, y, extra):
    total, ours = 0, [adapt(maps) for adapt, maps in zip(extra, s[0], strict=True)]
    for number in range(4):
        flows = []
        for maps in (ours, t[0]):
            small = F.adaptive_max_pool2d(maps[number], maps[number + 1].shape[2:])
            flows.append(torch.bmm(small.flatten(2), maps[number + 1].flatten(2).transpose(1, 2)) / small[0, 0].numel())
        total += F.mse_loss(*flows)
    return F.cross_entropy(s[1], y) + 50 * total


def kd_at(s, t, y, extra):
    return at(s, t, y, extra) + 0.9 * soft(s[1], t[1], 4)


def mutual(s, images, y, extra):
    ours, theirs = s[1], extra(images)
    hard = F.cross_entropy(ours, y) + F.cross_entropy(theirs, y)
    return hard + soft(ours, theirs.detach(), 1) + soft(theirs, ours.detach(), 1)


def self(s, images, y, extra):
    last, *found = extra(images, s[0][1:])
    total, p = 0.9 * F.cross_entropy(s[1], y), (s[1].detach() / 3).softmax(1)
    for features, logits in zip(found[::2], found[1::2], strict=True):
        taught = -(p * (logits / 3).log_softmax(1)).sum(1).mean() * 9
        total = total + 0.9 * F.cross_entropy(logits, y) + 0.1 * taught
        total = total + 1e-6 * (features - last.detach()).pow(2).sum()
    return total


def beside(method, plan):
    """What the loop by hand learns beside the student."""
    if method == "mutual":
        return copy.deepcopy(plan.auxiliary.module.members[0])
    if method == "self":
        return copy.deepcopy(plan.auxiliary.module)
    convolutions = [nn.Conv2d(one.student.channels, one.teacher.channels, 1) for one in plan.pairs]
    if method == "fitnets":
        return convolutions[0]
    if method == "fsp":
        return nn.ModuleList(convolutions)
    return Fusion(plan.pairs) if method == "reviewkd" else nn.Identity()


def by_hand(method, plan, module, teacher, training, batches, held_out):
    loss, extra = globals()[method.replace("-", "_").replace("+", "_")], beside(method, plan)
    optimizer = make_optimizer([*module.parameters(), *extra.parameters()], training)
    started = time.process_time()
    module.train()
    extra.train()
    for images, target in batches:
        with torch.no_grad():
            taught = images if method in ALONE else forward(teacher, images)
        loss(forward(module, images), taught, target, extra).backward()
        optimizer.step()
        optimizer.zero_grad()
    module.eval()
    with torch.no_grad():
        for images in held_out:
            module(images)
    return time.process_time() - started


def looped(plan, module, data, engine):
    train, val = plan.batches(data, engine, None)
    loop = Loop(plan.student_module(module), plan, train, val, engine, Nowhere())
    started = time.process_time()
    loop.run()
    return time.process_time() - started


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--subset", type=float, default=0.5)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    told = parser.parse_args()
    torch.set_num_threads(1)
    data = open_data(DataOptions(data="digits", subset=told.subset), image_size=told.size)
    training = Training(epochs=1, precision="fp32", device="cpu", batch_size=told.batch_size)
    engine = Engine(training, 0)
    teacher = create("torchvision:resnet18", options=NetworkOptions(), data=data)
    small = make("refiners", "halve").refine(teacher)
    # As in kdtool's loop, batch-norm has no batch of one image.
    drawn = data.train.batches(told.batch_size, view=0)
    batches = [(images, target) for _, images, target in drawn if len(target) > 1]
    held_out = [images for _, images, _ in data.val.batches(256)]
    print(f"{'method':10} {'loop / by hand':>14}   range            seconds a step by hand")
    for method in told.methods:
        student, others = small, None
        objective = make("distillers", method) if method not in ("simkd", *ALONE) else None
        if method == "simkd":
            student, pair = reuse_classifier(small, teacher, factor=2, seed=0)
            objective = MapLoss(taps=(f"{pair.student.path}={pair.teacher.path}",))
        if method == "mutual":
            objective, others = (
                MutualLoss(objective=Mutual().objective),
                Auxiliary(Peers([copy.deepcopy(small.module)])),
            )
        if method == "self":
            taps = taps_of(student, None)
            objective, others = SelfLoss(Self()), Auxiliary(Exits(taps, student.architecture.classes), tuple(taps))
        taught_by = None if method in ALONE else teacher
        plan = FitPlan("bench", student, taught_by, objective, None, others, training)
        ratios, steps = [], []
        for _ in range(told.rounds):
            ours = looped(plan, copy.deepcopy(student.module), data, engine)
            hand = by_hand(
                method, plan, copy.deepcopy(student.module), teacher.module, training, batches, held_out
            )  # fmt: skip
            ratios.append(ours / hand)
            steps.append(hand / len(batches))
        low_high = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"{method:10} {statistics.median(ratios):14.3f}   {low_high}   {min(steps):.3f}", flush=True)


if __name__ == "__main__":
    main()
