"""The configuration of a policy training: one frozen dataclass, every field documented and checked.

The defaults are the starter project's recipe. What matters for FLUX.1-Fill-dev on a GPU:
    dtype="bfloat16", gradient_checkpointing=true, micro_batch_size=1, batch_size=8, lr=1e-5,
    num_inference_steps=28, rollout_steps=14, max_pixels=262144, steps=2000.
anchor_weight and tone_weight were chosen on the starter models and have not been tried on others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from generation.diffusion.spec import PolicySpec
from modeling.rundir import TRACKERS

ALGORITHMS = ("frozen", "dynamic", "refl", "diffusion_dpo", "sft", "diffusion_nft")
ENDPOINTS = ("frozen", "dynamic", "refl")  # they follow the reward's gradient from an endpoint
LABELLED = ("diffusion_dpo", "sft")  # they learn from `pairs`, not from the reward model
REWARDS = ("reward_vlm", "ocr")
REWARD_FORMS = ("margin", "squared", "probability")
ORDERS = ("random", "both", "policy_first", "reference_first")
DTYPES = ("float32", "bfloat16")
ANCHORS = ("parent", "base")
COMBINATIONS = ("mean", "normalised", "pcgrad")
STORAGES = ("", "float8", "nf4")
COMPILED = ("transformer", "reward")
KEEPS = ("auto", "best", "last")


@dataclass(frozen=True)
class RewardSpec:
    location: str  # hub id or directory of the reward VLM
    adapter: str = ""  # directory of its LoRA, "" = none
    quantisation: str = ""  # of its language model: "", nf4 or int8 (bitsandbytes)


@dataclass(frozen=True)
class MonitorConfig:
    """When a run is stopped because the policy games its reward (see monitors.py).

    Each limit compares the policy with its parent on the same held-out sources and noise. A limit
    must be passed at two checks in a row.
    """

    every: int = 20  # steps between two checks, 0 = never
    sources: int = 16  # held-out sources that are sampled at each check
    max_drift: float = 0.10  # relative squared change of the velocity field
    seeds: int = 2  # pictures a source, for their diversity; 1 = it is not measured
    max_psnr_drop: float = 3.0  # dB lost outside the mask
    max_ssim_drop: float = 0.05  # structural similarity lost there
    max_roughness: float = 2.0  # high-frequency energy inside the mask, times the parent's
    max_grid: float = 1.6  # jumps across token borders against jumps inside, times the parent's
    min_diversity: float = 0.5  # distance of two seeds' pictures, times the parent's
    max_reward_gap: float = 0.25  # P(Yes) less the held-out reward model's, where there is one
    max_adapter_norm: float = 0.0  # how far the weights may move, 0 = any distance
    stop: bool = True  # False only logs the alarm

    def __post_init__(self) -> None:
        _check(self.every >= 0, "monitor.every", self.every, "0 or more")
        _check(self.sources >= 1, "monitor.sources", self.sources, "1 or more")
        _check(self.seeds >= 1, "monitor.seeds", self.seeds, "1 or more")
        for name in ("drift", "psnr_drop", "ssim_drop", "roughness", "grid", "reward_gap"):
            value = getattr(self, f"max_{name}")
            _check(value > 0, f"monitor.max_{name}", value, "above 0")
        _check(self.min_diversity >= 0, "monitor.min_diversity", self.min_diversity, "0 or more")
        _check(
            self.max_adapter_norm >= 0,
            "monitor.max_adapter_norm",
            self.max_adapter_norm,
            "0 or more",
        )


@dataclass(frozen=True)
class PolicyConfig:
    """A policy run. Paths may be relative to the run directory."""

    # --- what is trained, on what, by which judge ---
    policy: PolicySpec  # the parent; its adapter starts policy, EMA and reference
    reward: RewardSpec
    sources: str = "sources.jsonl"  # rows of id, task, weight, image, mask, prompt, split, queries

    # --- algorithm ---
    # frozen: OneReward's Algorithm 1; dynamic: its Algorithm 2, the reference is the EMA;
    # refl: ReFL with one scalar score; diffusion_dpo, sft: from labelled pairs; diffusion_nft: from
    # `rewards` without gradient. Each is defined in modeling/policy/objectives.
    algorithm: str = "frozen"
    steps: int = 600
    batch_size: int = 16  # sources a step, of all processes together
    micro_batch_size: int = 0  # sources whose activations coexist on a process, 0 = all of its part
    seed: int = 0

    # --- optimisation ---
    lr: float = 6e-4
    warmup_steps: int = 10  # linear warm-up of the learning rate
    final_lr: float = 0.1  # share of it left at the end (linear decay over the second half)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    full_finetune: bool = False  # train all weights of the transformer instead of a LoRA
    # full_finetune on several processes: each keeps a part of the weights, averages and moments
    # (FSDP2, sharding.py). accelerate's FSDP configuration turns it on.
    divide_weights: bool = False
    lora_rank: int = 16  # of a new LoRA (its alpha equals its rank); a parent's LoRA keeps its own
    ema_decay: float = 0.98  # tau, reached gradually: min(tau, (1 + step) / (10 + step))

    # --- reward ---
    reward_form: str = "margin"  # hinge on the margin, its square, or the paper's on P(Yes)
    cap: float = 0.95  # lambda: a reward above this probability earns nothing more
    # Which image the reward model sees first: random, both, policy_first or reference_first. The
    # last keeps what the model has read of a reference for the steps that use it again.
    order: str = "random"
    prefix_cache_mb: int = 2048  # reference_first: memory for what is kept
    # How the dimensions' gradients at the pixels become one: mean, normalised or pcgrad
    # (conflict.py). The last two cost a backward pass of the reward model for every dimension.
    gradient_combination: str = "mean"
    straight_through: bool = False  # score the finished sample, with the endpoint's gradient
    anchor_weight: float = 12.0  # times the velocity's squared distance from the anchor
    tone_weight: float = 300.0  # times the squared distance of the velocities' means under the mask
    anchor: str = "parent"  # what is held on to: the parent policy, or the base without LoRA

    # --- objectives other than OneReward ---
    pairs: str = "pairs.jsonl"  # diffusion_dpo, sft: rows of source, chosen, rejected, weight …
    dpo_beta: float = 2000.0  # diffusion_dpo: how much a difference in squared error weighs
    rewards: dict[str, float] = field(default_factory=lambda: {"reward_vlm": 1.0})
    # ^ diffusion_nft: weight of each named reward (modeling/policy/rewards.py)
    group_size: int = 4  # diffusion_nft: pictures of a source; divides batch_size
    noise_levels: int = 2  # diffusion_nft: noise levels that a picture is learnt from at
    nft_beta: float = 1.0  # diffusion_nft: how far the implicit policies lie from the sampling one

    # --- rollouts ---
    num_inference_steps: int = 6  # as the policy will be sampled
    # Steps of what is sampled for training, of second order (Adams-Bashforth); 0 = as sampled
    # otherwise, by num_inference_steps of Euler's. Half as many lie nearer the flow's true path.
    rollout_steps: int = 0
    t_range: tuple[float, float] = (0.3, 1.0)  # part of the steps that carry the gradient
    # OneReward, refl: endpoints with a gradient that share a rollout; `batch_size` counts rollouts.
    # Their gradients are alike: on the starter models 2 are worth 1.3 rollouts, 4 are worth 1.6.
    gradients_per_rollout: int = 1
    guidance_scale: float = 30.0
    true_cfg_scale: float = 1.0  # above 1: true CFG with `negative_prompt`
    negative_prompt: str = ""
    # Train without true CFG: one forward instead of two, and the policy learns what CFG would give.
    # The pictures that are watched and shown are still sampled with it.
    cfg_free: bool = False
    references_per_source: int = 2  # frozen: references cached per source
    reference_best_of: int = 1  # samples per reference; the reward model's favourite is kept
    reference_staleness: int = 0  # dynamic: steps for which a source's reference may be used again
    max_pixels: int = 262144  # larger sources are scaled down to this area
    # (share of the steps, max_pixels) one after another; the rest is trained at `max_pixels`, since
    # a policy that ends at a low resolution draws grids at a high one.
    resolutions: tuple[tuple[float, int], ...] = ()

    # --- machine ---
    preload: bool = True  # read the next step's pictures in a thread beside the step
    # Directory of text embeddings and latents, shared by runs; "" = encoded anew in each run. The
    # platform's own runs share one in its data directory.
    condition_cache: str = ""
    condition_cache_gb: float = 20.0  # kept of them when a run starts
    source_memory_mb: int = 4096  # pictures and conditions kept in memory
    dtype: str = "float32"  # of base weights and activations; LoRA, EMA and optimiser stay fp32
    gradient_checkpointing: bool = False  # of the transformer's blocks and the VAE
    # Decode the endpoint without graph for the reward model, and again with it once its gradient at
    # the pixels is known: the two models' activations never coexist, for one more forward.
    recompute_endpoint: bool = False
    base_storage: str = (
        ""  # of the frozen base under a LoRA: "" = dtype, float8 or nf4 (needs CUDA)
    )
    offload_reward: bool = False  # reward models stay on the CPU but for their part of a step
    compile: tuple[str, ...] = ()  # blocks to compile: of the transformer, of the reward model

    # --- watching and keeping ---
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    # A reward model of other labels, asked at each check and never followed; "" = none.
    held_out: RewardSpec = field(default_factory=lambda: RewardSpec(""))
    # What the run gives out: its last weights, or the best check's (best.py). auto: best where a
    # held-out reward model can say so; the training's own is what a policy learns to please.
    keep: str = "auto"
    sample_every: int = 50  # steps between sample grids, 0 = only at the end
    checkpoint_every: int = 50  # steps between checkpoints
    trackers: tuple[str, ...] = ()  # beside TensorBoard: wandb, mlflow, trackio where installed
    tracker_project: str = "oneloop"  # the project (experiment) that runs belong to there

    def __post_init__(self) -> None:
        _choice("algorithm", self.algorithm, ALGORITHMS)
        _choice("reward_form", self.reward_form, REWARD_FORMS)
        _choice("order", self.order, ORDERS)
        _choice("dtype", self.dtype, DTYPES)
        _choice("anchor", self.anchor, ANCHORS)
        _choice("keep", self.keep, KEEPS)
        _choice("gradient_combination", self.gradient_combination, COMBINATIONS)
        if self.algorithm == "refl" and self.gradient_combination != "mean":
            raise ValueError("gradient_combination must be 'mean' with refl: it has one score.")
        if self.keep == "best" and not self.monitor.every:
            raise ValueError("keep 'best' needs checks to choose from: set monitor.every.")
        for name in ("steps", "batch_size", "lora_rank", "num_inference_steps"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("references_per_source", "reference_best_of", "checkpoint_every"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        self._check_machine()
        for name in (
            "prefix_cache_mb",
            "micro_batch_size",
            "warmup_steps",
            "sample_every",
            "rollout_steps",
            "reference_staleness",
        ):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("weight_decay", "anchor_weight", "tone_weight", "guidance_scale"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("group_size", "noise_levels", "gradients_per_rollout"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("lr", "max_grad_norm", "dpo_beta", "nft_beta"):
            _check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        _check(0.5 <= self.cap < 1, "cap", self.cap, "at least 0.5 and below 1")
        _check(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "at least 0 and below 1")
        _check(0 < self.final_lr <= 1, "final_lr", self.final_lr, "above 0, at most 1")
        _check(self.true_cfg_scale >= 1, "true_cfg_scale", self.true_cfg_scale, "1 or more")
        _check(self.max_pixels >= 1024, "max_pixels", self.max_pixels, "1024 or more")
        for name in self.trackers:
            _choice("trackers", name, TRACKERS)
        for name, weight in self.rewards.items():
            _choice("rewards", name, REWARDS)
            _check(weight > 0, f"rewards.{name}", weight, "above 0")
        _check(bool(self.rewards), "rewards", self.rewards, "at least one reward with its weight")
        if self.algorithm == "diffusion_nft":
            groups = self.group_size > 1 and self.batch_size % self.group_size == 0
            wanted = f"2 or more and divide batch_size ({self.batch_size})"
            _check(groups, "group_size", self.group_size, wanted)
        if self.cfg_free and self.true_cfg_scale == 1:
            raise ValueError(
                "cfg_free leaves true CFG out of the training, and true_cfg_scale is 1, which is "
                "none: set the scale that pictures are to be sampled with."
            )
        low, high = self.t_range
        _check(0 <= low < high <= 1, "t_range", self.t_range, "two rising numbers in [0, 1]")
        steps = gradient_steps(rollout_steps(self), self.t_range)
        if not steps:
            which = "rollout_steps" if self.rollout_steps else "num_inference_steps"
            raise ValueError(
                f"t_range {list(self.t_range)} holds none of the {rollout_steps(self)} steps: "
                f"widen it or take more {which}."
            )
        if self.gradients_per_rollout > len(steps):
            raise ValueError(
                f"gradients_per_rollout must be at most {len(steps)}, the steps that t_range "
                f"{list(self.t_range)} holds, got {self.gradients_per_rollout}."
            )
        if self.gradients_per_rollout > 1 and self.algorithm not in ENDPOINTS:
            raise ValueError(
                f"gradients_per_rollout must be 1 with {self.algorithm}: only "
                f"{', '.join(ENDPOINTS)} take a gradient at the end of a rollout."
            )
        if self.full_finetune and self.anchor == "base" and self.policy.adapter:
            raise ValueError(
                "anchor 'base' with full_finetune needs a policy without adapter: use 'parent'."
            )

    def _check_machine(self) -> None:
        _choice("base_storage", self.base_storage, STORAGES)
        if self.base_storage and self.full_finetune:
            raise ValueError("base_storage must be '' with full_finetune, which trains the base.")
        for which in self.compile:
            _choice("compile", which, COMPILED)
        quantised = self.reward.quantisation or self.held_out.quantisation
        if self.offload_reward and quantised:
            raise ValueError(
                "offload_reward needs reward models without quantisation, which cannot be moved."
            )
        _check(
            self.condition_cache_gb > 0, "condition_cache_gb", self.condition_cache_gb, "above 0"
        )
        _check(self.source_memory_mb >= 1, "source_memory_mb", self.source_memory_mb, "1 or more")
        try:
            shares = [float(share) for share, _ in self.resolutions]
            pixels = [int(area) for _, area in self.resolutions]
        except (TypeError, ValueError):
            raise ValueError(
                "resolutions must be a list of (share of the steps, max_pixels), got "
                f"{self.resolutions!r}."
            ) from None
        _check(
            all(share > 0 for share in shares) and sum(shares) < 1,
            "resolutions",
            shares,
            "shares above 0 that leave some of the steps to max_pixels",
        )
        _check(
            all(1024 <= area <= self.max_pixels for area in pixels),
            "resolutions",
            pixels,
            f"areas from 1024 to max_pixels ({self.max_pixels})",
        )


def stages(config: PolicyConfig) -> list[tuple[int, int]]:
    """(last step, max_pixels) of each lower resolution."""
    found, done = [], 0.0
    for share, pixels in config.resolutions:
        done += share
        found.append((round(done * config.steps), int(pixels)))
    return found


def rollout_steps(config: PolicyConfig) -> int:
    return config.rollout_steps or config.num_inference_steps


def keeps_best(config: PolicyConfig) -> bool:
    if config.keep == "auto":
        return bool(config.held_out.location and config.monitor.every)
    return config.keep == "best"


def gradient_steps(num_inference_steps: int, t_range: tuple[float, float]) -> list[int]:
    """Steps that lie in t_range, where 0 is pure noise and 1 the finished picture: step i covers
    i / K to (i + 1) / K and counts when it ends beyond the lower bound."""
    low, high = t_range
    count = num_inference_steps
    return [i for i in range(count) if (i + 1) / count > low + 1e-9 and i / count < high - 1e-9]


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, name, repr(value), f"one of {', '.join(choices)}")


def _check(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {wanted}, got {value}.")
