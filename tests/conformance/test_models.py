"""The model table against the trainers themselves: what their own descriptions say, and what they do not have."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from backends.analysis.model_names import nameless
from backends.models import MODELS
from backends.registry import BACKENDS
from backends.trainers.maxtext.method import UNCONVERTED

pytestmark = pytest.mark.long

TORCHTUNE = """
import importlib, json, sys
import torch
out = {}
for name in json.loads(sys.argv[1]):
    room, _, last = name.rpartition(".")
    module = importlib.import_module(f"torchtune.models.{room}")
    with torch.device("meta"):
        model = getattr(module, last)()
    layer = model.layers[0]
    rope, norm = layer.attn.pos_embeddings, layer.sa_norm
    out[name] = {
        "hidden_size": model.tok_embeddings.embedding_dim,
        "intermediate_size": layer.mlp.w1.out_features,
        "layers": len(model.layers),
        "heads": layer.attn.num_heads,
        "kv_heads": layer.attn.num_kv_heads,
        "head_dim": layer.attn.head_dim,
        "vocab_size": model.tok_embeddings.num_embeddings,
        "max_position": model.max_seq_len,
        "rope_theta": int(rope.base if hasattr(rope, "base") else rope.theta),
        "rope_scaling": f"llama3:{rope.scale_factor}:8192" if hasattr(rope, "scale_factor") else "",
        "norm_eps": norm.eps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "lora": hasattr(module, f"lora_{last}"),
    }
print(json.dumps(out))
"""
LITGPT = """
import json
from litgpt.config import Config, configs
out = {}
for known in configs:
    c = Config(**known)
    scaling = c.rope_adjustments or {}
    kind = "llama3" if "low_freq_factor" in scaling else "linear"
    out[c.name] = {
        "id": f"{c.hf_config['org']}/{c.hf_config['name']}",
        "hidden_size": c.n_embd,
        "intermediate_size": c.moe_intermediate_size or c.intermediate_size,
        "layers": c.n_layer,
        "heads": c.n_head,
        "kv_heads": c.n_query_groups,
        "head_dim": c.head_size,
        "vocab_size": c.padded_vocab_size,
        "rope_theta": c.rope_base,
        "rope_scaling": f"{kind}:{scaling['factor']:g}:{scaling.get('original_max_seq_len', '')}" if scaling else "",
        "norm_eps": c.norm_eps,
        "experts": c.n_expert,
        "active": c.n_expert_per_token,
    }
print(json.dumps(out))
"""
TRANSFORMERS = """
import json, sys
import torch
from transformers import AutoConfig, AutoModelForCausalLM
out = []
for wish in json.loads(sys.argv[1]):
    config = AutoConfig.for_model(**wish)
    with torch.device("meta"):
        out.append(sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters()))
print(json.dumps(out))
"""
HF_NAMES = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads"}
HF_NAMES |= {"max_position": "max_position_embeddings", "tied": "tie_word_embeddings", "norm_eps": "rms_norm_eps"}
EXPERTS = {"mixtral": "num_local_experts", "gpt_oss": "num_local_experts", "qwen3_moe": "num_experts"}
MAXTEXT = {
    "hidden_size": "base_emb_dim",
    "intermediate_size": "base_mlp_dim",
    "layers": "base_num_decoder_layers",
    "heads": "base_num_query_heads",
    "kv_heads": "base_num_kv_heads",
    "head_dim": "head_dim",
    "vocab_size": "vocab_size",
    "rope_theta": "rope_max_timescale",
    "norm_eps": "normalization_layer_epsilon",
    "tied": "logits_via_embedding",
    "experts": "num_experts",
    "active": "num_experts_per_tok",
}
FOLLOWS = ("parameters", "max_position")
"""Not told, where something else is different: a count follows from the sizes, and a trainer may allow fewer positions."""
BASE = {"rope_max_timescale": 10_000, "logits_via_embedding": False, "num_experts": 0, "num_experts_per_tok": 0}
"""MaxText's base.yml, where a model's own file is silent. Its base says one expert, which is none."""


def named(trainer):
    """Models with a name there."""
    return [m for m in MODELS.values() if getattr(m, trainer)]


def told(trainer):
    """What the table says that a trainer's own entry has: [(model, entry, {fact: value})]."""
    out = []
    for m in MODELS.values():
        if found := re.match(r"(\S+) has (no )?([a-z_]+(?: .+)?)$", nameless(m, trainer).split(";")[0]):
            entry, no, facts = found.groups()
            out.append((m, entry, {facts: ""} if no else dict(fact.split(" ") for fact in facts.split(" and "))))
    return out


