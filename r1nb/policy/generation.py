"""Generate faster than transformers with the same model: shared prompts, a merged adapter, packed weights.

The completions of a group share their prompt, a merged adapter gives the same output as an unmerged one, and
bfloat16 weights can be laid out once for all tokens. Except for rounding, greedy answers are transformers'
own, and so are sampled ones in float32.
"""

import sys
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer
from transformers.generation import GenerationMode
from transformers.generation.utils import GENERATION_MODES_MAPPING
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from r1nb.processes import processes

WHOLE_BATCH = ("Encoder", "UnbatchedClassifier", "SynthID")  # logits processors that keep state for all rows


def mergeable(model) -> bool:
    """Whether the model has no adapter, or one of plain LoRA on weights that are not quantised."""
    configs = getattr(model, "peft_config", {}).values()
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    return not any(config.is_prompt_learning for config in configs) and all(
        isinstance(layer, LoraLayer)
        and type(layer.get_base_layer()) in (nn.Linear, nn.Embedding)
        and type(layer.get_base_layer().weight.data) is torch.Tensor
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        for layer in layers
    )


def shareable(model) -> bool:
    """Whether every layer keeps all keys and values in a DynamicCache (no sliding window, no state)."""
    model = getattr(model, "get_base_model", lambda: model)()
    return (
        isinstance(model, GenerationMixin)
        and not model.config.is_encoder_decoder
        and model._supports_default_dynamic_cache()
        and {type(layer) for layer in DynamicCache(config=model.config).layers} == {DynamicLayer}
    )


def distinct(ids, mask):
    """(ids, mask, inverse): the distinct rows of left-padded prompts (rows, tokens), each prompt's row."""
    rows, inverse = torch.unique(torch.cat([ids, mask], 1), dim=0, return_inverse=True)
    return *rows.split(ids.size(1), 1), inverse


@contextmanager
def faster(model, logps: list | None = None):
    """Inside the block model.generate runs `decode` on merged and packed weights, where that is possible.

    `decode` appends to `logps` the log-probabilities of the tokens it samples.
    """
    alone = processes() == 1 and "unsloth" not in sys.modules  # else the weights or generate are not plain
    ready = alone and mergeable(model) and shareable(model)
    with ExitStack() as stack:
        loop = partial(decode, logps=logps)
        for context in (merged(model), packed(model), generating_by(model, loop)) if ready else ():
            stack.enter_context(context)
        yield


@contextmanager
def merged(model):
    """Merge the active adapter into copies of the weights; afterwards the model gets its own tensors back."""
    kept = []
    try:
        for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
            if layer.disable_adapters:
                continue
            base = layer.get_base_layer()
            weights = dict(base.named_parameters(recurse=False))
            kept.append((layer, base, weights, list(layer.merged_adapters)))
            for name, weight in weights.items():
                setattr(base, name, nn.Parameter(weight.detach().clone(), requires_grad=False))
            layer.merge()
        yield
    finally:
        for layer, base, weights, before in reversed(kept):
            for name, weight in weights.items():
                setattr(base, name, weight)
            layer.merged_adapters[:] = before


@contextmanager
def packed(model):
    """Lay out bfloat16 weights on a CPU for oneDNN once, not again for each token (here, not in the model).

    Inside the block the weights must not change, and heads that share keys are computed together.
    """
    layers = [m for m in model.modules() if type(m) is nn.Linear and m.weight.dtype == torch.bfloat16]
    if not layers or layers[0].weight.device.type != "cpu":
        yield
        return
    config, before = model.config, model.config._attn_implementation
    try:
        for layer in layers:
            weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), 64)
            layer.forward = partial(_multiply, weight, layer.bias)
        if before == "sdpa":
            config._attn_implementation = GROUPED
        yield
    finally:
        config._attn_implementation = before
        for layer in layers:
            vars(layer).pop("forward", None)


def _multiply(weight, bias, states):
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


