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
    evaluate = command(commands, "evaluate", "stages", "figures of what was trained, by lm-evaluation-harness, and gates")
    _model(evaluate)
    about = "a task of the harness, or a file of rows, FILE[,like=TASK][,kind=KIND][,name=NAME]; several"
    evaluate.add_argument("--task", action="append", required=True, metavar="TASK|FILE", help=about)
    evaluate.add_argument(
        "--gate", action="append", default=[], metavar="GATE", help="what a figure must be: 'mmlu.acc >= base - 0.01'; several"
    )
    evaluate.add_argument("--baseline", action="store_true", help="the start model too, and the difference with its error")
    evaluate.add_argument("--shots", type=int, metavar="N", help="worked examples before each question (default: 0)")
    evaluate.add_argument("--limit", type=int, metavar="N", help="rows of each task (default: all)")
    evaluate.add_argument("--batch", type=int, metavar="N", help="rows at once (default: 8)")
    evaluate.add_argument("--seed", type=int, metavar="N", help="of all that is drawn (default: 1234)")
    evaluate.add_argument("--chat", action="store_true", help="questions through the model's chat template")
    evaluate.add_argument("--model", choices=("merged", "adapter"), help="merged weights, or the adapter beside the start model")
    evaluate.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="of the weights in memory")

    export = command(commands, "export", "stages", "the model in other forms, each loaded again and compared with the checkpoint")
    _model(export)
    forms = ("merged", "adapter", "gguf-f32", "gguf-f16", "gguf-bf16", "gguf-q8_0", "gguf-q4_0")
    export.add_argument("--format", action="append", choices=forms, help="several (default: merged)")
    export.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="of the merged folder's weights")
    export.add_argument("--prompts", type=int, metavar="N", help="of the reply check (default: 4)")
    export.add_argument("--tokens", type=int, metavar="N", help="of each reply of the check (default: 16)")
    serve = command(
        commands, "serve", "stages", "an OpenAI-compatible server of what was trained, as a job; READY while it answers"
    )
    _model(serve)
    serve.add_argument("--port", type=int, metavar="N", help="on the host (default: a free one)")
    serve.add_argument("--expose", action="store_true", help="listen on all interfaces, not on the loopback alone; needs --key")
    serve.add_argument("--key", dest="key_name", metavar="NAME", help="name of the secret that clients must give as API key")
    serve.add_argument("--no-adapters", action="store_true", help="the merged model alone, without start model and adapter")
    serve.add_argument("--max-length", type=int, metavar="N", help="tokens of prompt and reply together")
    serve.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="of the weights in memory")
    chat = command(commands, "chat", "chat", "talk to what a job serves")
    chat.add_argument("job", metavar="JOB", help="the server, or the training that it follows")
    chat.add_argument("message", nargs="?", metavar="TEXT", help="one question (default: a conversation from standard input)")
    chat.add_argument("--model", metavar="NAME", help="of those served: base, adapter (default: the trained one)")
    chat.add_argument("--system", metavar="TEXT", help="what is said before all else")
    chat.add_argument("--max-tokens", type=int, metavar="N", help="of a reply")
    chat.add_argument("--temperature", type=float, metavar="T", help="0: the most likely token each time")
    chat.add_argument("--seed", type=int, metavar="N", help="of what is drawn")


def _model(made: argparse.ArgumentParser) -> None:
    """What all stages take."""
    made.add_argument("what", metavar="JOB|FOLDER", help="a job that has trained, or a folder in Hugging Face layout")
    made.add_argument("--on", metavar="TARGET", help="default: where it was trained; of a folder: this machine")
    made.add_argument("--attempt", type=int, metavar="N", help="of the job (default: the latest)")
    made.add_argument("--id", metavar="ID", help="name the job yourself: the same id submitted twice runs once")
    made.add_argument("--dry-run", action="store_true", help="print what would be sent; nothing is written, nothing asked")
    made.add_argument("--follow", action="store_true", help="show progress until the job ends; its end is the exit code")
    made.add_argument("--json", action="store_true", help="one JSON document")