def differences(model, described):
    """Facts that a trainer describes otherwise than the table."""
    return {
        k: (v, getattr(model, k)) for k, v in described.items() if k in model._fields and k != "id" and v != getattr(model, k)
    }


def check_told(trainer, described, count):
    """Every difference that the table tells is one, and it tells them all."""
    lines = told(trainer)
    assert len(lines) == count
    for model, entry, facts in lines:
        wrong = {fact: theirs for fact, (theirs, _) in differences(model, described(entry)).items()}
        shown = {fact: "yes" if theirs is True else str(theirs) for fact, theirs in wrong.items() if fact not in FOLLOWS}
        assert shown == facts, (model.id, entry)


def test_torchtune_builds_these_models(call, python, tmp_path):
    """Each builder that the table names makes the model it says, to the last parameter, and exists with LoRA."""
    rooms = {
        "phi3_mini": "phi3",
        "phi4_14b": "phi4",
        "mistral_7b": "mistral",
        "qwen2_5_7b_base": "qwen2_5",
        "qwen2_5_1_5b_base": "qwen2_5",
    }
    names = sorted({m.torchtune for m in named("torchtune")} | {f"{room}.{last}" for last, room in rooms.items()})
    described = json.loads(call([python("torchtune"), "-c", TORCHTUNE, json.dumps(names)], tmp_path).stdout.splitlines()[-1])
    assert len(named("torchtune")) == 56
    assert {m.id: wrong for m in named("torchtune") if (wrong := differences(m, described[m.torchtune]))} == {}
    assert all(facts["lora"] for facts in described.values())
    check_told("torchtune", lambda entry: described[f"{rooms[entry]}.{entry}"], 10)


def test_litgpt_describes_these_models(call, python, tmp_path):
    """Each name is LitGPT's own for that very id and says the same; what the table leaves out, LitGPT does not list."""
    described = json.loads(call([python("litgpt"), "-c", LITGPT], tmp_path).stdout.splitlines()[-1])
    ids = {facts["id"].replace("Meta-Llama-3.1", "Llama-3.1"): name for name, facts in described.items()}  # renamed on the hub
    assert len(named("litgpt")) == 118
    assert {m.id: ids.get(m.id) for m in named("litgpt")} == {m.id: m.litgpt for m in named("litgpt")}
    assert {m.id: wrong for m in named("litgpt") if (wrong := differences(m, described[m.litgpt]))} == {}
    check_told("litgpt", lambda entry: described[entry], 17)
    silent = [m.id for m in MODELS.values() if not m.litgpt and not any(m == line[0] for line in told("litgpt"))]
    assert [name for name in silent if name in ids] == []


@pytest.fixture(scope="module")
def maxtext(call, trainer_python, tmp_path_factory):
    """The installed package's folder."""
    if "maxtext" not in BACKENDS:
        pytest.skip("there is no MaxText backend yet")
    code = "import importlib.util as u; print(u.find_spec('maxtext').submodule_search_locations[0])"
    return Path(call([trainer_python("maxtext"), "-c", code], tmp_path_factory.mktemp("maxtext")).stdout.strip())


