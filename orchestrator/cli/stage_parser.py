"""The commands over a model that is trained, and their options. No heavy import."""

from __future__ import annotations

import argparse
from collections.abc import Callable

Command = Callable[[object, str, str, str], argparse.ArgumentParser]


def add_stages(commands: object, command: Command) -> None:
    """Add them.

    Args:
        commands: of the parser.
        command: makes one: (commands, name, module, what it does) -> its parser.
    """
    evaluate = command(commands, "evaluate", "stages", "evaluate a model with lm-evaluation-harness, with optional gates")
    _model(evaluate)
    about = "a harness task, or a file of rows: FILE[,like=TASK][,kind=KIND][,name=NAME]; repeatable"
    evaluate.add_argument("--task", action="append", required=True, metavar="TASK|FILE", help=about)
    evaluate.add_argument(
        "--gate", action="append", default=[], metavar="GATE", help="condition on a result: 'mmlu.acc >= base - 0.01'; repeatable"
    )
    evaluate.add_argument(
        "--baseline", action="store_true", help="also evaluate the base model, and report the difference with its standard error"
    )
    evaluate.add_argument("--engine", choices=("hf", "vllm"), help="what runs the model (default: hf, which is transformers)")
    evaluate.add_argument("--shots", type=int, metavar="N", help="few-shot examples before each question (default: 0)")
    evaluate.add_argument("--limit", type=int, metavar="N", help="number of rows of each task (default: all)")
    evaluate.add_argument("--batch", type=int, metavar="N", help="batch size (default: 8)")
    evaluate.add_argument("--seed", type=int, metavar="N", help="random seed (default: 1234)")
    evaluate.add_argument("--chat", action="store_true", help="apply the model's chat template to the questions")
    evaluate.add_argument("--model", choices=("merged", "adapter"), help="merged weights, or the adapter on the base model")
    evaluate.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="data type of the weights in memory"
    )

    export = command(commands, "export", "stages", "write a model in other formats, each checked against the checkpoint")
    _model(export)
    plain = ("merged", "adapter", "gguf-f32", "gguf-f16", "gguf-bf16", "gguf-q8_0", "gguf-q4_0", "gguf-adapter")
    forms = (*plain, "fp8-dynamic", "fp8", "w8a8", "w4a16", "w4a16-gptq")
    export.add_argument("--format", action="append", choices=forms, help="format to write; repeatable (default: merged)")
    export.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="data type of the merged weights")
    export.add_argument("--prompts", type=int, metavar="N", help="prompts of the check (default: 4)")
    export.add_argument("--tokens", type=int, metavar="N", help="tokens of each reply in the check (default: 16)")
    _add_push(commands, command)
    _add_serve(commands, command)
    chat = command(commands, "chat", "chat", "chat with a served model")
    chat.add_argument("job", metavar="JOB", help="the serving job, or its training job")
    chat.add_argument("message", nargs="?", metavar="TEXT", help="one message (default: a conversation on standard input)")
    chat.add_argument("--model", metavar="NAME", help="served model: base, adapter, ... (default: the trained one)")
    chat.add_argument("--system", metavar="TEXT", help="system message")
    chat.add_argument("--max-tokens", type=int, metavar="N", help="most tokens of a reply")
    chat.add_argument("--temperature", type=float, metavar="T", help="sampling temperature; 0: always the most likely token")
    chat.add_argument("--seed", type=int, metavar="N", help="random seed")


def _add_serve(commands: object, command: Command) -> None:
    serve = command(commands, "serve", "stages", "serve a model with an OpenAI-compatible API, as a job; READY while it answers")
    _model(serve)
    engines = ("auto", "transformers", "vllm", "llama.cpp")
    serve.add_argument("--engine", choices=engines, help="what runs the model (default: vllm on CUDA, transformers on a CPU)")
    serve.add_argument(
        "--gguf", choices=("auto", "f32", "f16", "bf16", "q8_0", "q4_0"), help="llama.cpp: data type of the weights"
    )
    serve.add_argument("--no-prefix-cache", action="store_true", help="vllm, llama.cpp: compute every prompt from its beginning")
    serve.add_argument(
        "--check",
        nargs="?",
        type=int,
        const=8,
        default=0,
        metavar="ROWS",
        help="first compare log-probabilities of rows with those of the trainer's own framework (default: 8 rows)",
    )
    serve.add_argument("--port", type=int, metavar="N", help="port on the host (default: any free one)")
    serve.add_argument(
        "--replicas", type=int, metavar="N", help="engines behind the one port (default: 1); on CUDA a device each"
    )
    serve.add_argument("--expose", action="store_true", help="listen on all interfaces, not only on 127.0.0.1; needs --key")
    serve.add_argument("--key", dest="key_name", metavar="NAME", help="name of the secret that holds the API key")
    serve.add_argument("--no-adapters", action="store_true", help="serve only the merged model, without base model and adapter")
    serve.add_argument("--max-length", type=int, metavar="N", help="most tokens of prompt and reply together")
    serve.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="data type of the weights in memory")


def _add_push(commands: object, command: Command) -> None:
    push = command(commands, "push", "stages", "upload a model to a hub with a model card; private by default")
    _model(push)
    push.add_argument("--repo", required=True, metavar="OWNER/NAME", help="repository on the hub; made if it does not exist")
    push.add_argument(
        "--what", dest="part", choices=("model", "adapter"), help="the merged model or its adapter (default: model)"
    )
    push.add_argument("--public", action="store_true", help="make the repository public")
    push.add_argument("--token", dest="token_name", metavar="NAME", help="name of the secret with the token (default: HF_TOKEN)")
    push.add_argument("--branch", metavar="NAME", help="branch of the repository (default: main)")


def _model(made: argparse.ArgumentParser) -> None:
    """What all stages take."""
    made.add_argument(
        "what", metavar="JOB|FOLDER|HUB-ID", help="a job that has trained, a model folder, or a hub model: ORG/NAME[@REVISION]"
    )
    made.add_argument("--on", metavar="TARGET", help="where to run (default: where it was trained; else this machine)")
    made.add_argument("--attempt", type=int, metavar="N", help="attempt of the job (default: the latest)")
    made.add_argument("--id", metavar="ID", help="id of the job; the same id submitted twice runs once (default: a new one)")
    made.add_argument("--dry-run", action="store_true", help="print what would run; write nothing, connect to nothing")
    made.add_argument("--follow", action="store_true", help="show progress until the job ends; exit code 0 if it SUCCEEDED")
    made.add_argument("--json", action="store_true", help="print one JSON document")
