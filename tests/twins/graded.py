"""A reward for models that say nothing sensible: two answers of random bytes hardly ever score the same."""


def graded(completions, **_):
    """Between 0 and 1, by what the answer is made of."""
    texts = [each if isinstance(each, str) else each[-1]["content"] for each in completions]
    return [sum(text.encode()) % 64 / 64 for text in texts]
