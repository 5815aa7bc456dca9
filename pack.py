"""Any data set → shards to train from: python pack.py data=… out=DIR_OR_URL."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict

from runner.errors import clear_errors

CONFIG_DIR = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="pack")
def main(config: DictConfig) -> None:
    """Pack as the config says."""
    from hydra.utils import instantiate  # torch takes seconds to import; --help should not
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    from rich.text import Text

    from datamodules.core.datamodule import MultimodalDataModule
    from datamodules.layouts.shards.writer import draws, pack
    from perceiver.names import shown

    with open_dict(config):
        if "cache_gib" in config.data:
            config.data.cache_gib = 0  # cells as they lie on the disk are what is packed
    if OmegaConf.is_missing(config, "out"):
        raise ValueError("where to? name a folder or a URL with out=…")
    datamodule = instantiate(config.data)
    if not isinstance(datamodule, MultimodalDataModule):
        raise ValueError(f"{type(datamodule).__name__} draws without end, it cannot be packed")
    datamodule.prepare_data()
    console = Console(soft_wrap=True)
    for line in datamodule.summary():
        console.print(Text(shown(line, 4000)))
    if draws(datamodule):
        console.print("what is drawn anew every epoch is packed as it is in the first")
    columns = ("{task.description:5}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        tasks = {name: bar.add_task(name, total=len(s)) for name, s in datamodule.splits.items()}
        told = pack(
            datamodule,
            config.out,
            shard_bytes=round(config.shard_mib * 2**20),
            decoded=config.decoded,
            progress=lambda split, done, total: bar.update(tasks[split], completed=done),
        )
    count = sum(map(len, told.shards.values()))
    console.print(Text(f"{count} shards in {config.out}; train from them with"))
    console.print(Text(f"  python train.py data=shards data.root={config.out}"))


if __name__ == "__main__":
    with clear_errors(CONFIG_DIR, "pack"):
        main()
