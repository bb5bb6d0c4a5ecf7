"""Every config that comes with a trainer: imported or refused with a reason, each key accounted for, the same when it goes back."""

import json
import posixpath
import time
from collections import Counter
from dataclasses import asdict
from fnmatch import fnmatchcase

import pytest

from backends.analysis.porting import elsewhere
from backends.backend import Inexpressible
from backends.compile import NEVER_ACCEPTABLE, plan
from backends.dialect import NO_TRAINING, Refused
from backends.importing import shell
from backends.importing.convert import convert
from backends.importing.recognise import opened
from backends.native_config import Unreadable, flat, read
from backends.registry import BACKENDS
from backends.target import Target
from tests.unit.importing import effective
from tests.unit.importing.conftest import COUNTS

pytestmark = pytest.mark.long

SAME = {"torchtune": 0.94, "axolotl": 0.98, "litgpt": 0.91, "maxtext": 1.0}
"""Least share of the files that come back that are the same then. Each other file is printed with its keys and reasons, and each that
does not come back with what tune refuses of it. Two of axolotl's add a token whose row it draws at random, where a recipe's begins as the mean."""

WHY = {
    ("torchtune", "quantizer.*"): "torchtune's quantization-aware training is lost: method.qat.scheme",
    ("torchtune", "dataset*"): "several data sets with images, which only a recipe of upstream's own reads",
    ("litgpt", "lora_*"): "LLaMA-Adapter has no word in method.adapter: lora stands in",
    **{
        ("litgpt", key): "rows for pre-training are rendered by tune, and the start is converted by it"
        for key in ("data.*", "eval.*", "model_name", "train.*")
    },
    ("litgpt", "optimizer.*"): "torch's AdamW by a name of ours, which spares what optim.decay_on says",
    ("axolotl", "datasets"): "rows that a recipe cannot name become data.train",
    ("axolotl", "trl.reward_funcs"): "the same functions, whose file comes along as a module of ours",
    ("axolotl", "micro_batch_size"): "with GRPO a device takes whole groups of answers",
    ("axolotl", "gradient_accumulation_steps"): "with GRPO a device takes whole groups of answers",
    ("torchtune", "shuffle"): "written out in full",
}
"""(trainer, key) -> the reason where import itself has no word on the key."""

ITSELF = {
    "axolotl-0.19.0/examples/expert_parallel/*": "warmup_steps: 0.1 is no whole number",
    "axolotl-0.19.0/examples/llama-3/diffusion/sft-1b.yaml": "warmup_steps: 0.1 is no whole number",
    "axolotl-0.19.0/examples/archived/pythia-12b/*": "max_packed_sequence_len is gone",
    "axolotl-0.19.0/examples/archived/stablelm-2/*": "flash_attn_rms_norm is gone",
    "maxtext/configs/gpu/a3/llama_3.1_405b/128vm.sh": "enable_checkpointing: False, in the manner of YAML, is no key=value",
    "maxtext/experimental/rl/grpo*.yml": "stands on base.yml, of which its reinforcement learning knows eight keys no longer",
}
"""Configs that the trainer that they come with refuses (tried with its own loader): compared by what they mean without that."""


def refusal(path):
    """Why the config's own trainer refuses it; empty when it does not."""
    return next((why for pattern, why in ITSELF.items() if fnmatchcase(path, pattern)), "")


def reason(trainer, found, key, pair):
    """Why a key came back with another value."""
    told = next((each.why for each in found.entries if each.key == key), "")
    known = next((why for (name, pattern), why in WHY.items() if name == trainer and fnmatchcase(key, pattern)), "")
    return f"{key}: {json.dumps(pair[0])} became {json.dumps(pair[1])}"[:110] + f": {known or told}"


def imported(corpus):
    """(path, line) -> what became of each file, or each command of a script: an import, or the reason against it."""
    out = {}
    for path, text in corpus.files.items():
        for line in [each.line for each in shell.commands(text) if shell.is_script(text)] or [0]:
            try:
                out[path, line] = convert(text, name=posixpath.basename(path), beside=corpus.beside(path), line=line)
            except (Refused, Unreadable) as error:
                out[path, line] = str(error)
    return out


def machine(recipe):
    """A machine such as the recipe asks for."""
    wish = recipe.resources
    kind = "cuda" if wish.accelerator == "any" else wish.accelerator
    return Target(accelerator=kind, devices=wish.devices, hosts=wish.hosts)


def on_one_host(recipe):
    """As many devices, all of one host: some trainers' runs over several are not translated, and their keys are the same."""
    wish = recipe.resources
    alone = wish.replace(devices=wish.devices * wish.hosts, hosts=1)
    return recipe.replace(resources=alone)


