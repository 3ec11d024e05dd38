"""Name the source of the method here: authors, title, year, arXiv number."""

from pathlib import Path

import torch

from kdtool import Dataset, option
from kdtool.data import RawData, RawSplit


class Stripes(Dataset):
    """Draw gray stripes that lie or stand, in noise."""

    noise: int = option(64, minimum=0, maximum=127, help="largest change of a pixel")

    def load(self, argument: str, root: Path | None) -> RawData:
        return RawData(self._draw(512, 0), None, self._draw(128, 1), ("lying", "standing"), channels=1, image_size=16)

    def _draw(self, images: int, seed: int) -> RawSplit:
        chance = torch.Generator().manual_seed(seed)
        labels = torch.arange(images) % 2
        lying = (torch.arange(16) // 2 % 2 * 127 + 64).expand(images, 1, 16, 16)
        pixels = torch.where(labels.view(-1, 1, 1, 1) == 0, lying.transpose(2, 3), lying)
        noise = torch.randint(-self.noise, self.noise + 1, pixels.shape, generator=chance)
        return RawSplit((pixels + noise).clamp(0, 255).to(torch.uint8), labels)
