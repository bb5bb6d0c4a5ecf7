"""Families of models, each by a twin: the config.json that a publisher ships, made small, with the family's own special tokens and a chat
template in its style. `make.py` builds them; the fixture `twin` of tests/conftest.py hands out their folders.

A config here has the publisher's keys in the publisher's spelling, also where transformers has others by now: that is what users have.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from backends.models import MODELS, ModelFacts
from tests.laws import chat_templates as styles

SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "torch_dtype": "float32",
}
LLAMA_3 = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
YARN = {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 8.0, "original_max_position_embeddings": 64}
WINDOW = 24
"""Tokens: shorter than the rows that are trained on, so that a trainer without the window is found out."""


@dataclass(frozen=True)
class Twin:
    """A small model of a family, with random weights."""

    like: str
    """The published model that it is made after."""
    config: dict
    """config.json, but for sizes that all have and the numbers of its special tokens."""
    special: tuple[str, ...]
    """All special tokens; those of `bos`, `eos` and `pad` are among them."""
    eos: str
    bos: str | None = None
    """What opens every text; None where the tokenizer puts nothing there, whatever the publisher calls `bos`."""
    pad: str | None = None
    stops: tuple[str, ...] = ()
    """What ends a generation beside `eos`: a turn's end."""
    template: str | None = None
    """Chat template; None for a base model."""
    drop: tuple[str, ...] = field(default=())
    """Sizes that this family's config.json does not have."""

    @property
    def family(self) -> str:
        """transformers' model_type."""
        return self.config["model_type"]

    def settings(self) -> dict:
        """config.json whole, ids of special tokens (from 256 on, behind the bytes) among it."""
        ids = {text: 256 + n for n, text in enumerate(self.special)}
        named = {"bos_token_id": ids.get(self.bos), "eos_token_id": ids[self.eos], "pad_token_id": ids.get(self.pad)}
        whole = {**SIZES, **named, **self.config}
        return {key: value for key, value in whole.items() if key not in self.drop}


