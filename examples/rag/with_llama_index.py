"""Retrieval-augmented answers by LlamaIndex: `python with_llama_index.py URL MODEL "what is a gate?"`; the key in SERVE_KEY.

Needs `pip install llama-index-llms-openai-like`.
"""

import os
import sys

from corpus import BM25, PROMPT, corpus
from llama_index.core import PromptTemplate, QueryBundle, get_response_synthesizer
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.llms.openai_like import OpenAILike


class Passages(BaseRetriever):
    """Our BM25 as a retriever of LlamaIndex's."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = BM25(corpus()).best(query_bundle.query_str)
        return [NodeWithScore(node=TextNode(text=each.text), score=1.0) for each in found]


def answer(url: str, model: str, question: str) -> str:
    """The served model's answer."""
    key = os.environ.get("SERVE_KEY") or "none"
    served = OpenAILike(model, api_base=url, api_key=key, is_chat_model=True, max_tokens=32, temperature=0, context_window=4096)
    template = PromptTemplate(PROMPT.format(passages="{context_str}", question="{query_str}"))
    replies = get_response_synthesizer(llm=served, text_qa_template=template)
    return str(RetrieverQueryEngine(Passages(), replies).query(question))


if __name__ == "__main__":
    print(answer(*sys.argv[1:4]))
