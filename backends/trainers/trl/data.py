"""TRL's keys for the data: rows of the data step, or (data.rendering: native) files that TRL reads, renders and cuts itself."""

from __future__ import annotations

from backends.hf import arguments
from backends.hf.names import TRAINER
from backends.mapping.data import COLUMNS, sources, unchecked
from backends.mapping.launch import LAUNCH
from backends.mapping.rows import Context, Flat, Row, Unsupported, Value, Values, Variant, cannot, couple, same
from backends.trainers.trl.method import SEE

_READS = SEE + "scripts/utils.py"
_SFT = SEE + "trainer/sft_trainer.py"
_LANGUAGE = ("sft", "pretrain")


def shared(variant: Variant) -> tuple[Row, ...]:
    """Rows of the data step, handed over as tokens."""
    return arguments.data(*(() if variant.kind == "grpo" else ("max_length",)))


def native(variant: Variant) -> tuple[Row, ...]:
    """TRL reads the files itself."""
    see = _preparing(variant)

    def only(leaf: str, value: Value, why: str) -> Row:
        return cannot(leaf, why, supported=(value,), see=see)

    return (
        _own(),
        couple(
            ("data.eval_share",),
            ("test_split_size",),
            lambda share, _: (share,),
            lambda share, _: (share,),
            status="approximated",
            why="as many rows, but not those that the data step draws",
            see=_READS,
        ),
        *_form(variant),
        only("data.system", None, "TRL adds no system text to a row; use data.rendering: shared"),
        _rendering(variant),
        _length(variant),
        only("data.pack", False, _UNPACKED),
        *(() if variant.kind in _LANGUAGE else (only("data.train_on_prompt", False, "prompts carry no loss here"),)),
        only("data.add_eos", True, "TRL always ends a text with the end token"),
        couple(
            ("data.drop_empty",),
            (f"{LAUNCH}:empty",),
            lambda value, _: (value,),
            lambda value, _: (value,),
            status="approximated",
            why="TRL leaves rows without a token with loss out, however many, and tells nobody",
            see=see,
        ),
        *unchecked(see),
        _order(variant),
        couple(
            ("train.epochs", "train.steps"),
            ("num_train_epochs", "max_steps"),
            lambda epochs, steps, _: (epochs or 1, steps or -1),
            lambda epochs, steps, _: (epochs, None) if steps == -1 else (None, steps),
            why="max_steps goes before, with as many epochs as it needs",
        ),
    )


_UNPACKED = (
    "TRL keeps packed rows apart, and cuts one where it must; data.pack does neither. native.trl.packing asks for TRL's own way"
)


def _preparing(variant: Variant) -> str:
    """Source of the trainer that makes tokens of a kind's rows."""
    older = {"orpo": "orpo/orpo", "simpo": "cpo/cpo", "distill": "gkd/gkd"}
    if variant.kind in older:
        return SEE + f"experimental/{older[variant.kind]}_trainer.py"
    return SEE + f"trainer/{'sft' if variant.kind in _LANGUAGE else 'dpo' if variant.kind == 'ipo' else variant.kind}_trainer.py"


def _data_set(source: Flat) -> Flat:
    """A source as TRL's DatasetConfig names it."""
    if "hub" in source:
        return {"path": source["hub"], "split": source["split"]}
    builder = next((word for end, word in ((".parquet", "parquet"), (".txt", "text")) if source["path"].endswith(end)), "json")
    return {"path": builder, "data_files": source["path"], "split": "train"}


def _own() -> Row:
    """Where the rows are, in TRL's list of data sets; it has none for evaluation."""

    def to(*wish: Value) -> Values:
        *values, _ = wish
        train, part, other, split = values
        sets = [_data_set(each) for each in sources("data.train", train, part)]
        tests = [_data_set(each) for each in sources("data.eval", other, split)]
        written = {"datasets": sets, f"{TRAINER}:eval": tests, f"{LAUNCH}:data": values}
        if isinstance(train, list) and any(each["weight"] != 1 for each in train):
            why = "the shares of TRL's data sets repeat no row; use data.rendering: shared"
            raise Unsupported("data.train", why, see=_READS, fallback=written)
        return tuple(written.values())

    return couple(
        ("data.train", "data.train_split", "data.eval", "data.eval_split"),
        ("datasets", f"{TRAINER}:eval", f"{LAUNCH}:data"),
        to,
        lambda _sets, _tests, values, _: tuple(values),
        why="TRL's own data sets, read by their columns",
        see=_READS,
    )


