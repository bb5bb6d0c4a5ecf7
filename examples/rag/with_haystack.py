"""Retrieval-augmented answers by Haystack: `python with_haystack.py URL MODEL "what is a gate?"`; the key in SERVE_KEY.

Needs `pip install haystack-ai`. The passages are found by Haystack's own BM25.
"""

import os
import sys

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from corpus import corpus
from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import Secret

PROMPT = "Answer from these passages.\n\n{% for each in documents %}{{ each.content }}\n{% endfor %}\nQuestion: {{ question }}"


def answer(url: str, model: str, question: str) -> str:
    """The served model's answer."""
    store = InMemoryDocumentStore()
    store.write_documents([Document(content=each.text, meta={"title": each.title}) for each in corpus()])
    key = Secret.from_token(os.environ.get("SERVE_KEY") or "none")
    settings = {"max_tokens": 32, "temperature": 0}
    pipeline = Pipeline()
    pipeline.add_component("find", InMemoryBM25Retriever(store, top_k=2))
    pipeline.add_component(
        "ask", ChatPromptBuilder([ChatMessage.from_user(PROMPT)], required_variables=["documents", "question"])
    )
    pipeline.add_component("reply", OpenAIChatGenerator(key, model, api_base_url=url, generation_kwargs=settings))
    pipeline.connect("find.documents", "ask.documents")
    pipeline.connect("ask.prompt", "reply.messages")
    done = pipeline.run({"find": {"query": question}, "ask": {"question": question}})
    return done["reply"]["replies"][0].text


if __name__ == "__main__":
    print(answer(*sys.argv[1:4]))
