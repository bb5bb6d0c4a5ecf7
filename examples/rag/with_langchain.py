"""Retrieval-augmented answers by LangChain: `python with_langchain.py URL MODEL "what is a gate?"`; the key in SERVE_KEY.

Needs `pip install langchain-openai`.
"""

import os
import sys

from corpus import BM25, PROMPT, corpus
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnablePassthrough
from langchain_openai import ChatOpenAI


class Passages(BaseRetriever):
    """Our BM25 as a retriever of LangChain's."""

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:  # noqa: ARG002  # LangChain's own
        return [Document(each.text, metadata={"title": each.title}) for each in BM25(corpus()).best(query)]


def answer(url: str, model: str, question: str) -> str:
    """The served model's answer."""
    key = os.environ.get("SERVE_KEY") or "none"
    served = ChatOpenAI(base_url=url, api_key=key, model=model, max_tokens=32, temperature=0)
    passages = Passages() | (lambda found: "\n".join(each.page_content for each in found))
    chain = {"passages": passages, "question": RunnablePassthrough()} | ChatPromptTemplate.from_template(PROMPT) | served
    return (chain | StrOutputParser()).invoke(question)


if __name__ == "__main__":
    print(answer(*sys.argv[1:4]))