def _form(variant: Variant) -> tuple[Row, ...]:
    """What the rows are, which TRL sees by their columns, and which of their tokens carry loss."""
    language = variant.kind in _LANGUAGE
    form, roles, prompts = "data.format", "data.loss_roles", "data.train_on_prompt"
    asked = f"{LAUNCH}:rows"

    def refused(form: str, roles: list[str], fallback: Flat) -> None:
        if form == "instruct":
            why = "TRL has no template for instructions: it reads messages, prompt and completion, or text; use data.rendering: shared"
            raise Unsupported("data.format", why, see=_SFT, fallback=fallback)
        if roles != ["assistant"]:
            why = "TRL masks all but the assistant's messages, or nothing; use data.rendering: shared"
            raise Unsupported("data.loss_roles", why, see=_SFT, fallback=fallback)

    def to(form: str, roles: list[str], prompts: bool, _: Context) -> Values:
        written = {
            "assistant_only_loss": form == "chat" and not prompts,
            "completion_only_loss": form == "completion" and not prompts,
            asked: [form, roles, prompts],
        }
        refused(form, roles, written)
        return tuple(written.values())

    def other(form: str, roles: list[str], _: Context) -> Values:
        refused(form, roles, {asked: [form, roles]})
        return ([form, roles],)

    why = "TRL sees by the columns what the rows are"
    if language:
        keys = ("assistant_only_loss", "completion_only_loss", asked)
        row = couple((form, roles, prompts), keys, to, lambda *values: tuple(values[-2]), why=why, see=_SFT)
    else:
        row = couple((form, roles), (asked,), other, lambda values, _: tuple(values), why=why, see=_preparing(variant))
    template = cannot("data.template", "TRL's rows go through the model's chat template, or through none", see=_SFT)
    return (row, *(_column(name, language) for name in COLUMNS), template)


def _column(name: str, language: bool) -> Row:
    leaf = f"data.columns.{name}"
    if name == "text" and language:
        return same(leaf, "dataset_text_field")
    return cannot(leaf, f"TRL wants the column to be called {name}", see=_SFT)


def _rendering(variant: Variant) -> Row:
    def to(_value: str, _context: Context) -> Values:
        if variant.kind == "distill":
            why = (
                "TRL's GKDTrainer must prepare rows as its SFTTrainer does first: it tokenizes chats micro-batch by micro-batch, and "
                "reads no other rows; use data.rendering: shared"
            )
            fallback = {f"{TRAINER}:rows": None}
            raise Unsupported("data.rendering", why, kind="waiting", see=_preparing(variant), fallback=fallback)
        return (None,)

    return couple(
        ("data.rendering",),
        (f"{TRAINER}:rows",),
        to,
        lambda *_: ("native",),
        status="approximated",
        why="TRL's own templates, tokens at the seams, truncation and order",
        see=_preparing(variant),
    )


def _length(variant: Variant) -> Row:
    if variant.kind != "grpo":
        return same("data.max_length", "max_length")
    return couple(
        ("data.max_length",),
        (f"{LAUNCH}:length",),
        lambda length, _: (length,),
        lambda length, _: (length,),
        status="approximated",
        why="TRL cuts no prompt that is answered",
        see=_preparing(variant),
    )


def _order(variant: Variant) -> Row:
    """Each epoch anew by transformers' sampler; TRL's kinds that have a key for it shuffle the rows once before."""
    before = ("shuffle_dataset",) if variant.kind in (*_LANGUAGE, "grpo", "distill") else ()
    keys = ("train_sampling_strategy", f"{TRAINER}:shuffle", *before, f"{LAUNCH}:shuffle")
    fixed = variant.kind == "kto"  # TRL pairs each prompt with its neighbour's answer, and refuses another order then

    def to(value: bool, _: Context) -> Values:
        drawn = value and not fixed
        return "random" if drawn else "sequential", *(drawn for _ in keys[1:-1]), value

    return couple(
        ("data.shuffle",),
        keys,
        to,
        lambda *values: (values[-2],),
        status="approximated",
        why="in the files' order, in which TRL pairs each prompt with its neighbour's answer"
        if fixed
        else "by train.seed, in another order than that of data.rendering: shared",
    )
