"""The stages that teach the reward base, after what was found to work and not to work.

From a random start a VLM of this size doesn't learn to compare pictures by itself. Three things
make it learn:

1. `VisionHeads`: the vision tower first learns, through linear heads on its mean-pooled tokens that
   are thrown away afterwards, what stands in a picture and how good it is.
2. Deep supervision: the language model answers Yes or No not only at the end of the question but at
   every word that settles it (an attribute of the prompt, the quality asked for), and linear heads
   at each picture's `<|vision_end|>` repeat what the tower knows.
3. Both prompts over the same two pictures in one sequence, packed behind one shared prefix: only
   reading the prompt tells the two questions apart.

Shapes: B pairs, V variants, N patches, L tokens of a packed sequence, D questions per pair.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import rotate_half
from transformers.vision_utils import get_vision_position_ids

from modeling.reward.preprocess import VisionLayout, to_patches
from modeling.reward.view import reward_view
from modeling.reward.view_config import ViewConfig
from modeling.starter.reward_data import DIMENSIONS, PROMPTED, TIE, Groups
from modeling.starter.reward_questions import Due, Pair, Speller, spelt

# What a picture shows: colour, shape, first and second digit. Shapes are the hardest to learn.
ATTRIBUTES = (6, 4, 10, 10)
ATTRIBUTE_WEIGHTS = (0.5, 2.0, 0.5, 0.5)
RANKING_WEIGHT = 2.0
# The layer after which a picture's last token sums it up, and the one after which a word of the
# prompt has found its picture: the last layer reads off the answer.
SUMMARY_LAYER, WORD_LAYER = 1, 2


# --- what the model sees ---


def views_of(groups: Groups, view: ViewConfig, chunk: int = 50) -> Tensor:
    """The reward view of every answer, (n, V, 3, H, W) uint8."""
    found = []
    for at in range(0, len(groups), chunk):
        images = torch.from_numpy(groups.images[at : at + chunk]).permute(0, 1, 4, 2, 3) / 255
        sources = torch.from_numpy(groups.sources[at : at + chunk]).permute(0, 3, 1, 2) / 255
        masks = (torch.from_numpy(groups.masks[at : at + chunk])[:, None] > 0).float()
        variants = images.shape[1]
        seen = reward_view(
            images.flatten(0, 1),
            sources.repeat_interleave(variants, 0),
            masks.repeat_interleave(variants, 0),
            view,
        )
        seen = (seen * 255).round().to(torch.uint8)
        found.append(seen.view(-1, variants, *seen.shape[1:]))
    return torch.cat(found)


def patches_of(views: Tensor, layout: VisionLayout) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, N, C)."""
    patches, _ = to_patches(views.float() / 255, layout)
    return patches.view(len(views), -1, patches.shape[-1])


def start_from_patches(visual: Any, patches: Tensor, floor: float = 0.02) -> None:
    """Start the patch embedding from whitened principal components of patches (M, C).

    Flat colour carries nearly all of a patch's variance: a random projection would hide edges, and
    with them every shape, behind it.
    """
    weight = visual.patch_embed.proj.weight  # (out, 3, t, p, p)
    frames = weight.shape[2]
    flat = patches.view(len(patches), 3, frames, -1)[:, :, 0].flatten(1)  # (M, 3 p p)
    centred = (flat - flat.mean(0)).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(flat))
    values, vectors = values.flip(0)[: len(weight)], vectors.flip(1)[:, : len(weight)]
    rows = (vectors / (values + floor * values.mean()).sqrt()).T.float()
    with torch.no_grad():
        weight.copy_(rows.view(len(weight), 3, 1, *weight.shape[3:]).expand_as(weight) / frames)