def _grouped_attention(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """SDPA; for one new token, the queries that share a key are rows of one product: no key is copied."""
    rows, heads, tokens, size = query.shape
    if tokens > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    mask = None if attention_mask is None else attention_mask.expand(rows, key.size(1), 1, -1)
    grouped = query.view(rows, key.size(1), heads // key.size(1), size)
    found = nn.functional.scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    return found.reshape(rows, 1, heads, size), None


GROUPED = "r1nb_grouped"
AttentionInterface.register(GROUPED, _grouped_attention)
AttentionMaskInterface.register(GROUPED, sdpa_mask)


@contextmanager
def generating_by(model, loop):
    """Inside the block model.generate runs the decoding loop `loop` (`custom_generate` of transformers)."""
    generate, own = model.generate, vars(model).get("generate")
    model.generate = lambda *args, **kwargs: generate(*args, custom_generate=loop, **kwargs)
    try:
        yield
    finally:
        del model.generate
        if own:
            model.generate = own


class RoomyLayer(DynamicLayer):
    """Some rows of a cache layer, with room for more tokens; DynamicLayer would copy them for each token."""

    def __init__(self, layer: DynamicLayer, rows, room: int):
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self.buffers = []
        for old in (layer.keys, layer.values):
            new = old.new_empty(len(rows), old.size(1), old.size(2) + room, old.size(3))
            new[:, :, : old.size(2)] = old.index_select(0, rows)
            self.buffers.append(new)
        self._show(layer.get_seq_length())

    def update(self, key_states, value_states, *args, **kwargs):
        start, end = self.get_seq_length(), self.get_seq_length() + key_states.size(2)
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = states
        return self._show(end)

    def _show(self, end: int):
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values


def decode(model, input_ids, logits_processor, stopping_criteria, generation_config, logps=None, **inputs):
    """Decode as transformers does, with the same draws from torch's generator; returns (rows, tokens).

    `input_ids` (rows, tokens) are left-padded prompts; completions are appended to them. The list `logps`
    gets the log-probabilities (rows, new tokens) of sampled tokens, in the distribution that they were drawn
    from; 0 where padded. transformers' own loop runs for other modes, for example beam search, and for
    processors that need the whole batch.
    """
    mode = generation_config.get_generation_mode()
    plain = mode in (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH)
    if not plain or any(type(each).__name__.startswith(WHOLE_BATCH) for each in logits_processor):
        return getattr(type(model), GENERATION_MODES_MAPPING[mode])(
            model, input_ids, logits_processor=logits_processor, stopping_criteria=stopping_criteria,
            generation_config=generation_config, **inputs,
        )  # fmt: skip
    (count, width), end = input_ids.shape, stopping_criteria.max_length
    sequences = nn.functional.pad(input_ids, (0, end - width), value=generation_config.pad_token_id)
    seen = nn.functional.pad(inputs["attention_mask"], (0, end - width), value=1)
    exact = model.dtype == torch.float32  # else rounding changes the draws anyway
    rows, places = torch.arange(count, device=input_ids.device), seen[:, :width].sum(1, keepdim=True)
    prompts, mask, inverse = distinct(input_ids, seen[:, :width])
    cache = DynamicCache(config=model.config)
    logits = model(
        input_ids=prompts, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache, logits_to_keep=1,
    ).logits[inverse]  # fmt: skip
    cache.layers = [RoomyLayer(layer, inverse, end - width) for layer in cache.layers]
    found = logits.new_zeros(count, end - width, dtype=torch.float32)
    if generation_config.do_sample and logps is not None:
        logps.append(found)
    for length in range(width, end):
        scores = logits_processor(sequences[rows, :length], logits[:, -1].float())
        if not generation_config.do_sample:
            tokens = scores.argmax(-1, keepdim=True)
        else:
            chances = scores.softmax(-1)
            tokens = _draw_like_transformers(chances, rows, count) if exact else draw(chances)
            found[rows, length - width] = chances.gather(1, tokens)[:, 0].log()
        sequences[rows, length] = tokens[:, 0]
        live = (~stopping_criteria(sequences[rows, : length + 1], scores)).nonzero()[:, 0]
        if not len(live):
            return sequences[:, : length + 1]
        if len(live) < len(rows):
            rows, tokens, places = rows[live], tokens[live], places[live]
            cache.layers = [RoomyLayer(layer, live, end - length) for layer in cache.layers]
        logits = model(
            input_ids=tokens, attention_mask=seen[rows, : length + 1], position_ids=places,
            past_key_values=cache, logits_to_keep=1,
        ).logits  # fmt: skip
        places = places + 1
    return sequences


def _draw_like_transformers(chances, rows, count: int):
    """A token for each row of `chances`, as (rows, 1); `rows` are those of `count` that are not finished."""
    every = chances.new_ones(count, chances.size(1))  # transformers draws a token for finished rows, too
    every[rows] = chances
    return torch.multinomial(every, 1)[rows]


def draw(chances, block: int = 128):
    """A token for each row of `chances` (rows, vocabulary), as (rows, 1), with one random number a row.

    torch.multinomial draws one for each token of the vocabulary, which takes as long as the model.
    """
    chances = nn.functional.pad(chances, (0, -chances.size(1) % block)).unflatten(1, (-1, block))
    sums = chances.sum(-1).double().cumsum(-1)
    place = torch.rand(len(sums), 1, dtype=torch.float64, device=sums.device) * sums[:, -1:]
    which = torch.searchsorted(sums, place, right=True).clamp_(max=sums.size(1) - 1)
    within = chances[torch.arange(len(sums)), which[:, 0]].double().cumsum(-1)
    rest = place - sums.gather(1, which) + within[:, -1:]
    token = (within <= rest).sum(-1, keepdim=True)
    last = (within < within[:, -1:]).sum(-1, keepdim=True)  # never a token of chance 0
    return which * block + token.minimum(last)