@pytest.mark.parametrize("trainer", list(COUNTS))
def test_every_key_ends_somewhere(corpus, trainer):
    """Each file is imported or refused with a reason; each key of an imported one has exactly one fate, and what is not modelled
    says what it does.
    """
    texts = corpus(trainer)
    assert sum(path.endswith((".yaml", ".yml")) for path in texts.files) == COUNTS[trainer]
    start = time.perf_counter()
    found = imported(texts)
    seconds = time.perf_counter() - start
    good = {path: each for path, each in found.items() if not isinstance(each, str)}
    refused = Counter(each.partition("(")[0] for each in found.values() if isinstance(each, str))
    fates = Counter(entry.fate for each in good.values() for entry in each.entries)
    left = Counter((entry.key, entry.why) for each in good.values() for entry in each.entries if entry.fate == "unmodelled")
    files = f"{len(texts.files)} files" + (f" with {len(found)} configs" if len(found) > len(texts.files) else "")
    print(f"\n{trainer}: {files}, {len(good)} imported, {len(found) - len(good)} refused, {seconds:.2f} s")
    print(f"  {sum(fates.values())} keys: {dict(fates)}")
    for reason, count in refused.most_common():
        print(f"  {count:4} refused: {reason}")
    for (key, why), count in left.most_common(25):
        print(f"  {count:4} not modelled: {key}: {why}")
    for path, each in good.items():
        assert each.backend == trainer, path
        assert len({entry.key for entry in each.entries}) == len(each.entries)
        assert json.dumps([asdict(entry) for entry in each.entries])
        assert all(entry.why for entry in each.entries if entry.fate == "unmodelled"), path
    training = [each for each in found.values() if not isinstance(each, str) or not each.startswith(NO_TRAINING)]
    share = len(good) / len(training)
    print(f"  {share:.1%} of {len(training)} training configs imported")
    assert share >= 0.97


@pytest.mark.parametrize("trainer", list(SAME))
def test_there_and_back(corpus, trainer):
    """A config that becomes a recipe and a config of the same trainer again makes the trainer do the same. Losses that the native
    keys stand in for are accepted, as the report says.
    """
    texts, backend, left, refused = corpus(trainer), BACKENDS[trainer], {}, {}
    good = {path: each for path, each in imported(texts).items() if not isinstance(each, str)}
    for (path, line), each in good.items():
        leaves = {*each.recipe.flat(), *(f"native.{trainer}.{key}" for key in flat(each.recipe.native.get(trainer, {})))}
        try:
            recipe = on_one_host(each.recipe)
            made = plan(backend, recipe, machine(recipe), accept=leaves - NEVER_ACCEPTABLE)
        except Inexpressible as error:
            refused[path, line] = [f"{lost.leaf}: {lost.why}" for lost in error.report.refused]
            continue
        wild = opened(texts.files[path], "", texts.beside(path), (), line)[1].keys
        pairs = effective.differences(trainer, wild, written(backend, made, wild))
        if pairs:
            left[path, line] = [reason(trainer, each, key, pair) for key, pair in pairs.items()]
    back = len(good) - len(refused)
    share = (back - len(left)) / back
    print(f"\n{trainer}: of {len(good)} files {back} come back, {back - len(left)} of them the same ({share:.1%}); the others:")
    for (path, line), reasons in [*left.items(), *refused.items()]:
        print(f"  {path}" + (f", line {line}" if line else ""), *reasons, sep="\n      ")
    for path, _line in good:
        if why := refusal(path):
            print(f"  {path}: {trainer} itself refuses it, and it is compared all the same: {why}")
    assert all(left.values())
    assert all(refused.values())
    assert len(refused) <= 0.1 * len(good)
    assert not any(line.endswith(": ") for reasons in left.values() for line in reasons)
    assert share >= SAME[trainer]


def written(backend, made, wild):
    """The keys of the config in a plan, with what else decides them: the command, and of MaxText the spec of job.yml."""
    files = {file.path: file.text for file in made.files}
    job = {f"job:{key}": value for key, value in json.loads(files.get("maxtext.json", "{}")).items()}
    job |= {"job:spec": json.loads(files["model.json"])} if job else {}
    launch = {} if job else {key: value for key, value in wild.items() if key.startswith("launch:")}
    # what our class of transformers' trainer does, and axolotl's own by this key
    ours = {"early_stopping_patience": json.loads(files["trainer.json"])["patience"]} if "trainer.json" in files else {}
    return {**read(files[backend.config]).keys, **launch, **job, **ours}


def test_moving(corpus):
    """An imported fine-tune goes to each other trainer with its rows rendered once, or the report names what is lost."""
    share = {}
    for trainer in COUNTS:
        good = [e for e in imported(corpus(trainer)).values() if not isinstance(e, str) and e.recipe.method.kind == "sft"]
        for name, backend in BACKENDS.items():
            outcomes = Counter()
            for each in good:
                recipe = each.recipe if name == trainer else elsewhere(each.recipe, backend)
                try:
                    plan(backend, recipe, machine(recipe))
                    outcomes["goes"] += 1
                except Inexpressible as error:
                    assert all(line.why for line in error.report.refused)
                    outcomes["names what is lost"] += 1
            share[trainer, name] = (outcomes["goes"], len(good))
    print("\nSFT configs that go without a loss, from (rows) to (columns)")
    print(f"  {'':10}" + "".join(f"{name:>14}" for name in BACKENDS))
    for trainer in COUNTS:
        print(f"  {trainer:10}" + "".join(f"{share[trainer, name][0]:>8}/{share[trainer, name][1]:<5}" for name in BACKENDS))
    assert len(share) == len(COUNTS) * len(BACKENDS)


def test_command_lines(corpus):
    """The scripts that come with MaxText are read as the command that they end in."""
    scripts = {path: text for path, text in corpus("maxtext").files.items() if path.endswith(".sh")}
    found = {path: shell.command(text) for path, text in scripts.items()}
    trained = {path: each for path, each in found.items() if each and "train" in each.module}
    lines = sum(1 + len(each.others) for each in trained.values())
    print(f"\n{len(scripts)} scripts, {len(trained)} train, by {lines} commands")
    assert len(trained) >= 40
    assert all(any("=" in word for word in each.words) for each in trained.values())
