"""A refiner of another package takes part in a compression, and wins it."""

import kdtool
from kdtool.compression.record import results_of
from kdtool.testing.checks import check_refiner

# A third party's refiner: it narrows with the teacher's weights, so that it is ahead of fresh ones after an epoch.
CODE = '''
from kdtool import Refiner, option
from kdtool.surgery import halve_widths


class Thin(Refiner):
    """Narrow every layer and keep the strongest weights."""

    part: float = option(0.5, above=0, below=1, help="part of the widths to keep")
    init: str = option("inherit", choices=("inherit",), help="weights to start from")

    @classmethod
    def ladders(cls, network):
        return [[{"part": step / 50} for step in range(49, 4, -1)]]

    def refine(self, network):
        return halve_widths(network, ratio=self.part, init="inherit")
'''


def test_it_keeps_the_contract(site):
    site.install("thin", CODE, kind="refiners")
    check_refiner(kdtool.make("refiners", "thin"))


def test_a_third_partys_refiner_wins_a_budget(site, teacher_path, tmp_path):
    site.install("thin", CODE, kind="refiners")
    student = kdtool.compress(
        teacher_path, max_macs="0.3x", output=tmp_path / "s.pt",
        candidates=("thin", "halve"), quantised=False, epochs=1, lr=1e-4,
    )  # fmt: skip
    results = results_of(student)
    assert {row["setting"].split()[0] for row in results["trials"]} == {"thin", "halve"}
    assert results["winner"].startswith("thin part=")
    assert student.history[-1]["candidate"]["method"] == "thin"
