"""Name the source of the method here: authors, title, year, arXiv number."""

from kdtool import Error, Network, Refiner, option
from kdtool.surgery import halve_widths


class Fit(Refiner):
    """Halve all widths until the network is small enough."""

    parameters: int = option(20_000, minimum=1, help="how many parameters the result may have")

    def refine(self, network: Network) -> Network:
        for times in range(1, 10):
            smaller = halve_widths(network, times=times, init=self.init)
            if sum(weight.numel() for weight in smaller.module.parameters()) <= self.parameters:
                return smaller
        raise Error(f"{network.architecture.spec}: stays above {self.parameters} parameters; allow more")