def _llama(like: str, **more) -> Twin:
    config = {"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": None}
    config |= {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "pretraining_tp": 1}
    facts = {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>", "stops": ("<|eot_id|>",), "template": styles.LLAMA_31}
    tokens = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    facts = {"special": tokens, **facts, **{k: v for k, v in more.items() if k != "config"}}
    return Twin(like, config | more.get("config", {}), **facts)


_OLD = {"special": ("<unk>", "<s>", "</s>"), "bos": "<s>", "eos": "</s>", "stops": ()}
_INST = {**_OLD, "special": ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")}
_R1 = {"special": ("<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>", "<think>", "</think>")}
_R1 |= {"bos": "<|begin|>", "eos": "<|end|>", "pad": "<|end|>", "stops": ()}


def _mistral(like: str, family: str = "mistral", template: str | None = styles.MISTRAL_V3, **config) -> Twin:
    whole = {"model_type": family, "hidden_act": "silu", "rms_norm_eps": 1e-5, "sliding_window": None, "rope_theta": 1e6}
    tokens = (
        {**_INST, "special": (*_INST["special"], "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")}
        if template == styles.MISTRAL_V7
        else _INST
    )
    return Twin(like, whole | {"tie_word_embeddings": False} | config, **tokens, template=template)


def _qwen(like: str, family: str, template: str, **config) -> Twin:
    whole = {"model_type": family, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_scaling": None}
    whole |= {"sliding_window": None, "use_sliding_window": False, "max_window_layers": 2, "tie_word_embeddings": False}
    tokens = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
    names = {"eos": "<|im_end|>", "pad": "<|endoftext|>", "stops": ("<|endoftext|>",)}
    return Twin(like, whole | config, tokens, **names, template=template)


def _gemma(like: str, family: str, **config) -> Twin:
    whole = {"model_type": family, "attention_bias": False, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "head_dim": 32}
    whole |= {"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu_pytorch_tanh"}
    tokens = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
    names = {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "stops": ("<end_of_turn>",)}
    return Twin(like, whole | config, tokens, **names, template=styles.GEMMA_3)


_GEMMA_2 = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 32}
_GEMMA_2 |= {"sliding_window": WINDOW, "cache_implementation": "hybrid", "num_hidden_layers": 4}
_GEMMA_3 = {"attn_logit_softcapping": None, "final_logit_softcapping": None, "query_pre_attn_scalar": 32}
_GEMMA_3 |= {"rope_local_base_freq": 10000, "rope_theta": 1e6, "sliding_window": WINDOW, "sliding_window_pattern": 6}
_GEMMA_3 |= {"num_hidden_layers": 6, "rope_scaling": None}


def _phi(like: str, template: str, **config) -> Twin:
    whole = {"model_type": "phi3", "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None}
    whole |= {
        "attention_bias": False,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
    }
    whole |= {"original_max_position_embeddings": 512, "partial_rotary_factor": 1.0}
    tokens = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
    new, old = template == styles.PHI_4, like.startswith("microsoft/Phi-3")
    tokens += ("<s>",) if old else ("<|dummy_85|>",)
    names = {"bos": "<s>" if old else None, "eos": "<|endoftext|>", "pad": "<|dummy_85|>" if new else "<|endoftext|>"}
    names["stops"] = ("<|im_end|>" if new else "<|end|>",)
    return Twin(like, whole | config, tokens, **names, template=template)


PHI_3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_LONG = {"type": "longrope", "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.8, 2.0]}
_LONG |= {"long_factor": [1.0, 1.2, 1.6, 2.5, 4.0, 6.0, 9.0, 12.0]}
_MOE = {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True, "decoder_sparse_step": 1}
_MOE |= {"mlp_only_layers": [], "output_router_logits": False, "router_aux_loss_coef": 0.001, "head_dim": 32}
_LATENT = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "num_key_value_heads": 4,
}
_LATENT |= {
    "attention_bias": False,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "moe_intermediate_size": 48,
    "moe_layer_freq": 1,
}
_LATENT |= {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
}
_LATENT |= {"v_head_dim": 16, "num_hidden_layers": 3, "aux_loss_alpha": 0.001, "seq_aux": True}
_LATENT |= {"rope_scaling": {"type": "yarn", "mscale": 0.707, "mscale_all_dim": 0.707, **YARN}}


def _olmo(like: str, family: str, template: str | None, **config) -> Twin:
    whole = {"model_type": family, "hidden_act": "silu", "rope_theta": 500000.0, "rope_scaling": None, "attention_bias": False}
    whole |= {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "attention_dropout": 0.0}
    tokens = ("<|endoftext|>", "<|padding|>", "<|user|>", "<|assistant|>", "<|system|>")
    names = {"bos": "<|endoftext|>" if template else None, "eos": "<|endoftext|>", "pad": "<|padding|>", "template": template}
    return Twin(like, whole | config, tokens, **names)


_PYTHIA = {"model_type": "gpt_neox", "hidden_act": "gelu", "layer_norm_eps": 1e-5, "rotary_pct": 0.25, "rotary_emb_base": 10000}
_PYTHIA |= {"use_parallel_residual": True, "tie_word_embeddings": False, "attention_dropout": 0.0, "hidden_dropout": 0.0}
_OSS = {"model_type": "gpt_oss", "attention_bias": True, "attention_dropout": 0.0, "experts_per_token": 2, "head_dim": 16}
_OSS |= {"hidden_act": "silu", "initial_context_length": 64, "layer_types": ["sliding_attention", "full_attention"]}
_OSS |= {"intermediate_size": 64, "num_experts_per_tok": 2, "num_local_experts": 8, "output_router_logits": False}
_OSS |= {"rms_norm_eps": 1e-5, "rope_scaling": {**YARN, "rope_type": "yarn", "truncate": False}, "rope_theta": 150000}
_OSS |= {"router_aux_loss_coef": 0.9, "sliding_window": WINDOW, "swiglu_limit": 7.0, "tie_word_embeddings": False}
_HARMONY = ("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|call|>")
_SMOL = {"model_type": "smollm3", "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 5e6, "rope_scaling": None}
_SMOL |= {"no_rope_layers": [1, 1, 1, 0], "no_rope_layer_interval": 4, "num_hidden_layers": 4, "tie_word_embeddings": True}
_SMOL |= {"attention_bias": False, "mlp_bias": False, "use_sliding_window": False, "sliding_window": None}
_CHATML = {
    "special": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "bos": "<|im_start|>",
    "eos": "<|im_end|>",
    "pad": "<|im_end|>",
}
_V2 = {"model_type": "deepseek_v2", "q_lora_rank": None, "n_group": 1, "topk_group": 1, "topk_method": "greedy"}
_V2 |= {"norm_topk_prob": False, "scoring_func": "softmax", "routed_scaling_factor": 1.0, "n_shared_experts": 2}
_V3 = {"model_type": "deepseek_v3", "q_lora_rank": 48, "n_group": 4, "topk_group": 2, "topk_method": "noaux_tc"}
_V3 |= {"norm_topk_prob": True, "scoring_func": "sigmoid", "routed_scaling_factor": 2.5, "num_nextn_predict_layers": 0}
_GRANITE = {"model_type": "granite", "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1e7, "rope_scaling": None}
_GRANITE |= {"attention_multiplier": 0.0625, "embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22}
_GRANITE |= {"attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True}

TWINS: dict[str, Twin] = {
    "llama-2": _llama("meta-llama/Llama-2-7b-chat-hf", config={"rope_theta": 10000.0}, template=styles.LLAMA_2, **_OLD),
    "llama-3": _llama("meta-llama/Meta-Llama-3-8B-Instruct"),
    "llama-3.1": _llama("meta-llama/Llama-3.1-8B-Instruct", config={"rope_scaling": {**LLAMA_3, "rope_type": "llama3"}}),
    "llama-3.1-wide": _llama(
        "meta-llama/Llama-3.1-70B-Instruct",
        config={"rope_scaling": {**LLAMA_3, "rope_type": "llama3"}, "hidden_size": 256, "intermediate_size": 256},
    ),  # whole blocks of NF4 in each matrix
    "llama-3.2": _llama(
        "meta-llama/Llama-3.2-1B-Instruct",
        config={"rope_scaling": {**LLAMA_3, "factor": 32.0, "rope_type": "llama3"}, "tie_word_embeddings": True, "head_dim": 16},
    ),
    "r1-llama": _llama(
        "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        config={"rope_scaling": {**LLAMA_3, "rope_type": "llama3"}},
        template=styles.DEEPSEEK_R1,
        **_R1,
    ),
    "tinyllama": _llama(
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0", config={"rope_theta": 10000.0}, template=styles.ZEPHYR, **{**_OLD, "pad": "</s>"}
    ),
    "smollm2": _llama(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        config={"rope_theta": 100000, "tie_word_embeddings": True},
        template=styles.CHATML,
        **_CHATML,
        stops=(),
    ),
    "falcon-3": _llama(
        "tiiuae/Falcon3-1B-Instruct",
        config={"rope_theta": 1000042, "head_dim": 16, "rms_norm_eps": 1e-6},
        template=styles.ZEPHYR,
        special=("<|endoftext|>", "<|pad|>"),
        bos=None,
        eos="<|endoftext|>",
        pad="<|pad|>",
        stops=(),
    ),
    "mistral-0.1": _mistral("mistralai/Mistral-7B-v0.1", template=None, sliding_window=WINDOW, rope_theta=10000.0),
    "mistral-0.3": _mistral("mistralai/Mistral-7B-Instruct-v0.3"),
    "mistral-small": _mistral(
        "mistralai/Mistral-Small-24B-Instruct-2501", template=styles.MISTRAL_V7, head_dim=32, rope_theta=1e8
    ),  # heads that are together not as wide as the model
    "mixtral": _mistral(
        "mistralai/Mixtral-8x7B-Instruct-v0.1",
        "mixtral",
        num_local_experts=4,
        num_experts_per_tok=2,
        output_router_logits=False,
        router_aux_loss_coef=0.02,
    ),
    "qwen2.5": _qwen("Qwen/Qwen2.5-7B-Instruct", "qwen2", styles.QWEN_25),
    "qwen2.5-tied": _qwen("Qwen/Qwen2.5-0.5B-Instruct", "qwen2", styles.QWEN_25, tie_word_embeddings=True),
    "qwen3": _qwen(
        "Qwen/Qwen3-8B", "qwen3", styles.QWEN_3, head_dim=32, attention_bias=False, max_position_embeddings=1024
    ),  # rows of tools are long
    "qwen3-tied": _qwen("Qwen/Qwen3-0.6B", "qwen3", styles.QWEN_3, head_dim=32, attention_bias=False, tie_word_embeddings=True),
    "qwen3-moe": _qwen("Qwen/Qwen3-30B-A3B", "qwen3_moe", styles.QWEN_3, attention_bias=False, **_MOE),
    "gemma": _gemma("google/gemma-2b-it", "gemma", num_key_value_heads=1, head_dim=16),
    "gemma-2": _gemma("google/gemma-2-2b-it", "gemma2", **_GEMMA_2),
    "gemma-3": _gemma("google/gemma-3-1b-it", "gemma3_text", **_GEMMA_3),
    "phi-3": _phi("microsoft/Phi-3-mini-4k-instruct", PHI_3, num_key_value_heads=4, sliding_window=WINDOW),
    "phi-3-long": _phi(
        "microsoft/Phi-3.5-mini-instruct", PHI_3, num_key_value_heads=4, rope_scaling=_LONG, original_max_position_embeddings=64
    ),
    "phi-4": _phi("microsoft/phi-4", styles.PHI_4, rope_theta=250000),
    "phi-4-mini": _phi(
        "microsoft/Phi-4-mini-instruct",
        PHI_3,
        rope_scaling={**_LONG, **{name: _LONG[name][:6] for name in ("short_factor", "long_factor")}},
        partial_rotary_factor=0.75,
        original_max_position_embeddings=64,
        tie_word_embeddings=True,
    ),
    "olmo": _olmo("allenai/OLMo-1B-hf", "olmo", None, clip_qkv=None, rope_theta=10000.0, tie_word_embeddings=True),
    "olmo-7b": _olmo("allenai/OLMo-7B-Instruct-hf", "olmo", styles.OLMO_2, clip_qkv=None, rope_theta=10000.0),
    "olmo-2": _olmo("allenai/OLMo-2-1124-7B-Instruct", "olmo2", styles.OLMO_2, num_key_value_heads=4),
    "olmo-3": _olmo(
        "allenai/Olmo-3-7B-Instruct",
        "olmo3",
        styles.OLMO_2,
        num_key_value_heads=4,
        num_hidden_layers=4,
        sliding_window=WINDOW,
        layer_types=["sliding_attention"] * 3 + ["full_attention"],
        rope_scaling={**YARN, "rope_type": "yarn", "attention_factor": 1.2079441541679836},
    ),
    "olmoe": _olmo(
        "allenai/OLMoE-1B-7B-0924-Instruct",
        "olmoe",
        styles.OLMO_2,
        rope_theta=10000.0,
        num_key_value_heads=4,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=False,
        clip_qkv=None,
        output_router_logits=False,
        router_aux_loss_coef=0.01,
        rms_norm_eps=1e-5,
    ),
    "pythia": Twin("EleutherAI/pythia-160m", _PYTHIA, ("<|endoftext|>",), "<|endoftext|>", drop=("num_key_value_heads",)),
    "gpt-oss": Twin(
        "openai/gpt-oss-20b",
        _OSS,
        _HARMONY,
        "<|return|>",
        "<|startoftext|>",
        "<|endoftext|>",
        ("<|endoftext|>", "<|call|>"),
        styles.GPT_OSS,
    ),
    "smollm3": Twin("HuggingFaceTB/SmolLM3-3B", _SMOL, **_CHATML, template=styles.SMOLLM_3),
    "deepseek-2": Twin("deepseek-ai/DeepSeek-V2-Lite-Chat", _LATENT | _V2, **_R1, template=styles.DEEPSEEK_R1),
    "deepseek-3": Twin("deepseek-ai/DeepSeek-V3", _LATENT | _V3, **_R1, template=styles.DEEPSEEK_R1),
    "granite": Twin(
        "ibm-granite/granite-3.1-2b-instruct",
        _GRANITE,
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        "<|end_of_text|>",
        pad="<|end_of_text|>",
        template=styles.GRANITE,
    ),
}
"""Name -> twin."""


def _of_llama(model: ModelFacts) -> str:
    if "R1-Distill" in model.id:
        return "r1-llama"
    if model.rope_scaling:
        return "llama-3.2" if model.tied else "llama-3.1"
    publishers = {"TinyLlama": "tinyllama", "HuggingFaceTB": "smollm2", "tiiuae": "falcon-3"}
    return publishers.get(model.id.split("/")[0], "llama-2" if model.rope_theta == 10_000 else "llama-3")


def _of_mistral(model: ModelFacts) -> str:
    if model.heads * model.head_dim != model.hidden_size:
        return "mistral-small"
    return "mistral-0.1" if model.id == "mistralai/Mistral-7B-v0.1" else "mistral-0.3"


def _of_phi(model: ModelFacts) -> str:
    if model.rope_scaling:
        return "phi-4-mini" if model.tied else "phi-3-long"
    return "phi-3" if model.rope_theta == 10_000 else "phi-4"


_LIKE = {twin.like: name for name, twin in TWINS.items()}
_TRAITS = {
    "mistral": _of_mistral,
    "qwen2": lambda model: "qwen2.5-tied" if model.tied else "qwen2.5",
    "qwen3": lambda model: "qwen3-tied" if model.tied else "qwen3",
    "llama": _of_llama,
    "phi3": _of_phi,
    "olmo": lambda model: "olmo" if model.tied else "olmo-7b",
    "gemma3": lambda _: "gemma-3",
}


def twin_of(model_id: str) -> str:
    """Name of the twin of a model of the table.

    Raises:
        KeyError: its family has none.
    """
    if model_id in _LIKE:
        return _LIKE[model_id]
    model = MODELS[model_id]
    if model.family in _TRAITS:
        return _TRAITS[model.family](model)
    return next(name for name, twin in TWINS.items() if twin.family == model.family)


def described(name: str) -> str:
    """All that a twin is made from, as the text that `make.py` reads; its hash names the twin's folder."""
    twin = TWINS[name]
    return json.dumps({"name": name, **asdict(twin), "config": twin.settings()}, sort_keys=True)


def key(name: str) -> str:
    """Content of a twin: what describes it, and the program that makes it."""
    return hashlib.sha256(described(name).encode() + Path(__file__).with_name("make.py").read_bytes()).hexdigest()[:16]
