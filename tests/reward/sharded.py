"""Two steps of the reward training with weights divided among processes, as FSDP2 does on GPUs.

    torchrun --nproc_per_node 2 -m tests.reward.sharded BASE LABELS OUT

accelerate starts FSDP2 on accelerators alone; here torch's own `fully_shard` divides the trainer's
module on CPUs, block by block as the configuration file says. Writes what the trainer would
checkpoint after each of two steps.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from modeling.reward.data import Pictures, Snapshot, make_batch, pairs_of, shard
from modeling.reward.objective import answer_loss
from modeling.reward.state import gather_state, load_state, write_state
from modeling.reward.train import AnswerModel
from modeling.reward.vlm import load_reward_vlm

BLOCKS = ("Qwen2_5_VLDecoderLayer", "Qwen2_5_VLVisionBlock")


def main(base: str, labels: str, out: str) -> None:
    count = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if count > 1 else 0
    vlm = load_reward_vlm(base, trainable=True)
    scorer = AnswerModel(vlm)
    if count > 1:
        mesh = init_device_mesh("cpu", (count,))
        for module in list(scorer.modules()):
            if type(module).__name__ in BLOCKS:
                fully_shard(module, mesh=mesh)
        fully_shard(scorer, mesh=mesh)
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=1e-3)
    data = Snapshot(labels)
    pairs = pairs_of(data, "train")[:5]
    total = sum(question.weight for pair in pairs for question in pair.questions)
    place = Path(out)
    for step in range(2):
        batch = make_batch(shard(pairs, rank, count), Pictures(data, vlm.view))
        logits: Any = scorer(batch.images, batch.orders, batch.queries)[0]
        loss = answer_loss(logits, vlm.yes_id, vlm.no_id, batch.target, batch.weight)
        (loss * count / total).backward()
        optimizer.step()
        optimizer.zero_grad()
        state = gather_state(scorer, optimizer)
        if rank == 0:
            folder = place / f"step-{step}"
            folder.mkdir(parents=True)
            write_state(folder, state)
        if count > 1:
            dist.barrier()
            # What was written can be taken up again.
            load_state(place / f"step-{step}", scorer, optimizer)


if __name__ == "__main__":
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    main(*sys.argv[1:])
    if dist.is_initialized():
        dist.destroy_process_group()