def maxtext_facts(folder):
    """Name -> what MaxText's own model file says, in the table's words."""

    @cache
    def read(name):
        raw = BASE | yaml.safe_load((folder / "configs/models" / f"{name.removesuffix('-Instruct')}.yml").read_text())
        facts = {ours: raw[theirs] for ours, theirs in MAXTEXT.items()}
        facts["intermediate_size"] = raw.get("base_moe_mlp_dim") or facts["intermediate_size"]
        facts["norm_eps"], facts["rope_theta"] = float(facts["norm_eps"]), int(facts["rope_theta"])
        if name.startswith("gemma2"):  # one of its layers is two: a local and a global one
            facts["layers"] *= 2
        if name.startswith("gemma"):  # the embedding is padded or cut while it is converted
            del facts["vocab_size"]
        return facts | {"rope_scaling": maxtext_scaling(name, raw)}

    return read


def maxtext_scaling(name, raw):
    """As layers/attentions.py chooses it: by name for Llama 3.1, whose factor is fixed, else by type."""
    if name.startswith("llama3.1"):
        return "llama3:8:8192"
    if raw.get("rope_type") == "yarn":
        return f"yarn:{raw['rope_factor']:g}:{raw['original_max_position_embeddings']}"
    return f"linear:{raw['rope_linear_scaling_factor']:g}:" if "rope_linear_scaling_factor" in raw else ""


def keys_of(file, name):
    """Keys of a dictionary that a module assigns, read without importing it."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    raise AssertionError(f"{file}: no {name}")


def test_maxtext_describes_these_models(maxtext):
    """Each name is a model file that says the same, and the differences told are there."""
    described = maxtext_facts(maxtext)
    assert len(named("maxtext")) == 73
    wrong = {m.id: w for m in named("maxtext") if (w := differences(m, described(m.maxtext)))}
    assert wrong == {}
    check_told("maxtext", described, 9)


def test_maxtext_converts_all_but_these(maxtext):
    """A name converts when all three of MaxText's tables hold it; the table knows which do not."""
    utils = maxtext / "checkpoint_conversion/utils"
    ids = keys_of(maxtext / "utils/globals.py", "HF_IDS")
    convertible = (
        ids & keys_of(utils / "hf_model_configs.py", "HF_MODEL_CONFIGS") & keys_of(utils / "param_mapping.py", "PARAM_MAPPING")
    )
    assert {m.maxtext for m in named("maxtext")} - convertible == UNCONVERTED


def test_transformers_counts_the_same_parameters(call, trainer_python, tmp_path):
    """A model built from a line's sizes has exactly the parameters of that line; one for each shape."""
    if "axolotl" not in BACKENDS:
        pytest.skip("there is no axolotl backend yet, and transformers comes with it")
    shapes = {hf_config(m): m for m in MODELS.values()}
    assert len(shapes) == 65
    wishes = json.dumps([dict(wish) for wish in shapes])
    counted = json.loads(call([trainer_python("axolotl"), "-c", TRANSFORMERS, wishes], tmp_path).stdout.splitlines()[-1])
    assert {m.id: n for m, n in zip(shapes.values(), counted, strict=True) if n != m.parameters} == {}


def hf_config(m):
    """What transformers is to build, without what no parameter depends on."""
    wish = {"model_type": m.family.replace("gemma3_text", "gemma3").replace("gemma3", "gemma3_text"), "pad_token_id": 0}
    sizes = ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads", "vocab_size", "tied")
    wish |= {HF_NAMES.get(name, name): getattr(m, name) for name in sizes}
    if m.hidden_size != m.heads * m.head_dim:
        wish["head_dim"] = m.head_dim
    if m.experts:
        wish |= {EXPERTS[m.family]: m.experts, "num_experts_per_tok": m.active}
        wish |= {"moe_intermediate_size": m.intermediate_size} if m.family == "qwen3_moe" else {}
    return tuple(sorted(wish.items()))
