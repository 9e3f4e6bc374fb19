"""What an hour of a node or of a GPU costs: a section of the cluster file.

The plan reads it for the money of a whole run. Prices of language models are in the recipe
(`thinktune.schema.llm`).
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from thinktune.schema.catalog import HardwareEntry, Name
from thinktune.schema.closed import Closed
from thinktune.schema.kube_names import LabelValue

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class HourlyPrices(Closed):
    """What nodes cost for an hour. Of a node's price and its GPUs', the node's counts."""

    currency: Currency
    """Currency of all prices here, by its ISO 4217 code, such as `EUR`."""
    gpu_hour: dict[LabelValue, Price] = {}
    """Price of an hour of one GPU, with its share of the node, by the value of the node label
    `nvidia.com/gpu.product`, such as `NVIDIA-L4`."""
    node_hour: dict[Name, Price] = {}
    """Price of an hour of a node, by hardware entry. A stage that takes one GPU of such a node is
    charged the whole node, because nothing else may run on it."""
    cpu_node_hour: Price | None = None
    """Price of an hour of a node in `cpu_nodes`, on which prep runs. Null leaves prep out."""

    @model_validator(mode="after")
    def _some_price(self) -> Self:
        if not self.gpu_hour and not self.node_hour and self.cpu_node_hour is None:
            raise ValueError("there is no price; give gpu_hour, node_hour or cpu_node_hour")
        return self

    def on_gpus(self, name: str, node: HardwareEntry, gpus: int, nodes: int) -> float | None:
        """Money for an hour of `gpus` GPUs of each of `nodes` nodes of the hardware entry `name`;
        None where nothing says it."""
        if name in self.node_hour:
            return nodes * self.node_hour[name]
        price = self.gpu_hour.get(node.product) if node.product is not None else None
        return None if price is None else nodes * gpus * price
