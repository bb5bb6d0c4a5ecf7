"""Shims part by part, on toy models in their trainer's own environment: seconds, where a job takes a minute."""

import json
import os
import subprocess
from pathlib import Path

import pytest

BACKENDS = Path(__file__).parents[2] / "backends"

pytestmark = pytest.mark.trainer

TOY = """
import json
import jax, jax.numpy as jnp, numpy as np
from flax import nnx
import tune_maxtext_preferences as P
from tunix.sft.dpo import dpo_trainer as D
class Toy(nnx.Module):
    def __init__(self, rngs):
        self.e = nnx.Embed(20, 8, rngs=rngs); self.o = nnx.Linear(8, 20, rngs=rngs)
    def __call__(self, ids, positions=None, attention_mask=None, cache=None):
        x = self.e(ids); x = x + jnp.cumsum(x, 1) * 0.1
        return self.o(jnp.tanh(x)) * 5, None
rng = np.random.default_rng(0); B, LP, LA = 4, 3, 6
prompt = rng.integers(1, 20, (B, LP)); ans = [rng.integers(1, 20, (B, LA)) for _ in range(2)]
lens = [rng.integers(1, LA + 1, B) for _ in range(2)]
mask = [(np.arange(LA) < l[:, None]).astype(np.int32) for l in lens]
ids = jnp.array(np.concatenate([np.concatenate([prompt, a], 1) for a in ans])); cm = jnp.array(np.concatenate(mask))
ex = D.TrainExample(input_ids=ids, positions=jnp.zeros_like(ids), attention_mask=jnp.ones((2*B, LP+LA, LP+LA), bool), ref_chosen_logps=None, ref_rejected_logps=None, completion_mask=cm, logits_to_keep=LA)
model = Toy(nnx.Rngs(0))
def run():
    f = nnx.value_and_grad(P.orpo, argnums=0, has_aux=True)
    (l, aux), g = nnx.jit(lambda m: f(m, ex, lambda_orpo=0.3))(model)
    d = nnx.value_and_grad(D.dpo_loss_fn, argnums=0, has_aux=True)
    (l2, _), g2 = nnx.jit(lambda m: d(m, ex, beta=0.3, label_smoothing=0.2))(model)
    n = lambda g: float(sum((x.astype(jnp.float32)**2).sum() for x in jax.tree.leaves(g)))**.5
    return float(l), n(g), float(l2), n(g2), float(aux["rewards/chosen"])
out = [run()]
for parts in (2, 4):
    D.compute_logps = P._by_parts(parts)
    out.append(run())
logits, _ = model(ids)
each = np.asarray(jax.nn.log_softmax(logits[:, LP - 1 : -1]))
each = np.take_along_axis(each, np.asarray(ids[:, LP:])[..., None], 2)[..., 0] * np.asarray(cm)
means = [x.sum(1) / m.sum(1) for x, m in zip((each[:B], each[B:]), mask)]
odds = [x - np.log1p(-np.exp(x)) for x in means]
truth = -each[:B].sum() / mask[0].sum() + 0.3 * np.log1p(np.exp(odds[1] - odds[0])).mean()
print(json.dumps([out, float(truth)]))
"""


HEADS = """
import json, sys, tempfile
import torch, transformers, peft
import tune_hf_heads, tune_truth
config = transformers.LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
config.pad_token_id, config.initializer_range, config.num_labels = 0, 0.05, 1
bare, headed = tempfile.mkdtemp(), tempfile.mkdtemp()
transformers.LlamaForCausalLM(config).save_pretrained(bare)
transformers.LlamaForSequenceClassification(config).save_pretrained(headed)
def head(folder, adapted, seed=7):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    before = model.score.weight.detach().clone()
    if adapted:
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], modules_to_save=["score"]))
    tune_hf_heads.begin(model, seed)
    found = [p.detach() for name, p in model.named_parameters() if "score" in name]
    return before, found
facts = {"hidden_size": 16, "initializer_range": 0.05}
want = tune_truth.head_of(facts, 7)
plain, adapted = head(bare, False)[1], head(bare, True)[1]
assert len(plain) == 1 and len(adapted) == 2, (len(plain), len(adapted))
assert all(torch.equal(each, want) for each in (*plain, *adapted)), (plain, want)
assert not torch.equal(head(bare, False, 8)[1][0], want)
before, found = head(headed, False)
assert torch.equal(before, found[0])
print("held")
"""


def test_a_score_begins_as_its_seed_draws_it(trainer_python):
    """The head of a reward model is the one that plain PyTorch draws, in a model and in PEFT's both copies; a base's own head stays."""
    env = {**os.environ, "PYTHONPATH": str(BACKENDS / "shims"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([trainer_python("trl"), "-c", HEADS], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("held\n"), done.stderr[-3000:]


@pytest.mark.thorough
def test_a_step_in_parts_is_the_step(trainer_python):
    """Losses, gradients and rewards of ORPO and of smoothed DPO are the same in 1, 2 and 4 parts, and ORPO's loss is the paper's."""
    env = {**os.environ, "PYTHONPATH": f"{BACKENDS / 'shims'}:{BACKENDS / 'trainers' / 'maxtext' / 'shims'}"}
    env |= {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([trainer_python("maxtext"), "-c", TOY], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (whole, *parted), truth = json.loads(done.stdout.splitlines()[-1])
    assert whole[0] == pytest.approx(truth, abs=1e-5)
    for each in parted:
        assert each == pytest.approx(whole, rel=1e-5)