def vision_tokens(visual: Any, patches: Tensor) -> Tensor:
    """The tower's merged tokens (B, N / 4, D) of B equal square pictures' patches (B, N, C).

    The tower itself loops over pictures; batching equal ones gives the same numbers sooner. Only
    for towers whose blocks all attend fully.
    """
    count, length, _ = patches.shape
    side = int(length**0.5)
    merge = visual.spatial_merge_size
    hidden = visual.patch_embed(patches.reshape(count * length, -1)).view(count, length, -1)
    grid = get_vision_position_ids(torch.tensor([[1, side, side]]), merge)
    cos, sin = visual.rotary_pos_emb(hidden, grid)
    cos, sin = cos[None, None], sin[None, None]  # (1, 1, N, head_dim)
    for block in visual.blocks:
        attention = block.attn
        query, key, value = (
            attention.qkv(block.norm1(hidden))
            .view(count, length, 3, attention.num_heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        query = query * cos + rotate_half(query) * sin
        key = key * cos + rotate_half(key) * sin
        mixed = F.scaled_dot_product_attention(query, key, value)
        hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(count, length, -1))
        hidden = hidden + block.mlp(block.norm2(hidden))
    merged = visual.merger(hidden.reshape(count * length, -1))
    return merged.view(count, length // merge**2, -1)


class Heads(nn.Module):
    """Linear readings of a picture's token: what it shows and how good it is. Thrown away."""

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attributes = nn.ModuleList([nn.Linear(width, count) for count in ATTRIBUTES])
        self.quality = nn.Linear(width, dimensions)

    def forward(self, token: Tensor) -> tuple[list[Tensor], Tensor]:
        token = self.norm(token)
        return [head(token) for head in self.attributes], self.quality(token)


def attribute_loss(logits: Sequence[Tensor], drawn: Tensor) -> Tensor:
    """Cross entropy over the known attributes, summed; drawn (…, 4), -1 = unknown."""
    losses = [
        ATTRIBUTE_WEIGHTS[k]
        * F.cross_entropy(one.flatten(0, -2), drawn[..., k].flatten(), ignore_index=-1)
        for k, one in enumerate(logits)
        if bool((drawn[..., k] >= 0).any())
    ]
    return torch.stack(losses).sum() if losses else logits[0].sum() * 0


def quality_loss(quality: Tensor, scores: Tensor) -> Tensor:
    """Of scores (…, dims), NaN where not asked: the value itself, as a soft target."""
    known = ~scores.isnan()
    return F.binary_cross_entropy_with_logits(quality[known], scores[known].clamp(0, 1))


def ranking_loss(quality: Tensor, scores: Tensor, tie: float = TIE) -> Tensor:
    """Of scores (B, V, dims): every untied pair of a group in order; larger gaps count more."""
    gap = scores[:, :, None] - scores[:, None]  # (B, V, V, dims)
    margin = quality[:, :, None] - quality[:, None]
    wins = (gap > tie).float() * gap.nan_to_num(0).clamp(0, 0.3)
    return (F.softplus(-margin) * wins).sum() / wins.sum().clamp(min=1e-6)


def picture_loss(heads: Heads, tokens: Tensor, drawn: Tensor, scores: Tensor) -> Tensor:
    """What heads should read from tokens (B, V, D) of V answers to each of B sources."""
    attributes, quality = heads(tokens)
    return (
        attribute_loss(attributes, drawn)
        + quality_loss(quality, scores)
        + RANKING_WEIGHT * ranking_loss(quality, scores)
    )


def prompt_free(scores: Tensor) -> Tensor:
    """Scores with the dimensions blanked that no picture has without its prompt."""
    blank = torch.tensor([name in PROMPTED for name in DIMENSIONS])
    return scores.masked_fill(blank, float("nan"))


def cosine(step: int, total: int, warm: int) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to a twentieth."""
    return min(1.0, (step + 1) / warm) * (0.05 + 0.475 * (1 + math.cos(math.pi * step / total)))


# --- packed questions ---


class Packed:
    """`B` packed sequences: one prefix with two pictures, then D questions side by side.

    ids (B, L); positions (3, B, L); mask (B, 1, L, L) bool; ends (B, D) where each answer is read;
    marks: per row a list of (question, token) to supervise on the way.
    """

    def __init__(
        self,
        prefix_ids: Sequence[int],
        prefix_positions: Tensor,  # (3, P)
        questions: Sequence[Sequence[Sequence[int]]],  # B x D x tokens
        pad_id: int,
    ) -> None:
        start = len(prefix_ids)
        longest = start + max(sum(len(q) for q in row) for row in questions)
        count = len(questions)
        ids = torch.full((count, longest), pad_id)
        segment = torch.full((count, longest), -1)
        positions = torch.zeros(3, count, longest, dtype=torch.long)
        ids[:, :start] = torch.tensor(list(prefix_ids))
        segment[:, :start] = 0
        positions[:, :, :start] = prefix_positions[:, None]
        after = int(prefix_positions.max()) + 1
        most = max(len(row) for row in questions)
        self.starts = torch.zeros(count, most, dtype=torch.long)
        self.ends = torch.zeros(count, most, dtype=torch.long)
        for b, row in enumerate(questions):
            at = start
            for d, tokens in enumerate(row):
                stop = at + len(tokens)
                ids[b, at:stop] = torch.tensor(list(tokens))
                segment[b, at:stop] = d + 1
                positions[:, b, at:stop] = torch.arange(after, after + len(tokens))
                self.starts[b, d], self.ends[b, d] = at, stop - 1
                at = stop
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        same = segment[:, :, None] == segment[:, None]
        self.ids, self.positions = ids, positions
        self.mask = (causal & (same | (segment[:, None] == 0)))[:, None]


class Examiner:
    """Asks a model about pairs of a data set and grades every answer due."""

    def __init__(
        self,
        model: Any,  # a Qwen2_5_VLForConditionalGeneration
        tokenizer: Any,
        tokens_per_picture: int,
    ) -> None:
        self.model, self.speller = model, Speller(tokenizer)
        self.pad = int(tokenizer.pad_token_id)
        self.answers = [int(tokenizer.convert_tokens_to_ids(word)) for word in ("Yes", "No")]
        image = model.config.image_token_id
        self.prefix: list[int] = []
        for token in self.speller.prefix:
            self.prefix += [token] * tokens_per_picture if token == image else [token]
        ids = torch.tensor([self.prefix])
        side = round(tokens_per_picture**0.5) * model.config.vision_config.spatial_merge_size
        positions, _ = model.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == image).int(),
            image_grid_thw=torch.tensor([[1, side, side]] * 2),
        )
        self.positions = positions[:, 0]
        end = model.config.vision_end_token_id
        self.picture_ends = [k for k, token in enumerate(self.prefix) if token == end]

    def margin(self, states: Tensor) -> Tensor:
        """log P(Yes) - log P(No) of hidden states (…, D)."""
        rows = self.model.get_input_embeddings().weight
        return states @ (rows[self.answers[0]] - rows[self.answers[1]])

    def ask(
        self, groups: Groups, pairs: Sequence[Pair], pictures: Tensor
    ) -> tuple[tuple[Tensor, ...], Due]:
        """Hidden states after every layer; pictures (B, 2 · tokens, D) replace the placeholders."""
        questions, due = spelt(self.speller, groups, pairs, len(self.prefix))
        packed = Packed(self.prefix, self.positions, questions, self.pad)
        embedded = self.model.get_input_embeddings()(packed.ids)
        places = packed.ids == self.model.config.image_token_id
        embedded = embedded.masked_scatter(places[..., None], pictures.to(embedded.dtype))
        states: tuple[Tensor, ...] = self.model.model.language_model(
            inputs_embeds=embedded,
            attention_mask={"full_attention": packed.mask},
            position_ids=packed.positions,
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states
        return states, due

    def loss(
        self, groups: Groups, pairs: Sequence[Pair], pictures: Tensor, summary: Heads
    ) -> Tensor:
        states, due = self.ask(groups, pairs, pictures)
        losses = F.binary_cross_entropy_with_logits(
            self.margin(states[-1][due.row, due.place]), due.yes, reduction="none"
        )
        total = (losses * due.weight).sum() / (due.kind == 0).sum()
        words = due.kind == 1
        if bool(words.any()):
            middle = states[WORD_LAYER][due.row[words], due.place[words]]
            middle = self.model.model.language_model.norm(middle)
            total = total + F.binary_cross_entropy_with_logits(self.margin(middle), due.yes[words])
        drawn, scores = facts_of(groups, pairs)
        attributes, quality = summary(states[SUMMARY_LAYER][:, self.picture_ends])
        return (
            total
            + 0.3 * attribute_loss(attributes, drawn)
            + quality_loss(quality, prompt_free(scores))
        )


def facts_of(groups: Groups, pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """What both pictures of each pair show (B, 2, 4) and their scores (B, 2, dims)."""
    rows = np.array([pair.group for pair in pairs])[:, None]
    both = np.array([(pair.first, pair.second) for pair in pairs])
    return torch.from_numpy(groups.drawn[rows, both]), torch.from_numpy(groups.scores[rows, both])


def start_words(examiner: Examiner, heads: Heads) -> None:
    """Start the words of colours, shapes and digits from the heads that recognise them."""
    with torch.no_grad():
        table = examiner.model.get_input_embeddings().weight
        length = table.norm(dim=1).mean()
        rows: list[Any] = [head.weight for head in heads.attributes]
        speller = examiner.speller
        for token, (attribute, value) in speller.attributes.items():
            row = rows[attribute][value]
            table[token] = row / row.norm() * length
        for token, digit in speller.digits.items():
            row = rows[2][digit] + rows[3][digit]
            table[token] = row / row.norm() * length
