"""The textbook's first program on plain arrays: 10 inputs, 50 hidden units, 1 output."""

import numpy as np

import segue

x = np.random.default_rng(0).normal(size=(10, 20, 10))  # 10 sequences of 20 steps of 10 inputs
y = x[:, -1].mean(axis=1)  # one number for each sequence
settings = {"epochs": 100, "optimizer": "adam", "batch": "all", "learning_rate": 0.01}
run = segue.fit(x, y, model={"cell": "elman", "hidden": 50, "dropout": 0}, training=settings)
print(np.c_[y, run.predict(x)["y"]].round(2))  # the answers, and what the network has learnt
