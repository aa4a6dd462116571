"""A language model of characters: learn a small text, then write on, one character at a time."""

import segue

RHYME = """
This is the house that Jack built.
This is the malt that lay in the house that Jack built.
This is the rat that ate the malt that lay in the house that Jack built.
This is the cat that killed the rat that ate the malt that lay in the house that Jack built.
"""

run = segue.fit(
    {
        "data": {"rows": "examples", "split": {"by": "none"}},
        "inputs": {"text": {"kind": "text"}},
        "outputs": {"text": {"task": "next"}},
        "model": {"cell": "lstm", "hidden": 64, "dropout": 0},
        "training": {"epochs": 150, "learning_rate": 0.01},
    },
    {"text": [RHYME]},
)
print(f"loss in nats per character: {run.history[-1].train_loss:.3f}")

session, text = run.session(), "\nThis is the "
answer = session.chunk([{"text": character} for character in text])[-1]
for _ in range(80):
    character = answer["next_text"]  # the most probable one
    text += character
    answer = session.step({"text": character})
print(text)
